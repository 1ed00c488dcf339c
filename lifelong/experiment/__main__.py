"""Carry out the job that a file describes: `python -m lifelong.experiment JOB.json`; see `lifelong.experiment.job`."""

import json
import sys
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError, of_system
from lifelong.experiment.job import check_plain, outcome_file, perform_plain
from lifelong.opening import read_json
from lifelong.storage import remove, write_text
from lifelong.training.malloc import keep_freed_memory


def main(words: list[str]) -> int:
    """Carry out a job, write its outcome next to its file, and return the exit code.

    Args:
        words: the command line, which is the name of the job's file.
    """
    keep_freed_memory()
    try:
        file, plain = _read(words)
        # Started anew, a job has no outcome, whatever an earlier start came to.
        remove(outcome_file(file))
        outcome = perform_plain(plain)
        write_text(outcome_file(file), json.dumps(outcome))
    except LifelongError as error:
        outcome = {"failure": str(error), "crash": ""}
    if outcome["failure"]:
        print(outcome["crash"] or f"lifelong: {outcome['failure']}", file=sys.stderr)
    return 0 if not outcome["failure"] else 1 if outcome["crash"] else 2


def _read(words: list[str]) -> tuple[Path, dict[str, Any]]:
    """Return the job's file and its content.

    Raises:
        LifelongError: the file is not given, cannot be read, or does not describe a job.
    """
    if len(words) != 1:
        raise LifelongError("usage: python -m lifelong.experiment JOB.json, a file that lifelong.RunJob.command has written")
    file = Path(words[0])
    try:
        plain = read_json(file)
    except OSError as error:
        raise of_system(error) from error
    except ValueError as error:
        raise LifelongError(f"{file} is not JSON: {error}; write it again with lifelong.RunJob.command") from error
    check_plain(plain, str(file))
    return file, plain


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
