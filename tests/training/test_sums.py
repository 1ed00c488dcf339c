"""A sum over parts is a stage: it says how far it is, and goes on where it was stopped."""

from functools import partial
from pathlib import Path

import pytest
import torch

from lifelong.training.stages import Epoch, Stage
from lifelong.training.sums import add_up

PARTS = [torch.full((3,), float(number)) for number in range(1, 6)]


def summed(stage: Stage) -> tuple[torch.Tensor, list[float]]:
    """The sum of the parts, each under random signs, and what was added in this call."""
    total, generator, added = torch.zeros(3), torch.Generator().manual_seed(4), []

    def add(part: torch.Tensor) -> None:
        added.append(float(part[0]))
        total.add_(part * torch.rand(3, generator=generator))

    add_up([total], PARTS, add, stage, generator)
    return total, added


def stop(last: int, epoch: Epoch) -> None:
    if epoch.epoch == last:
        raise KeyboardInterrupt


@pytest.mark.parametrize("last", range(2, 6))
def test_a_sum_that_is_stopped_goes_on(last: int, tmp_path: Path) -> None:
    straight, _ = summed(Stage("importance", 0))
    with pytest.raises(KeyboardInterrupt):
        summed(Stage("importance", 0, folder=tmp_path, save_every=0.0, listener=partial(stop, last)))
    resumed, added = summed(Stage("importance", 0, folder=tmp_path, save_every=0.0))
    assert torch.equal(straight, resumed)
    assert added == [float(part[0]) for part in PARTS[last - 1 :]]  # Stopped before the part it had just added was saved.
    again, added = summed(Stage("importance", 0, folder=tmp_path))
    assert torch.equal(straight, again)
    assert added == []


def test_every_part_is_reported() -> None:
    seen: list[Epoch] = []
    summed(Stage("importance", 0, listener=seen.append))
    assert [(event.epoch, event.epochs) for event in seen] == [(number, 5) for number in range(1, 6)]
