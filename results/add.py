"""Add finished runs to a table that is kept in git.

    python results/add.py TABLE.csv --command "lifelong compare ..." RUN_DIR [RUN_DIR ...]

One row a run: what came out, by which command, at which commit, on which machine, in how many minutes. Rows are only added; a run whose
command has a row already is passed over, unless `--again` says that the code has changed since.
"""

import argparse
import csv
import datetime
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from lifelong.experiment.compare import read_summaries
from lifelong.records.run import RunRecord
from lifelong.reproduction.commit import commit

COLUMNS = (
    *("stream", "method", "preset", "seed", "ap", "af", "parameters", "memory_bytes", "minutes", "decisions", "complete"),
    *("command", "commit", "machine", "threads", "torch", "date", "routing", "task_agnostic_ap", "search_minutes"),
)


def main() -> int:
    """Read the command line and add the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR", help="run directories, or folders of them")
    parser.add_argument("--command", required=True, help="what made them")
    parser.add_argument("--again", action="store_true", help="add rows even of a command that has some, made by other code")
    options = parser.parse_args()
    rows = [row(summary, options.command) for summary in read_summaries(options.runs)]
    fresh, columns = not options.table.exists(), COLUMNS
    if not fresh:
        with options.table.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            columns = tuple(table.fieldnames or COLUMNS)  # An older table has fewer.
            there = {(known["command"], known["method"], known["seed"]) for known in table}
        rows = [new for new in rows if options.again or (new["command"], new["method"], str(new["seed"])) not in there]
    with options.table.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} rows added to {options.table}")
    return 0


def row(summary: RunRecord, command: str) -> dict[str, Any]:
    """Return the row of one run."""
    free = summary.task_agnostic
    decisions = Counter(task.decision for task in summary.tasks if task.decision)
    return {
        "stream": summary.stream,
        "method": summary.method,
        "preset": summary.preset,
        "seed": summary.seed,
        "ap": f"{summary.ap:.4f}",
        "af": f"{summary.af:.4f}",
        "parameters": summary.parameters,
        "memory_bytes": sum(summary.memory.values()),
        "minutes": f"{summary.seconds / 60:.2f}",
        "decisions": " ".join(f"{name}:{count}" for name, count in sorted(decisions.items())),
        "complete": summary.complete,
        "command": command,
        "commit": commit(),
        "machine": f"{summary.machine}, {summary.device}",
        "threads": summary.threads,
        "torch": summary.torch,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "routing": f"{free.mean_routing:.4f}" if free else "",
        "task_agnostic_ap": f"{free.mean_accuracy:.4f}" if free else "",
        "search_minutes": f"{(summary.seconds_by_phase or {}).get('search', 0.0) / 60:.2f}",
    }


if __name__ == "__main__":
    sys.exit(main())
