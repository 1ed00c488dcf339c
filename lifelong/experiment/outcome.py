"""Write results.jsonl and summary.json from a run's state, and check them against it."""

import json
from collections.abc import Sequence
from typing import Any

from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.schema import LaterError
from lifelong.experiment.summaries import SUMMARY, differing, read_summary
from lifelong.json_files import as_lines, read_lines, write_record
from lifelong.records.base import plain
from lifelong.records.renames import renamed
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.storage import write_text


def write_results(directory: RunDirectory, entries: Sequence[TaskRecord], accuracy: list[list[float]], summary: RunRecord) -> RunRecord:
    """Write results.jsonl and summary.json; return the content of summary.json."""
    write_lines(directory, entries, accuracy)
    return _write_summary(directory, summary)


def write_lines(directory: RunDirectory, entries: Sequence[TaskRecord], accuracy: list[list[float]]) -> None:
    """Write results.jsonl."""
    write_text(directory.results, as_lines(_lines(entries, accuracy), directory.seal.run))


def hold_results(
    directory: RunDirectory, entries: Sequence[TaskRecord], accuracy: list[list[float]], summary: RunRecord
) -> tuple[RunRecord, list[str]]:
    """Check results.jsonl and summary.json against a state, and rewrite them where they differ.

    Args:
        directory: the run directory.
        entries, accuracy, summary: those of the state.

    Returns:
        The content of summary.json, and one line for each file that had been damaged or changed.
    """
    there, wrong = wrong_results(directory, entries, accuracy, summary)
    if directory.results.name in wrong:
        write_lines(directory, entries, accuracy)
    if there is None or SUMMARY in wrong:
        there = _write_summary(directory, summary)
    return there, [f"{line}; rewritten" for line in wrong.values() if line]


def wrong_results(
    directory: RunDirectory, entries: Sequence[TaskRecord], accuracy: list[list[float]], summary: RunRecord
) -> tuple[RunRecord | None, dict[str, str]]:
    """Compare results.jsonl and summary.json with a state.

    Returns:
        The content of summary.json, if it can be read; and for each wrong file, by name, what is wrong with it (empty if it is missing, or
        was written a task earlier).
    """
    wrong: dict[str, str] = {}
    there: RunRecord | None = None
    try:
        there = read_summary(directory.path)
        differs = differing(there, summary)
        if differs:
            early = _early([task.name for task in there.tasks], there.accuracy, entries, accuracy)
            wrong[SUMMARY] = "" if early else f"summary.json is not what the run's state says ({', '.join(differs)})"
    except LaterError:
        raise
    except DamagedError:
        wrong[SUMMARY] = "summary.json was damaged"
    except LifelongError:
        wrong[SUMMARY] = ""
    wanted = _lines(entries, accuracy)
    lines = read_lines(directory.results, directory.seal)
    found = [renamed("task", line) for line in lines.found]
    if not lines.whole:
        wrong[directory.results.name] = "results.jsonl was damaged"
    elif found != wanted:
        early = _early([line.get("name") for line in found], [line.get("accuracy") for line in found], entries, accuracy)
        wrong[directory.results.name] = "" if early else "results.jsonl is not what the run's state says"
    return there, wrong


def _write_summary(directory: RunDirectory, summary: RunRecord) -> RunRecord:
    return RunRecord.model_validate(write_record(directory.path / SUMMARY, summary.to_dict()))


# `Any`: the lines of a file may have any form.
def _early(names: list[Any], rows: list[Any], entries: Sequence[TaskRecord], accuracy: list[list[float]]) -> bool:
    """Tell whether results are those of fewer tasks, as left by a process that was killed between writing a state and its results."""
    count = len(names)
    return count < len(entries) and names == [entry.name for entry in entries[:count]] and rows == plain(accuracy[:count])


def _lines(entries: Sequence[TaskRecord], accuracy: list[list[float]]) -> list[dict[str, Any]]:
    """Return the content of results.jsonl, one record per task."""
    return [json.loads(json.dumps(plain(entry | {"accuracy": row}))) for entry, row in zip(entries, accuracy, strict=True)]
