"""Fused SGD against PyTorch's plain one, also where a parameter is not in every loss."""

import pytest
import torch
from torch import nn

from lifelong.training.optimizer import SGD


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_heads_that_take_turns(momentum: float) -> None:
    """Three heads, of which a step trains some: the last for the first time when the others have been stepped before."""
    ours = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 4), nn.Linear(3, 2)])
    plain = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 4), nn.Linear(3, 2)])
    plain.load_state_dict(ours.state_dict())
    optimizer = SGD(ours.parameters(), lr=0.1, momentum=momentum, weight_decay=0.01)
    other = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=momentum, weight_decay=0.01, foreach=False)
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for step, heads in enumerate(((0, 1), (0,), (1, 2), (2,), (0, 2))):
        for module, stepper in ((ours, optimizer), (plain, other)):
            stepper.zero_grad()
            sum(module[head](inputs).square().sum() for head in heads).backward()  # ty: ignore
            stepper.step()
        for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
        if step == 2:
            # Saved and read again in the middle.
            state = [None if buffer is None else buffer.clone() for buffer in optimizer.state()]
            optimizer = SGD(ours.parameters(), lr=0.1, momentum=momentum, weight_decay=0.01)
            optimizer.load(state)
