"""A frozen module stays as it is, whatever is trained around it."""

import torch
from torch import nn

from lifelong.networks.frozen import Borrowed, freeze


def block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))


def test_training_around_a_borrowed_module_does_not_change_it() -> None:
    lent = block()
    network = nn.Sequential(block(), Borrowed(lent), block())
    before = {name: tensor.clone() for name, tensor in lent.state_dict().items()}
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(4, 2, 3, 3)).square().sum().backward()
        assert all(p.grad is not None for p in network[0].parameters()), "gradients pass through"
        optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in lent.state_dict().items())
    assert all(p.grad is None for p in lent.parameters())


def test_a_borrowed_module_is_not_part_of_what_borrows_it() -> None:
    network = nn.Sequential(Borrowed(block()))
    assert not list(network.parameters())
    assert not network.state_dict()


def test_freezing_leaves_nothing_to_an_optimizer() -> None:
    module = block()
    module(torch.randn(4, 2, 3, 3)).sum().backward()
    freeze(module)
    assert not any(m.training for m in module.modules())
    assert all(p.grad is None and not p.requires_grad for p in module.parameters())
