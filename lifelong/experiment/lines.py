"""results.jsonl: a line for each task, added when it was learned.

A line holds the task's record as it was then, and what learning it did to earlier tasks: "rejudged" has those whose modules changed, each
with its new accuracy and how its test images are answered now. All others are as before. Up to `MANY` tasks a line also has "accuracy", the
accuracies of all tasks so far; a later one has "own_accuracy" alone, since a row for each of a thousand tasks would be a million numbers.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError
from lifelong.json_files import as_lines
from lifelong.records.base import plain
from lifelong.records.task import TaskRecord
from lifelong.writing import sync_folder

MANY = 50
"""Tasks up to which a record has all accuracies of each, and summary.json all tasks."""

OF_LINE = ("accuracy", "own_accuracy", "rejudged")
"""The keys that a line has besides those of its task's record."""

Record = dict[str, Any]
"""A JSON object, whose values are of many kinds."""


def line_of(entry: TaskRecord, row: Sequence[float], rejudged: Sequence[Mapping[str, Any]] = ()) -> Record:
    """Return the line of a task.

    Args:
        entry: its record.
        row: the accuracies on all tasks so far.
        rejudged: what changed of earlier tasks, as `rejudged_of` returns it.
    """
    line = dict(plain(entry)) | ({"accuracy": plain(list(row))} if len(row) <= MANY else {"own_accuracy": plain(row[-1])})
    return line | ({"rejudged": plain(list(rejudged))} if rejudged else {})


def rejudged_of(task: int, accuracy: float, entry: TaskRecord) -> Record:
    """Return what a line says of an earlier task that was judged again.

    Args:
        task: its position.
        accuracy: the new one.
        entry: its record.
    """
    return {"task": task, "accuracy": accuracy, "judged": None if entry.judged is None else entry.judged.to_dict()}


def lines_of(entries: Sequence[TaskRecord], rows: Sequence[Sequence[float]], steps: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return all lines anew; how earlier tasks were answered in between is not known any more.

    Args:
        entries: the records of the tasks.
        rows: their accuracies.
        steps: what changed from row to row.
    """
    found = []
    for index, (entry, row, step) in enumerate(zip(entries, rows, steps, strict=True)):
        pairs = zip(step["tasks"], step["accuracy"], strict=True)
        earlier = [{"task": task, "accuracy": value} for task, value in pairs if task != index] if len(row) > MANY else []
        found.append(line_of(entry, row, earlier))
    return found


def folded(lines: Sequence[Record]) -> tuple[list[Record], list[list[float | None]]]:
    """Return the records of all tasks as they are now, and the rows of accuracies.

    Args:
        lines: as they were read; of earlier versions, too.

    Raises:
        ValueError: a line is not of its form.
    """
    entries: list[Record] = []
    rows: list[list[float | None]] = []
    try:
        for line in lines:
            entries.append({key: value for key, value in line.items() if key not in OF_LINE})
            row = [*(rows[-1] if rows else []), line.get("own_accuracy")]
            for each in line.get("rejudged", ()):
                row[each["task"]] = each["accuracy"]
                if each.get("judged") is not None:
                    entries[each["task"]]["judged"] = each["judged"]
                elif "judged" in each:
                    entries[each["task"]].pop("judged", None)
            rows.append(line.get("accuracy", row))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"line {len(rows) + 1}: {type(error).__name__}: {error}") from error
    return entries, rows


def append_line(file: Path, line: Record, owner: str) -> None:
    """Add a line to a file, and let it reach the disk.

    Raises:
        LifelongError: it cannot be written.
    """
    new = not file.exists()
    try:
        with file.open("a", encoding="utf-8") as opened:
            opened.write(as_lines([line], owner))
            opened.flush()
            os.fsync(opened.fileno())
        if new:
            sync_folder(file.parent)
    except OSError as error:
        raise LifelongError(f"cannot write {file}: {error.strerror}; free space there and run the same command again") from error
