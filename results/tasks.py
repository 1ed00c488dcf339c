"""Task by task: what each run of a table learned, forgot, added and spent.

    python results/tasks.py TABLE.csv RUN_DIR [RUN_DIR ...]

One row a run and task. The table is written anew; the runs' own rows, with their commands, stand in the table that `add.py` makes.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

from lifelong.experiment.compare import read_summaries
from lifelong.records.run import RunRecord


def main() -> int:
    """Read the command line and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR", help="run directories, or folders of them")
    options = parser.parse_args()
    rows = [row for summary in read_summaries(options.runs) for row in rows_of(summary)]
    with options.table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} rows written to {options.table}")
    return 0


def rows_of(summary: RunRecord) -> list[dict[str, Any]]:
    """Return the rows of one run."""
    accuracy = summary.accuracy
    return [
        {
            "stream": summary.stream,
            "method": summary.method,
            "seed": summary.seed,
            "task": task.name,
            "decision": task.decision or "",
            "learned": f"{accuracy[index][index]:.4f}",
            "final": f"{accuracy[-1][index]:.4f}",
            "parameters_added": task.parameters_added,
            "seconds": f"{task.seconds:.1f}",
        }
        for index, task in enumerate(summary.tasks)
    ]


if __name__ == "__main__":
    sys.exit(main())
