"""Judge a model on the test images of the tasks that it has learned: each by its name, and all without names."""

import math
from collections.abc import Iterator, Sequence

import torch

from lifelong.data.feature_cache import keeping
from lifelong.data.naming import unique
from lifelong.data.task import AbsentTaskError, Split, Stream
from lifelong.experiment.judging import judged, right_share
from lifelong.experiment.observer import Observer
from lifelong.experiment.packing import packed
from lifelong.experiment.remaining import InSizes
from lifelong.experiment.task_agnostic import Shown, judge_task_agnostic
from lifelong.methods.method import Method
from lifelong.records.run import TaskAgnostic
from lifelong.records.task import TaskRecord
from lifelong.training.examples import counted, evaluation_batch

HELD = 2**25
"""Bytes of test images that are held in all: those of ten thousand tasks with a dozen images of 8x8."""


class Evaluation:
    """Judges the model of a run by the test images of its stream.

    Args:
        stream: has the images; those of some tasks may be away.
        device: where to compute.
        progress: is told how far it is.
    """

    def __init__(self, stream: Stream, device: torch.device, progress: Observer) -> None:
        self.stream, self.device, self.progress = stream, device, progress
        self._held: dict[int, Split] = {}
        self._room = HELD

    def completed(self, method: Method, row: Sequence[float], entries: Sequence[TaskRecord]) -> list[float]:
        """Accuracies on the tasks of all entries, those that are NaN found out as far as the images are here."""
        full = list(row)
        wanted = [index for index, value in enumerate(row) if math.isnan(value)]
        total, absent = sum(entries[index].test for index in wanted), 0

        def tests() -> Iterator[tuple[int, Split]]:
            nonlocal absent
            for index in wanted:
                try:
                    yield index, self.test(index)
                except AbsentTaskError:
                    absent += entries[index].test
                    # What was found before is not known to hold any longer.
                    entries[index].pop("judged", None)

        for answered in packed(method, tests(), lambda done: self.progress.advance(absent + done, total)):
            counts = counted(answered.logits, answered.labels)
            entries[answered.task].judged = judged(counts)
            full[answered.task] = right_share(counts)
        return full

    def test(self, index: int) -> Split:
        """Return the test images of a task, on the device; small sets are held, since reading them takes longer than answering."""
        if index in self._held:
            return self._held[index]
        test = self.stream[index].test.to(self.device)
        if len(test) < evaluation_batch(self.device, together=False) and test.images.nbytes <= self._room:
            self._held[index] = test
            self._room -= test.images.nbytes
        return test

    def task_agnostic(self, method: Method, entries: Sequence[TaskRecord]) -> TaskAgnostic | None:
        """How well the learned stream is known without task names; None before its end, or where a task's images are not here."""
        if len(entries) != len(self.stream):
            return None
        self.progress.phase("evaluate without task names")
        classes = [unique(entry.classes) for entry in entries]
        several = len({entry.side for entry in entries}) > 1
        if several and not isinstance(self.stream, InSizes):
            return None
        total = sum(entry.test for entry in entries)
        show = (lambda index: self._shown(index, entries)) if several else None
        try:
            with keeping():
                return judge_task_agnostic(method, self.test, classes, show, lambda done: self.progress.advance(done, total))
        except AbsentTaskError:
            return None

    def _shown(self, index: int, entries: Sequence[TaskRecord]) -> Shown:
        """Return the test images of a task in the size of every task's."""
        assert isinstance(self.stream, InSizes)
        sizes = tuple(entry.side for entry in entries)
        return Shown({size: self.stream.test_at(index, size).images.to(self.device) for size in sizes}, sizes)
