"""Observers of a run's progress, such as the console, TensorBoard or a service; the runner does not know which."""

from pathlib import Path
from typing import Any

from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.training.stages import Epoch


class Observer:
    """Receives the events of a run. Each method may be overridden; this base class does nothing."""

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Restore the screen."""

    def beside(self, label: str) -> "Observer":
        """Return the observer of one of several concurrent runs.

        Args:
            label: the run's name among them.
        """
        return self

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        """Hear that a run begins, or continues.

        Args:
            stream: the stream's name.
            method: the method's name.
            tasks: tasks of the stream.
            done: tasks already learned by an earlier start of the same run.
        """

    def task_started(self, index: int, name: str) -> None:
        """Hear that the task at this position, from 0, begins."""

    def candidate(self, number: int, count: int, values: dict[str, Any]) -> None:
        """Hear that a candidate of the task's hyper-parameters begins.

        Args:
            number: its number, from 0.
            count: number of candidates.
            values: its hyper-parameters.
        """

    def phase(self, name: str) -> None:
        """Hear that a phase of learning a task begins, such as "distances", "search" or "train"."""

    def epoch(self, event: Epoch) -> None:
        """Hear that an epoch has ended."""

    def advance(self, done: int, total: int) -> None:
        """Hear how far a phase without training, such as an evaluation, has come.

        Args:
            done: number of images processed.
            total: number of all images.
        """

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """Hear that a task has been learned.

        Args:
            index: its position in the stream, from 0.
            record: its entry in the summary.
            accuracy: accuracies, in [0, 1], on this and all earlier tasks.
        """

    def note(self, text: str) -> None:
        """Hear a note for the user."""

    def task_saved(self, run: Path, entries: list[TaskRecord], accuracy: list[list[float]]) -> None:
        """Hear that the results after a task are on disk; also called when a finished run is opened again.

        Args:
            run: the run directory.
            entries: records of the tasks learned so far, as in the summary.
            accuracy: row i: accuracies, in [0, 1], on tasks 0..i after task i was learned.
        """

    def run_failed(self, failure: str) -> None:
        """Hear that one of the runs of a sweep has failed, while the others continue.

        Args:
            failure: the reason, in one line.
        """

    def run_finished(self, summary: RunRecord) -> None:
        """Hear that the last task has been learned, now or (if `run_started` was not called) earlier."""
