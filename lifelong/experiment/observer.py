"""Who is told how far a run has come: the console, TensorBoard, a service; the runner knows none of them."""

from pathlib import Path
from typing import Any

from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.training.stages import Epoch


class Observer:
    """Hears how far a run has come. Each method may be overridden; this base class does nothing."""

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the screen as it was."""

    def beside(self, label: str) -> "Observer":
        """Return the observer of one of several concurrent runs.

        Args:
            label: what the run is called among them.
        """
        return self

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        """Hear that a run begins, or continues.

        Args:
            stream: the stream's name.
            method: the method's name.
            tasks: tasks of the stream.
            done: tasks that were learned before, by an earlier start of the same run.
        """

    def task_started(self, index: int, name: str) -> None:
        """Hear that the task at this position, from 0, begins."""

    def candidate(self, number: int, count: int, values: dict[str, Any]) -> None:
        """Hear that a candidate of the task's hyper-parameters begins.

        Args:
            number: which, from 0.
            count: of how many.
            values: its hyper-parameters.
        """

    def phase(self, name: str) -> None:
        """Hear that a part of the task's work begins, such as "distances", "search" or "train"."""

    def epoch(self, event: Epoch) -> None:
        """Hear that an epoch has ended."""

    def advance(self, done: int, total: int) -> None:
        """Of a phase that trains nothing, such as an evaluation, a part is done.

        Args:
            done: images that have been looked at.
            total: of how many.
        """

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """Hear that a task has been learned.

        Args:
            index: its position in the stream, from 0.
            record: its entry in the summary.
            accuracy: accuracies, in [0, 1], on this and all earlier tasks.
        """

    def note(self, text: str) -> None:
        """Something that a person should know."""

    def task_saved(self, run: Path, entries: list[TaskRecord], accuracy: list[list[float]]) -> None:
        """Hear that the results after a task are on disk; also when a finished run is opened again.

        Args:
            run: the run directory.
            entries: of the tasks learned so far, as in the summary.
            accuracy: row i: accuracies, in [0, 1], on tasks 0..i after task i was learned.
        """

    def run_failed(self, failure: str) -> None:
        """Hear that one of the runs of a sweep has failed, while the others go on.

        Args:
            failure: why, in one line.
        """

    def run_finished(self, summary: RunRecord) -> None:
        """Hear that the last task has been learned, now or, where no run was started, before."""
