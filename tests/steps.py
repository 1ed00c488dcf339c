"""What the host waits for in trainings on the pretended device (`tests/pretend.py`), step by step.

A step is what lies between one call of an optimizer and the next in the same epoch.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

from lifelong.training.optimizer import SGD
from lifelong.training.stages import Epoch
from tests import pretend


@dataclass
class Watch:
    """The waits of trainings.

    Attributes:
        syncs: all of them.
        within: those of each pair of steps in one epoch.
        between: those of each pair of steps with the end of an epoch between them.
    """

    syncs: list[pretend.Sync]
    within: list[list[pretend.Sync]] = field(default_factory=list)
    between: list[list[pretend.Sync]] = field(default_factory=list)
    _since: int | None = None
    _epoch_ended: bool = False

    def step(self, *_: Any) -> None:
        """An optimizer has made a step."""
        if self._since is not None:
            (self.between if self._epoch_ended else self.within).append(self.syncs[self._since :])
        self._since, self._epoch_ended = len(self.syncs), False

    def epoch(self, epoch: Epoch) -> None:
        """An epoch has ended; anything may follow the last one of a stage."""
        self._since, self._epoch_ended = (None if epoch.epoch == epoch.epochs else self._since), True

    def waits(self) -> list[pretend.Sync]:
        """All within epochs."""
        return [sync for syncs in self.within for sync in syncs]


@contextmanager
def watched() -> Generator[Watch]:
    """A block whose trainings are watched; its epochs are to be told to the watch."""
    with pretend.counted() as syncs:
        watch = Watch(syncs)
        # Adam of the searches' choices, and the library's own optimizer of weights.
        handle, step = register_optimizer_step_post_hook(watch.step), SGD.step

        def watched_step(optimizer: SGD) -> None:
            step(optimizer)
            watch.step()

        SGD.step = watched_step
        try:
            yield watch
        finally:
            SGD.step = step
            handle.remove()
