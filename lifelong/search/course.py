"""What the searches have in common: two halves of the training images, epochs with a clock, a saved state, and a rate that falls."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from lifelong.errors import LifelongError
from lifelong.storage import Tree
from lifelong.training.optimizer import SGD
from lifelong.training.schedule import cosine
from lifelong.training.stages import Stage

LOWEST_RATE = 1e-5
"""Where the cosine of the learning rate would end."""


class Search(ABC):
    """A search under way: a pass over both halves an epoch, until all are run or the search has decided.

    A subclass sets everything up in its `__init__`, and calls `resume` at the end of it.

    Args:
        stage: names the computation and keeps its state.
        epochs: epochs at most.

    Attributes:
        history: per epoch the mean training loss, the accuracy on the other half, and what else a search measures.
        seconds: wall time, summed over interruptions.
    """

    def __init__(self, stage: Stage, epochs: int) -> None:
        self.stage, self.epochs = stage, epochs
        self.history: list[tuple[float, ...]] = []
        self.seconds = 0.0

    def to_end(self) -> Tree:
        """Run the epochs that remain; returns what was found, with epochs, seconds and history."""
        while len(self.history) < self.epochs and not self._decided():
            started = time.perf_counter()
            measured = self._epoch(len(self.history))
            self.history.append(measured)
            self.seconds += time.perf_counter() - started
            self.stage.report(len(self.history), self.epochs, measured[0], measured[1])
            self.stage.save(self._saved)
        return {**self._found(), "epochs": len(self.history), "seconds": self.seconds, "history": self.history}

    def resume(self) -> None:
        """Go on from the state that was saved last, if the search was interrupted."""
        saved = self.stage.running()
        if saved is not None:
            self._restore(saved)
            self.history, self.seconds = saved["history"], saved["seconds"]

    def _saved(self) -> Tree:
        return {**self._state(), "history": self.history, "seconds": self.seconds}

    def _decided(self) -> bool:
        """Whether more epochs would change nothing."""
        return False

    def _check(self, loss: float, setting: str) -> None:
        """Stop where a loss of the epoch under way is not finite; `setting` is the one to change, and its value."""
        if not math.isfinite(loss):
            self.stage.diverged(len(self.history) + 1, setting)

    @abstractmethod
    def _epoch(self, epoch: int) -> tuple[float, ...]:
        """One pass over both halves; returns the mean loss on the one, the accuracy on the other, and what else is measured."""

    @abstractmethod
    def _found(self) -> Tree:
        """What the search came to."""

    @abstractmethod
    def _state(self) -> Tree:
        """Everything that the next epoch depends on."""

    @abstractmethod
    def _restore(self, saved: Tree) -> None:
        """Put everything of `_state` back."""


def outcome(stage: Stage, images: int, fewest: int, begin: Callable[[], Search]) -> Tree:
    """What a search found: read where it has ended before, else run to its end.

    Args:
        stage: of the search.
        images: training images there are.
        fewest: training images it needs.
        begin: sets the search up.

    Raises:
        LifelongError: too few images, a loss that is not finite, or a state that cannot be written.
    """
    done = stage.outcome()
    if done is None:
        if images < fewest:
            raise LifelongError(f"{stage.where or stage.name}: a search needs at least {fewest} training images, here: {images}")
        done = begin().to_end()
        stage.finish(done)
    return done


def stratified_halves(labels: Int64[Tensor, "n"], generator: torch.Generator) -> tuple[Int64[Tensor, "_"], Int64[Tensor, "_"]]:
    """The positions of images in two random halves, in which the numbers of a class differ by one at most.

    Args:
        labels: on the generator's device.
        generator: of the order.
    """
    order = torch.randperm(len(labels), generator=generator, device=labels.device)
    dealt = order[labels[order].argsort(stable=True)]
    return dealt[::2], dealt[1::2]


def set_rate(optimizer: SGD, highest: float, epoch: int, epochs: int) -> None:
    """The rate of an epoch: a cosine from `highest` in the first, which would end at 1e-5 after the last."""
    optimizer.lr = cosine(highest, min(LOWEST_RATE, highest), epoch, epochs)
