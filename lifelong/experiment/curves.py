"""A run's training curves: `curves.jsonl`, with one line per epoch of each stage, written when the epoch ends.

A line holds "task" (from 0), "candidate" (from 0; of tuned runs), "stage", "epoch" (from 1), "loss" (mean over the epoch's training images)
and "accuracy" (on validation images, in [0, 1]; null where a stage has none), and the "digest" of these.

A killed process loses no line; a power cut may lose those of the last second. A stage that continues repeats the epochs after its last
save: its first line replaces the old ones from that epoch on, so that no epoch appears twice.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError
from lifelong.experiment.schema import epochs_of
from lifelong.json_files import Lines, as_lines, read_lines
from lifelong.storage import Seal, write_text
from lifelong.training.stages import Epoch

DIGITS = 6
"""Significant digits stored of a loss or an accuracy."""

SYNC_EVERY = 1.0
"""Seconds between syncs to the disk: with one per epoch, small networks would spend more time on them than on training."""

Place = tuple[int, int | None, str]
"""Task, candidate and stage."""


class Curves:
    """Writes the curves of a run in progress.

    Args:
        file: the file; lines of earlier starts are kept.
        seal: the run's seal, which binds each line to it.

    Attributes:
        lost: number of lines that were dropped because they were damaged, another run's, or not written to their end.

    Raises:
        LifelongError: the file cannot be read.
    """

    def __init__(self, file: Path, seal: Seal | None = None) -> None:
        self._file, self._seal = file, seal or Seal()
        self._task = 0
        self._candidate: int | None = None
        self._synced_at = time.monotonic()
        lines = read_curves(file, self._seal)
        self.lost = lines.lost + lines.torn
        if not lines.whole:
            _write(file, lines.found, self._seal)
        self._old = {_place(line) for line in lines.found}

    def task(self, index: int) -> None:
        """Begin the task at this position."""
        self._task, self._candidate = index, None

    def candidate(self, number: int) -> None:
        """Begin a candidate of the task's hyper-parameters."""
        self._candidate = number

    def epoch(self, event: Epoch) -> None:
        """Write a line, unless the stage has no loss.

        Raises:
            LifelongError: it cannot be written.
        """
        if math.isnan(event.loss):
            return
        place = (self._task, self._candidate, event.stage)
        if place in self._old:
            self._make_room(place, event.epoch)
        line: dict[str, Any] = {"task": self._task} | ({} if self._candidate is None else {"candidate": self._candidate})
        line |= {"stage": event.stage, "epoch": event.epoch, "loss": _short(event.loss), "accuracy": _short(event.accuracy)}
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(as_lines([line], self._seal.run))
                file.flush()
                if time.monotonic() - self._synced_at >= SYNC_EVERY:
                    os.fsync(file.fileno())
                    self._synced_at = time.monotonic()
        except OSError as error:
            raise LifelongError(f"cannot write {self._file}: {error.strerror}; free space there and run the same command again") from error

    def _make_room(self, place: Place, epoch: int) -> None:
        """Drop the lines that an earlier start wrote for a stage, from this epoch on."""
        lines = read_curves(self._file, self._seal).found
        _write(self._file, [line for line in lines if _place(line) != place or line["epoch"] < epoch], self._seal)
        self._old.discard(place)


def read_curves(file: Path, seal: Seal | None = None) -> Lines:
    """Read the undamaged lines of a file of curves that have the right types.

    Raises:
        LifelongError: the file cannot be read.
    """
    lines = read_lines(file, seal)
    kept, _ = epochs_of(lines.found)
    return replace(lines, found=kept, lost=lines.lost + len(lines.found) - len(kept))


def incomplete(lines: Sequence[Mapping[str, Any]], epochs: Sequence[int]) -> list[int]:
    """Find the tasks that have lost lines: there are fewer than epochs were trained, or a stage's epochs do not follow one another.

    Args:
        lines: as read.
        epochs: how many were trained for each task, at least.

    Returns:
        The tasks' positions.
    """
    found: dict[Place, list[int]] = {}
    for line in lines:
        found.setdefault(_place(line), []).append(line["epoch"])
    counts, gaps = [0] * len(epochs), set()
    for (task, *_), numbers in found.items():
        if task < len(epochs):
            counts[task] += len(numbers)
            if sorted(numbers) != list(range(1, len(numbers) + 1)):
                gaps.add(task)
    return [task for task, count in enumerate(counts) if count < epochs[task] or task in gaps]


def repair_curves(file: Path, seal: Seal) -> bool:
    """Drop damaged lines; returns whether there were any."""
    lines = read_curves(file, seal)
    if not lines.whole:
        _write(file, lines.found, seal)
    return not lines.whole


def drop_task(file: Path, index: int, seal: Seal) -> None:
    """Drop the lines of the task at this position, because another task will be learned there."""
    lines = read_curves(file, seal)
    kept = [line for line in lines.found if line["task"] != index]
    if len(kept) < len(lines.found) or not lines.whole:
        _write(file, kept, seal)


def _write(file: Path, lines: list[dict[str, Any]], seal: Seal) -> None:
    write_text(file, as_lines(lines, seal.run))


def _place(line: Mapping[str, Any]) -> Place:
    return line["task"], line.get("candidate"), line["stage"]


def _short(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
