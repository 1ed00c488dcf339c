"""What is left of a stream when tasks of a run were forgotten: the others, in their order."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from lifelong.data.task import AbsentTaskError, Split, SplitName, Stream, Task, TaskDescription

FORGOTTEN = "forgotten"
"""The key of a state with the positions, in the run's own stream, of tasks that were forgotten; nothing else is kept of them."""


@runtime_checkable
class KnowsContents(Protocol):
    """A stream that knows its images by their content."""

    def contents(self, index: int) -> Mapping[SplitName, np.ndarray]:
        """Return a 64-bit hash of each image of each split of a task, uint64; empty where that is not known."""
        ...


@runtime_checkable
class InSizes(Protocol):
    """A stream that can give the test images of a task in the size of another's."""

    def test_at(self, index: int, size: int) -> Split:
        """Return the test images of a task, in their order, as squares of so many pixels a side."""
        ...


def places_left(count: int, forgotten: Sequence[int]) -> list[int]:
    """Return the positions in a stream of the tasks that are left.

    Args:
        count: of tasks that are left.
        forgotten: the positions of the others.
    """
    return [place for place in range(count + len(forgotten)) if place not in forgotten][:count]


def fingerprint_without(fingerprint: str, forgotten: Sequence[int]) -> str:
    """Return the checksum of what is left of a stream."""
    return hashlib.sha256(json.dumps([fingerprint, sorted(forgotten)]).encode()).hexdigest() if forgotten else fingerprint


def fingerprint_with(fingerprint: str, added: Sequence[str]) -> str:
    """Return the checksum of a stream together with those of tasks that were added to it."""
    return hashlib.sha256(json.dumps([fingerprint, *added]).encode()).hexdigest() if added else fingerprint


class Remaining:
    """A stream without some of its tasks.

    Args:
        stream: the whole stream.
        forgotten: the positions of those that are left out.
    """

    def __init__(self, stream: Stream, forgotten: Sequence[int]) -> None:
        self.name: str = stream.name
        self._stream, self._forgotten = stream, list(forgotten)
        self._places = [place for place in range(len(stream)) if place not in forgotten]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Task:
        return self._stream[self._places[index]]

    def __iter__(self) -> Iterator[Task]:
        return (self[index] for index in range(len(self)))

    def describe(self) -> list[TaskDescription]:
        """Describe the tasks that are left."""
        described = self._stream.describe()
        return [described[place] for place in self._places]

    def prepare(self) -> None:
        """See `Stream.prepare`."""
        self._stream.prepare()

    def fingerprint(self) -> str:
        """Return a checksum of what is left."""
        return fingerprint_without(self._stream.fingerprint(), self._forgotten)

    def contents(self, index: int) -> Mapping[SplitName, np.ndarray]:
        """Return what the stream knows of the content of a task's images."""
        return self._stream.contents(self._places[index]) if isinstance(self._stream, KnowsContents) else {}

    def test_at(self, index: int, size: int) -> Split:
        """Return the test images of a task in another size."""
        if not isinstance(self._stream, InSizes):
            raise AbsentTaskError
        return self._stream.test_at(self._places[index], size)
