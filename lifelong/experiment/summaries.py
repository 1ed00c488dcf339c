"""Read and compare summary.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lifelong.digests import DIGEST, run_digest, signed
from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.lines import folded
from lifelong.experiment.schema import LaterError, read_held
from lifelong.json_files import Lines, read_lines, read_record
from lifelong.records.base import said
from lifelong.records.renames import renamed
from lifelong.records.run import RunRecord
from lifelong.storage import Seal

SUMMARY = "summary.json"

LEARNED = "learned"
"""The key of a summary that does not hold its tasks: of how many tasks it is, which stand in results.jsonl."""


def read_summary(path: Path, lines: Lines | None = None) -> RunRecord:
    """Return the summary.json of a run directory.

    Args:
        path: the run directory.
        lines: of its results.jsonl; None: they are read where they are needed.

    Raises:
        DamagedError: it was damaged or changed.
        LifelongError: there is none, or it cannot be read.
    """
    file = Path(path) / SUMMARY
    try:
        content, checked = read_held(file, "summary")
    except FileNotFoundError as error:
        raise LifelongError(f"no summary.json in {path}: not a run directory, or no task is finished yet") from error
    except DamagedError as error:
        raise DamagedError(f"{error}; delete it and continue that run to write it again") from error
    except LaterError:
        raise
    except LifelongError as error:
        raise LifelongError(f"{error}; delete it and continue that run to write it again") from error
    # Of one without its tasks the digest is that of what stands in its file.
    whole = signed(content) if checked else content
    return with_tasks(Path(path), whole, lines) if LEARNED in content else RunRecord.model_validate(whole)


# `Any`: a record of any form.
def with_tasks(path: Path, content: Mapping[str, Any], lines: Lines | None = None) -> RunRecord:
    """Return a summary that does not hold its tasks together with them.

    Args:
        path: the run directory.
        content: of its summary.json.
        lines: see `read_summary`.

    Raises:
        DamagedError: results.jsonl does not have them.
    """
    count, head = content[LEARNED], {key: value for key, value in content.items() if key != LEARNED}
    lines = read_lines(path / "results.jsonl", _seal(path)) if lines is None else lines
    try:
        if type(count) is not int or not 0 < count <= len(lines.found):
            raise ValueError(f"{len(lines.found)} tasks, not {count}")
        entries, rows = folded([renamed("task", line) for line in lines.found[:count]])
        return RunRecord.model_validate(head | {"accuracy": rows, "tasks": entries})
    except ValueError as error:
        reason = said(error) if isinstance(error, ValidationError) else error
        raise DamagedError(f"cannot read {path / 'results.jsonl'}, which has the tasks of summary.json: {reason}") from error


def _seal(path: Path) -> Seal | None:
    """Return what binds the lines of a run to it; None if that is not known."""
    try:
        identity, checked = read_record(path / "checkpoint" / "identity.json")
        return Seal(run_digest(identity), required=checked)
    except (LifelongError, OSError):
        return None


# `Any`: two records of the same form, with fields of any type.
def differing(read: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """Return the keys in which a summary that was read differs from the expected one."""
    return [key for key in dict.fromkeys([*summary, *read]) if key != DIGEST and read.get(key) != summary.get(key)]
