"""Write a run's progress for TensorBoard, if requested: `tensorboard/` in the run directory.

    task-001/    loss and accuracy by epoch, for each stage; every task has the same charts
    stream/      by the number of tasks learned: AP, AF, parameters, and the accuracy on each task

A file is added to each folder when a task has been learned, and files are never rewritten: nothing appears twice however often a run is
stopped, and an open TensorBoard shows what is new. The numbers are those of `curves.jsonl` and `results.jsonl`.
"""

import math
import time
from collections.abc import Iterable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from lifelong.experiment.curves import read_curves
from lifelong.experiment.metrics import average_forgetting, average_performance
from lifelong.extras import require_extra
from lifelong.records.task import TaskRecord
from lifelong.storage import write_bytes

FOLDER = "tensorboard"

Point = tuple[str, int, float | None]
"""The name of a chart, the step, and the value."""


def check_tensorboard() -> None:
    """Check before a run that events can be written.

    Raises:
        LifelongError: the package tensorboard is not installed.
    """
    require_extra("tensorboard", ("tensorboard",), "--tensorboard", "or leave the flag out")


def write_events(run: Path, entries: list[TaskRecord], accuracy: list[list[float]]) -> None:
    """Write the events of the tasks that have none yet.

    Args:
        run: the run directory.
        entries: records of the tasks learned so far.
        accuracy: row i: accuracies on tasks 0..i after task i was learned.

    Raises:
        LifelongError: a file cannot be written, or the curves cannot be read.
    """
    places = [run / FOLDER / "stream" / f"events.out.tfevents.{index + 1:06d}" for index in range(len(entries))]
    if all(place.exists() for place in places):
        return
    curves = read_curves(run / "curves.jsonl").found
    for index, place in enumerate(places):
        if not place.exists():
            task = f"task-{index + 1:03d}"
            _write(run / FOLDER / task / "events.out.tfevents", epoch_points([line for line in curves if line["task"] == index]))
            _write(place, stream_points(entries[: index + 1], accuracy[: index + 1]))


def epoch_points(lines: Iterable[dict[str, Any]]) -> list[Point]:
    """Return loss and accuracy of one task's epochs.

    Args:
        lines: the task's lines of `curves.jsonl`.
    """
    points: list[Point] = []
    for line in lines:
        candidate = line.get("candidate")
        stage = line["stage"] if candidate is None else f"{line['stage']}, candidate {candidate + 1}"
        points += [(f"{stage}/{key}", line["epoch"], line[key]) for key in ("loss", "accuracy")]
    return points


def stream_points(entries: list[TaskRecord], accuracy: list[list[float]]) -> list[Point]:
    """Return the method's results after the last of these tasks."""
    step = len(entries)
    held = sum(entry.parameters_added or 0 for entry in entries)
    whole = [("AP", average_performance(accuracy)), ("AF", average_forgetting(accuracy)), ("parameters", float(held))]
    tasks = [(f"accuracy/task-{index + 1:03d}", value) for index, value in enumerate(accuracy[-1])]
    return [(name, step, value) for name, value in whole + tasks]


def _write(file: Path, points: Iterable[Point]) -> None:
    """Write an event file; leave out values that are absent or not finite."""
    # Imported by name, because the package is optional.
    event = import_module("tensorboard.compat.proto.event_pb2").Event
    summary = import_module("tensorboard.compat.proto.summary_pb2").Summary
    stream, now = BytesIO(), time.time()
    records = import_module("tensorboard.summary.writer.record_writer").RecordWriter(stream)
    records.write(event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for name, step, value in points:
        if value is not None and math.isfinite(value):
            scalar = summary(value=[summary.Value(tag=name, simple_value=value)])
            records.write(event(wall_time=now, step=step, summary=scalar).SerializeToString())
    write_bytes(file, stream.getvalue())
