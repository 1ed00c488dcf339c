"""The learning rate over the epochs."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree


def cosine(initial: float, final: float, epoch: int, epochs: int) -> float:
    """The rate of epoch `epoch` (from 0) of `epochs`, falling from `initial` along half a cosine towards `final`."""
    return final + (initial - final) * (1 + math.cos(math.pi * epoch / epochs)) / 2


class Schedule:
    """Sets the rate of an optimizer before each epoch: a cosine to zero, or cuts on a plateau of the validation accuracy."""

    def __init__(self, optimizer: Optimizer, settings: TrainingSettings) -> None:
        self._optimizer = optimizer
        self._settings = settings
        self._plateau = None
        if settings.schedule == "plateau":
            self._plateau = ReduceLROnPlateau(
                optimizer, mode="max", factor=settings.plateau_factor, patience=settings.patience or settings.epochs, min_lr=settings.min_lr
            )

    def start_epoch(self, epoch: int) -> float:
        """Set and return the rate of epoch `epoch`, counted from 0."""
        if self._plateau is None:
            rate = cosine(self._settings.lr, 0.0, epoch, self._settings.epochs)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
        return self._optimizer.param_groups[0]["lr"]

    def end_epoch(self, accuracy: float) -> None:
        """Take note of the validation accuracy in [0, 1]."""
        if self._plateau is not None and not math.isnan(accuracy):
            self._plateau.step(accuracy)

    def state_dict(self) -> Tree:
        """What must survive an interruption."""
        if self._plateau is None:
            return None
        return {"plateau": self._plateau.state_dict(), "lr": self._optimizer.param_groups[0]["lr"]}

    def load_state_dict(self, state: Tree) -> None:
        """Go on from a saved state."""
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])
            for group in self._optimizer.param_groups:
                group["lr"] = state["lr"]
