"""Schedule the learning rate over the epochs."""

import math

from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.optimizer import SGD

BETTER = 1e-4
"""Share by which an accuracy must exceed the best one to count as better on a plateau (PyTorch's `ReduceLROnPlateau`)."""


def cosine(initial: float, final: float, epoch: int, epochs: int) -> float:
    """Return the rate of epoch `epoch` (from 0) of `epochs`, falling from `initial` along half a cosine towards `final`."""
    return final + (initial - final) * (1 + math.cos(math.pi * epoch / epochs)) / 2


class Schedule:
    """Sets the rate of an optimizer before each epoch: a cosine to zero, or cuts on a plateau of the validation accuracy.

    The plateau's rule is that of PyTorch's `ReduceLROnPlateau`: after more than `patience` epochs in a row without a better accuracy
    the rate is multiplied by `plateau_factor`, down to `min_lr`, and counting restarts.
    """

    def __init__(self, optimizer: SGD, settings: TrainingSettings) -> None:
        self._optimizer = optimizer
        self._settings = settings
        self._plateau = settings.schedule == "plateau"
        self._patience = settings.patience or settings.epochs
        self._best, self._waited = -math.inf, 0

    def start_epoch(self, epoch: int) -> float:
        """Set and return the rate of epoch `epoch`, counted from 0."""
        if not self._plateau:
            self._optimizer.lr = cosine(self._settings.lr, 0.0, epoch, self._settings.epochs)
        return self._optimizer.lr

    def end_epoch(self, accuracy: float) -> None:
        """Take note of the validation accuracy in [0, 1]."""
        if not self._plateau or math.isnan(accuracy):
            return
        if accuracy > self._best * (1 + BETTER):
            self._best, self._waited = accuracy, 0
            return
        self._waited += 1
        if self._waited > self._patience:
            self._optimizer.lr = max(self._optimizer.lr * self._settings.plateau_factor, self._settings.min_lr)
            self._waited = 0

    def state_dict(self) -> Tree:
        """Return what must survive an interruption."""
        if not self._plateau:
            return None
        return {"plateau": {"best": self._best, "num_bad_epochs": self._waited}, "lr": self._optimizer.lr}

    def load_state_dict(self, state: Tree) -> None:
        """Continue from a saved state."""
        if self._plateau:
            self._best, self._waited = state["plateau"]["best"], state["plateau"]["num_bad_epochs"]
            self._optimizer.lr = state["lr"]
