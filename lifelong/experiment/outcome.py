"""Write results.jsonl and summary.json from a run's state, and check them against it."""

from collections.abc import Mapping, Sequence
from typing import Any

from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.accuracies import steps_of
from lifelong.experiment.lines import MANY, Record, folded, lines_of
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.schema import LaterError
from lifelong.experiment.summaries import LEARNED, SUMMARY, differing, read_summary
from lifelong.json_files import as_lines, read_lines, write_record
from lifelong.records.base import plain
from lifelong.records.renames import renamed
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.storage import write_text


def write_lines(directory: RunDirectory, entries: Sequence[TaskRecord], accuracy: list[list[float]]) -> None:
    """Write results.jsonl anew."""
    write_text(directory.results, as_lines(results_content(entries, accuracy), directory.seal.run))


def results_content(entries: Sequence[TaskRecord], accuracy: list[list[float]]) -> list[Record]:
    """Return the lines that `write_lines` writes."""
    return lines_of(entries, accuracy, steps_of(accuracy))


# `Any`: the fields of a `RunRecord` by name, without those of its tasks.
def write_summary(directory: RunDirectory, fields: Mapping[str, Any], entries: Sequence[TaskRecord], accuracy: list[list[float]]) -> None:
    """Write summary.json: up to `MANY` tasks with all of them, of more without, since results.jsonl has them.

    Args:
        directory: the run directory.
        fields: of the summary, in order.
        entries, accuracy: of its tasks.
    """
    write_record(directory.path / SUMMARY, summary_content(fields, entries, accuracy))


# `Any`: as of `write_summary`.
def summary_content(fields: Mapping[str, Any], entries: Sequence[TaskRecord], accuracy: list[list[float]]) -> dict[str, Any]:
    """Return what `write_summary` writes."""
    if len(entries) <= MANY:
        return RunRecord.model_validate(plain({**fields, "accuracy": accuracy, "tasks": list(entries)})).to_dict()
    return plain({key: value for key, value in fields.items() if key not in ("accuracy", "tasks")} | {LEARNED: len(entries)})


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
        write_summary(directory, summary, entries, accuracy)
        there = read_summary(directory.path)
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
    lines = read = read_lines(directory.results, directory.seal)
    names, rows = [entry.name for entry in entries], plain(accuracy)
    try:
        found, its_rows = folded([renamed("task", line) for line in lines.found])
    except ValueError:
        found, its_rows, lines = [], [], None
    if lines is None or not lines.whole:
        wrong[directory.results.name] = "results.jsonl was damaged"
    elif found != [plain(entry) for entry in entries] or its_rows != rows:
        early = _early([line.get("name") for line in found], its_rows, names, rows)
        wrong[directory.results.name] = "" if early else "results.jsonl is not what the run's state says"
    try:
        there = read_summary(directory.path, read)
        differs = differing(there, summary)
        if differs:
            early = _early([task.name for task in there.tasks], there.accuracy, names, rows)
            wrong[SUMMARY] = "" if early else f"summary.json is not what the run's state says ({', '.join(differs)})"
    except LaterError:
        raise
    except DamagedError:
        wrong[SUMMARY] = "summary.json was damaged"
    except LifelongError:
        wrong[SUMMARY] = ""
    if len(entries) > MANY and directory.results.name in wrong:
        # Its tasks stand in the damaged file: what is wrong with it cannot be told before that is rewritten.
        wrong[SUMMARY] = ""
    return there, wrong


# `Any`: the lines of a file may have any form.
def _early(names: list[Any], rows: list[Any], wanted: list[str], wanted_rows: list[Any]) -> bool:
    """Tell whether results are those of fewer tasks, as left by a process that was killed between writing a state and its results."""
    count = len(names)
    return count < len(wanted) and names == wanted[:count] and rows == wanted_rows[:count]
