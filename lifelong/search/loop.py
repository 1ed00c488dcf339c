"""The common part of the searches: what they find, two halves of the training images, and a decaying learning rate."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

from lifelong.errors import LifelongError
from lifelong.storage import Tree
from lifelong.training.epochs import EpochLoop, run_stage
from lifelong.training.optimizer import SGD
from lifelong.training.schedule import cosine
from lifelong.training.stages import Stage

LOWEST_RATE = 1e-5
"""Final value of the learning rate's cosine."""


class Search(EpochLoop[tuple[float, ...]]):
    """A running search: one pass over both halves per epoch, until all epochs are run or the search has decided.

    A row of its history holds the mean loss on one half, the accuracy on the other, and further measurements of the search.
    """

    def _reported(self, row: tuple[float, ...]) -> tuple[float, float]:
        return row[0], row[1]

    def _outcome(self) -> Tree:
        return {**self._found(), "epochs": self.done, "seconds": self.seconds, "history": self.history}

    @abstractmethod
    def _found(self) -> Tree:
        """Return the findings of the search."""


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

    def checked() -> Search:
        if images < fewest:
            raise LifelongError(f"{stage.where or stage.name}: a search needs at least {fewest} training images, here: {images}")
        return begin()

    return run_stage(stage, checked)


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
