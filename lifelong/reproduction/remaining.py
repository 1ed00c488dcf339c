"""Estimate the time of the remaining runs: costs differ so much between methods that each is estimated from its own runs alone."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lifelong.data.task import TaskDescription
from lifelong.experiment.progress import QUIET, Heartbeat
from lifelong.reproduction.plan import Job
from lifelong.words import duration

Key = tuple[str, ...]


class Times:
    """What runs have taken, and so what others will: as the same row on the same stream did; else as the row did elsewhere, or its method
    in the same variant, by the pixels that are learned from.

    Args:
        workers: number of parallel runs.
        clock: gives seconds; for tests.
    """

    def __init__(self, workers: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers, self._clock = workers, clock
        self._alike: dict[Key, list[float]] = {}
        self._by_pixels: dict[Key, list[tuple[float, float]]] = {}
        self._began: dict[Path, float] = {}

    def begin(self, job: Job) -> None:
        """Its run begins."""
        self._began[job.folder] = self._clock()

    def end(self, job: Job, summary: dict[str, Any]) -> float:
        """Its run has ended, now or long ago; returns the seconds by which it counts: all that it took, however often it was stopped."""
        # The summary's are those of its tasks, without the reading of images.
        seconds = max(summary["seconds"], self._spent(job))
        self._began.pop(job.folder, None)
        pixels = sum(task["train"] * task["image_size"] ** 2 for task in summary["tasks"])
        self._alike.setdefault((job.row, job.stream), []).append(seconds)
        for key in _scaled(job):
            self._by_pixels.setdefault(key, []).append((seconds, pixels))
        return seconds

    def of(self, job: Job, pixels: float) -> float | None:
        """Seconds that a run will take from its beginning; None: nothing like it has been seen.

        Args:
            job: the run.
            pixels: that it learns from, see `pixels_of`.
        """
        if (job.row, job.stream) in self._alike:
            alike = self._alike[job.row, job.stream]
            return sum(alike) / len(alike)
        for key in _scaled(job):
            if key in self._by_pixels:
                seconds, seen = map(sum, zip(*self._by_pixels[key], strict=True))
                return seconds / seen * pixels
        return None

    def left(self, jobs: Iterable[tuple[Job, float]]) -> str:
        """For runs that are not finished, each with its pixels: how long they will take, in words, and how many nothing is known of."""
        known, unknown = [], 0
        for job, pixels in jobs:
            whole = self.of(job, pixels)
            if whole is None:
                unknown += 1
            else:
                known.append(max(whole - self._spent(job), 0.0))
        if not known:
            return "time left not known yet"
        text = f"about {duration(max(sum(known) / self._workers, *known))} left"
        return (
            f"{text} for {len(known)} of {len(known) + unknown} runs; how long the methods of the others take is not known yet"
            if unknown
            else text
        )

    def _spent(self, job: Job) -> float:
        return self._clock() - self._began[job.folder] if job.folder in self._began else 0.0


def _scaled(job: Job) -> tuple[Key, ...]:
    """By what the times of a run are looked up where its stream has not been seen, the nearest first."""
    return ("row", job.row), ("method", job.config.method, str(getattr(job.config.settings, "variant", "")))


def pixels_of(tasks: Iterable[TaskDescription]) -> list[float]:
    """Of each task the pixels that are learned from: the work of one epoch."""
    return [float(task.train * task.image_size**2) for task in tasks]


class RunHeartbeat(Heartbeat):
    """Says now and then how far one of a table's runs is.

    Args:
        say, label, clock: see `Heartbeat`.
        whole: seconds that the run will take from its beginning, if that is known.
        pixels: of each task; see `pixels_of`.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        label: str,
        whole: float | None,
        pixels: Sequence[float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(say, f"  {label}", QUIET, clock)
        self._whole, self._pixels = whole, pixels

    def time_left(self, spent: float) -> float | None:
        """See `Heartbeat.time_left`; here tasks count by their pixels, and runs before this one are known."""
        now, to_come = self._pixels[self._index], sum(self._pixels[self._index + 1 :])
        if self._whole is not None:
            rate = self._whole / sum(self._pixels)
        elif self._seconds:
            rate = sum(self._seconds) / sum(self._pixels[self._index - len(self._seconds) : self._index])
        else:
            return None
        return max(rate * now - spent, 0.0) + rate * to_come
