"""The common part of the searches: two halves of the training images, timed epochs, a saved state and a decaying learning rate."""

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
"""Final value of the learning rate's cosine."""


class Search(ABC):
    """A running search: one pass over both halves per epoch, until all epochs are run or the search has decided.

    A subclass sets everything up in its `__init__`, and calls `resume` at its end.

    Args:
        stage: names the computation and keeps its state.
        epochs: maximum number of epochs.

    Attributes:
        history: per epoch the mean training loss, the accuracy on the other half, and further measurements of the search.
        seconds: wall time, summed over interruptions.
    """

    def __init__(self, stage: Stage, epochs: int) -> None:
        self.stage, self.epochs = stage, epochs
        self.history: list[tuple[float, ...]] = []
        self.seconds = 0.0

    def run(self) -> Tree:
        """Run the remaining epochs; return the findings with epochs, seconds and history."""
        while len(self.history) < self.epochs and not self._decided():
            started = time.perf_counter()
            measured = self._epoch(len(self.history))
            self.history.append(measured)
            self.seconds += time.perf_counter() - started
            self.stage.report(len(self.history), self.epochs, measured[0], measured[1])
            self.stage.save(self._saved)
        return {**self._found(), "epochs": len(self.history), "seconds": self.seconds, "history": self.history}

    def resume(self) -> None:
        """Continue from the last saved state, if the search was interrupted."""
        saved = self.stage.running()
        if saved is not None:
            self._restore(saved)
            self.history, self.seconds = saved["history"], saved["seconds"]

    def _saved(self) -> Tree:
        return {**self._state(), "history": self.history, "seconds": self.seconds}

    def _decided(self) -> bool:
        """Tell whether more epochs would change nothing."""
        return False

    def _check_loss(self, loss: float, setting: str) -> None:
        """Stop if the current epoch's loss is not finite; `setting` names the setting to change, with its value."""
        if not math.isfinite(loss):
            self.stage.diverged(len(self.history) + 1, setting)

    @abstractmethod
    def _epoch(self, epoch: int) -> tuple[float, ...]:
        """Run one pass over both halves; return the mean loss on one, the accuracy on the other, and further measurements."""

    @abstractmethod
    def _found(self) -> Tree:
        """Return the findings of the search."""

    @abstractmethod
    def _state(self) -> Tree:
        """Return everything that the next epoch depends on."""

    @abstractmethod
    def _restore(self, saved: Tree) -> None:
        """Restore what `_state` returned."""


def run_search(stage: Stage, images: int, fewest: int, begin: Callable[[], Search]) -> Tree:
    """Return the findings of a search: read if it has finished before, else run now.

    Args:
        stage: of the search.
        images: number of training images.
        fewest: number of training images that it needs.
        begin: sets the search up.

    Raises:
        LifelongError: too few images, a loss that is not finite, or a state that cannot be written.
    """
    done = stage.outcome()
    if done is None:
        if images < fewest:
            raise LifelongError(f"{stage.where or stage.name}: a search needs at least {fewest} training images, here: {images}")
        done = begin().run()
        stage.finish(done)
    return done


def stratified_halves(labels: Int64[Tensor, "n"], generator: torch.Generator) -> tuple[Int64[Tensor, "_"], Int64[Tensor, "_"]]:
    """Split positions of images into two random halves, in which the numbers of a class differ by at most one.

    Args:
        labels: on the generator's device.
        generator: draws the order.
    """
    order = torch.randperm(len(labels), generator=generator, device=labels.device)
    dealt = order[labels[order].argsort(stable=True)]
    return dealt[::2], dealt[1::2]


def set_rate(optimizer: SGD, highest: float, epoch: int, epochs: int) -> None:
    """Set the rate of an epoch: a cosine from `highest` in the first epoch to 1e-5 after the last."""
    optimizer.lr = cosine(highest, min(LOWEST_RATE, highest), epoch, epochs)
