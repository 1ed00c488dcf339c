"""Add up over many samples, such as importance, as a resumable stage with progress."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from lifelong.training.stages import Stage, go_on

Part = TypeVar("Part")

NOT_MEASURED = float("nan")


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

    def state() -> dict[str, object]:
        return {"total": total, "parts": done, "generator": None if generator is None else generator.get_state()}

    saved, done = stage.outcome() or stage.running(), 0
    if saved is not None:
        done = saved["parts"]
        for mine, stored in zip(total, saved["total"], strict=True):
            mine.copy_(stored)
        if generator is not None:
            go_on(generator, saved["generator"], stage.seed)
    while done < len(parts):
        add(parts[done])
        done += 1
        stage.report(done, len(parts), NOT_MEASURED, NOT_MEASURED)
        stage.save(state)
    stage.finish(state())
