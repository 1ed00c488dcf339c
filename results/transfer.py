"""Add what `lifelong transfer` has found to a table that is kept in git.

    python results/transfer.py TABLE.csv --command "lifelong transfer ..." FOLDER

A row for each measure, with its agreement with the gains and the regret of the rules that read it, and one for each rule that reads none.
"""

import argparse
import csv
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from lifelong.records.transfer import TransferRecord
from lifelong.reproduction.commit import commit

COLUMNS = (
    *("stream", "seeds", "measure", "strategy", "tau", "tau_both", "tau_of_targets", "tau_of_targets_both"),
    *("rule", "threshold", "value", "regret", "more_parameters", "more_seconds", "shared"),
    *("command", "commit", "machine", "threads", "torch", "minutes", "date"),
    *("tau_of_means", "tau_of_means_both", "regret_on_validation"),
)


def main() -> int:
    """Read the command line and add the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--command", required=True, help="what made it")
    options = parser.parse_args()
    found = TransferRecord.model_validate(json.loads((options.folder / "transfer.json").read_text()))
    made = {
        "stream": found.stream,
        "seeds": " ".join(str(one.seed) for one in found.seeds),
        "command": options.command,
        "commit": commit(),
        "machine": f"{found.machine}, {found.device}",
        "threads": found.threads,
        "torch": found.torch,
        "minutes": f"{(found.seconds or 0.0) / 60:.2f}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    fresh = not options.table.exists()
    with options.table.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if fresh:
            writer.writeheader()
        writer.writerows(made | row for row in [*_agreements(found), *_rules(found)])
    return 0


def _agreements(found: TransferRecord) -> list[dict[str, Any]]:
    every = [*found.agreement, *(found.repeatability or [])]
    both = {(one.measure, one.strategy): one for one in every if one.both}
    rows = []
    for one in every:
        if one.both:
            continue
        row = {"measure": one.measure, "strategy": one.strategy, "tau": _digits(one.tau), "tau_of_targets": _digits(one.tau_of_targets)}
        row |= {"tau_of_means": _digits(one.tau_of_means)}
        other = both.get((one.measure, one.strategy))
        if other is not None:
            row |= {"tau_both": _digits(other.tau), "tau_of_targets_both": _digits(other.tau_of_targets)}
            row |= {"tau_of_means_both": _digits(other.tau_of_means)}
        rows.append(row)
    return rows


def _rules(found: TransferRecord) -> list[dict[str, Any]]:
    numbers = ("threshold", "value", "regret", "regret_on_validation", "more_parameters", "more_seconds", "shared")
    return [
        {"measure": one.measure or "", "strategy": one.strategy or "", "rule": one.rule}
        | {name: _digits(getattr(one, name)) for name in numbers}
        for one in found.rules
    ]


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    sys.exit(main())
