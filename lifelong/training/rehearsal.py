"""Begin every long computation of a task, and work out from its first steps how long all of it would take.

A fit, a search and a sum are loops of epochs (`lifelong.training.epochs`), and an epoch is steps on batches. A rehearsal runs a few steps
of a few epochs of each loop; the time of the others is that of those. What a method computes outside its loops runs whole.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Part = TypeVar("Part")

STEPS = 4
"""Steps of an epoch that are run."""

EPOCHS = 2
"""Epochs of a loop that are run at least: the first one is slower."""

ENOUGH = 0.3
"""Seconds after which the epochs of a loop are known well enough."""

MOST = 8
"""Epochs of a loop that are run at most."""


@dataclass(frozen=True)
class Rehearsed:
    """How long a loop would take.

    Attributes:
        stage: its name.
        epochs: the epochs that are planned.
        fewest: the epochs after which it may stop at the earliest.
        first: seconds of the first epoch.
        each: seconds of any later one.
        spent: seconds that the rehearsal took.
    """

    stage: str
    epochs: int
    fewest: int
    first: float
    each: float
    spent: float

    def seconds(self, epochs: int | float) -> float:
        """Return the seconds of a number of epochs."""
        return self.first + max(epochs - 1, 0) * self.each if epochs else 0.0


class Rehearsal:
    """Runs the first steps of loops. One serves one task.

    Attributes:
        loops: what was found out, in the order of learning.
    """

    def __init__(self) -> None:
        self.loops: list[Rehearsed] = []
        self._factor, self._since, self._left_out = 1.0, 0.0, 0.0

    def run(self, stage: str, epochs: int, fewest: int, advance: Callable[[], bool]) -> None:
        """Run the first epochs of a loop.

        Args:
            stage: its name.
            epochs, fewest: see `Rehearsed`.
            advance: runs the next epoch, and returns whether there was one.
        """
        began = time.perf_counter()
        found: list[float] = []
        while len(found) < EPOCHS or (time.perf_counter() - began < ENOUGH and len(found) < MOST):
            self._factor, self._left_out = 1.0, 0.0
            started = time.perf_counter()
            if not advance():
                break
            self.stepped()
            found.append(time.perf_counter() - started + self._left_out)
        spent = time.perf_counter() - began
        if not found:
            self.loops.append(Rehearsed(stage, 0, 0, 0.0, 0.0, spent))
            return
        later = sorted(found[1:] or found)
        self.loops.append(Rehearsed(stage, epochs, fewest, found[0], later[(len(later) - 1) // 2], spent))

    def some(self, steps: Sequence[Part]) -> list[Part]:
        """Return the first steps of an epoch, and begin to time them."""
        kept = list(steps[:STEPS])
        self._factor, self._since = len(steps) / max(len(kept), 1), time.perf_counter()
        return kept

    def stepped(self) -> None:
        """Add the time of the steps that were left out, if those that were run have not ended before."""
        self._left_out += (self._factor - 1) * (time.perf_counter() - self._since)
        self._factor = 1.0
