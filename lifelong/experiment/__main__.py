"""Carry out the job that a file describes: `python -m lifelong.experiment JOB.json`; see `lifelong.experiment.job`."""

import json
import sys
from pathlib import Path

from lifelong.experiment.job import outcome_file, perform_plain
from lifelong.opening import read_json
from lifelong.storage import write_text
from lifelong.training.malloc import keep_freed_memory


def main(file: Path) -> int:
    """Carry out a job, write its outcome beside its file, and return the exit code."""
    keep_freed_memory()
    outcome = perform_plain(read_json(file))
    write_text(outcome_file(file), json.dumps(outcome))
    if outcome["failure"]:
        print(outcome["crash"] or f"lifelong: {outcome['failure']}", file=sys.stderr)
    return 0 if not outcome["failure"] else 1 if outcome["crash"] else 2


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
