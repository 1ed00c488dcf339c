"""Add up over many samples, such as importance, as a resumable stage with progress."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from lifelong.storage import Tree
from lifelong.training.epochs import NOT_MEASURED, ResumableLoop, run_stage
from lifelong.training.stages import Stage, go_on

Part = TypeVar("Part")


def add_up(
    total: list[Tensor],
    parts: Sequence[Part],
    add: Callable[[Part], None],
    stage: Stage,
    generator: torch.Generator | None = None,
) -> None:
    """Add the contribution of each part to `total`.

    Args:
        total: zeros at first; holds the sum in the end.
        parts: in their order.
        add: adds one part to `total`, in place.
        stage: names the computation and keeps its state; parts that were added before are not added again.
        generator: of random numbers that `add` draws.

    Raises:
        LifelongError: the state cannot be written.
    """
    outcome = run_stage(stage, lambda: _Sum(total, parts, add, stage, generator))
    _take(total, generator, outcome, stage.seed)


class _Sum(ResumableLoop, Generic[Part]):
    """A sum in progress: an epoch adds a part."""

    def __init__(
        self, total: list[Tensor], parts: Sequence[Part], add: Callable[[Part], None], stage: Stage, generator: torch.Generator | None
    ) -> None:
        super().__init__(stage, len(parts))
        self.total, self.parts, self.add, self.generator = total, parts, add, generator
        self.resume()

    def _advance(self, epoch: int) -> tuple[float, float]:
        self.add(self.parts[epoch])
        return NOT_MEASURED, NOT_MEASURED

    def _saved(self) -> Tree:
        return {"total": self.total, "parts": self.done, "generator": None if self.generator is None else self.generator.get_state()}

    def _resume_from(self, saved: Tree) -> None:
        _take(self.total, self.generator, saved, self.stage.seed)
        self.done = saved["parts"]

    def _outcome(self) -> Tree:
        return self._saved()


def _take(total: list[Tensor], generator: torch.Generator | None, saved: Tree, seed: int) -> None:
    """Let a sum and its generator stand where a saved one stood."""
    for mine, stored in zip(total, saved["total"], strict=True):
        mine.copy_(stored)
    if generator is not None:
        go_on(generator, saved["generator"], seed)
