"""The one resumable loop. A fit, a search and a sum run their epochs by it: each is reported and saved, and the outcome is stored.

A loop sets up everything that an epoch needs; what an interrupted one saved then replaces it. The outcome of its stage is read,
or computed, from the start or from where it stopped:

    class Mine(EpochLoop):
        def __init__(self, stage, epochs):
            super().__init__(stage, epochs)
            ...
            self.resume()

    outcome = run_stage(stage, lambda: Mine(stage, epochs))
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from lifelong.storage import Tree
from lifelong.training.stages import Stage

NOT_MEASURED = float("nan")
"""What an epoch reports as its loss or its accuracy, where it has none."""

Row = TypeVar("Row", bound=tuple[float, ...])


class ResumableLoop(ABC):
    """A loop in progress: reports and saves at the end of each epoch, and continues where an interrupted one was last saved.

    A subclass sets everything up in its `__init__`, and calls `resume` at its end.

    Args:
        stage: names the computation and keeps its state.
        epochs: maximum number of epochs.

    Attributes:
        done: epochs done, by earlier starts too.
    """

    def __init__(self, stage: Stage, epochs: int) -> None:
        self.stage, self.epochs, self.done = stage, epochs, 0

    def run(self) -> Tree:
        """Run the remaining epochs, and return the outcome."""
        rehearsal = self.stage.rehearsal
        if rehearsal is not None:
            rehearsal.run(self.stage.name, self.epochs, self.fewest_epochs, self._next)
        else:
            while self._next():
                pass
        return self._outcome()

    @property
    def fewest_epochs(self) -> int:
        """The number of epochs after which it may stop at the earliest."""
        return self.epochs

    def _next(self) -> bool:
        """Run the next epoch; return whether there was one."""
        if self.done >= self.epochs or self._decided():
            return False
        loss, accuracy = self._advance(self.done)
        self.done += 1
        self.stage.report(self.done, self.epochs, loss, accuracy)
        self.stage.save(self._saved)
        return True

    def resume(self) -> None:
        """Continue from the last saved state, if the loop was interrupted."""
        saved = self.stage.running()
        if saved is not None:
            self._resume_from(saved)

    def _decided(self) -> bool:
        """Tell whether more epochs would change nothing."""
        return False

    @abstractmethod
    def _advance(self, epoch: int) -> tuple[float, float]:
        """Run an epoch, counted from 0; return the loss and the accuracy to report, in [0, 1], or `NOT_MEASURED`."""

    @abstractmethod
    def _saved(self) -> Tree:
        """Return everything that the next epoch depends on."""

    @abstractmethod
    def _resume_from(self, saved: Tree) -> None:
        """Restore what `_saved` returned, and the number of epochs done."""

    @abstractmethod
    def _outcome(self) -> Tree:
        """Return what comes out, after the last epoch."""


class EpochLoop(ResumableLoop, Generic[Row]):
    """A loop whose epochs are measured and timed.

    Attributes:
        history: a row of measurements per epoch.
        seconds: wall time of the epochs, summed over interruptions.
    """

    def __init__(self, stage: Stage, epochs: int) -> None:
        super().__init__(stage, epochs)
        self.history: list[Row] = []
        self.seconds = 0.0

    def _advance(self, epoch: int) -> tuple[float, float]:
        started = time.perf_counter()
        row = self._epoch(epoch)
        self.history.append(row)
        self.seconds += time.perf_counter() - started
        return self._reported(row)

    def _saved(self) -> Tree:
        return {**self._state(), "history": self.history, "seconds": self.seconds}

    def _resume_from(self, saved: Tree) -> None:
        self._restore(saved)
        self.history, self.seconds = saved["history"], saved["seconds"]
        self.done = len(self.history)

    def _check_loss(self, loss: float, setting: str) -> None:
        """Stop if the current epoch's loss is not finite; `setting` names the setting to change, with its value."""
        if not math.isfinite(loss):
            self.stage.diverged(self.done + 1, setting)

    @abstractmethod
    def _epoch(self, epoch: int) -> Row:
        """Run an epoch, counted from 0; return its row of the history."""

    @abstractmethod
    def _reported(self, row: Row) -> tuple[float, float]:
        """Return the loss and the accuracy of a row."""

    @abstractmethod
    def _state(self) -> Tree:
        """Return everything else that the next epoch depends on."""

    @abstractmethod
    def _restore(self, saved: Tree) -> None:
        """Restore what `_state` returned; the history and the seconds are there, too."""


def run_stage(stage: Stage, begin: Callable[[], ResumableLoop]) -> Tree:
    """Return the outcome of a stage: read if it has ended before, else computed now and stored.

    Args:
        stage: names the computation and keeps its state.
        begin: sets the loop up; called only if there is no outcome.

    Raises:
        LifelongError: the state cannot be written, or what the loop raises.
    """
    outcome = stage.outcome()
    if outcome is None:
        outcome = begin().run()
        stage.finish(outcome)
    return outcome
