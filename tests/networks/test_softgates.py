"""Soft gates, and the modules that they mix."""

import pytest
import torch
from torch import nn

from lifelong.networks.blocks import make_chain
from lifelong.networks.softgates import Gate, SoftPool


def blocks(position: int, count: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [make_chain("conv4", 4).make(position) for _ in range(count)]


@pytest.mark.parametrize("side", [1, 7, 32])
def test_weights_sum_to_one_for_each_image(side: int):
    torch.manual_seed(0)
    weights = Gate(4, 6, 3)(torch.randn(5, 4, side, side))
    assert weights.shape == (5, 3)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))
    assert weights.std(dim=0).min() > 0, "they depend on the image"


@pytest.mark.parametrize("position", [0, 1, 3])
@pytest.mark.parametrize("new", [False, True])
def test_a_mixture_is_the_weighted_sum_image_by_image(position: int, new: bool):
    modules = blocks(position, 3)
    inputs = 4 if position else 3
    pool = SoftPool(modules[: 3 - new], modules[2] if new else None, Gate(inputs, 6, 3)).eval()
    x = torch.randn(5, inputs, 16, 16)
    weights = pool.gate(x)
    expected = []
    for image in range(5):
        terms = [weights[image, j] * module.eval()(x[image : image + 1])[0] for j, module in enumerate(modules)]
        expected.append(terms[0] + terms[1] + terms[2])
    torch.testing.assert_close(pool(x), torch.stack(expected))


def test_a_pool_of_one_is_its_module():
    (module,) = blocks(1, 1)
    x = torch.randn(5, 4, 16, 16)
    assert torch.equal(SoftPool([module], None, None)(x), module(x))
    assert not list(SoftPool([module], None, None).parameters())


def test_only_what_is_new_is_held_and_trained():
    old, new = blocks(1, 2)
    gate = Gate(4, 6, 2)
    pool = SoftPool([old], new, gate).train()
    before = {name: tensor.clone() for name, tensor in old.state_dict().items()}
    pool(torch.randn(5, 4, 16, 16)).sum().backward()
    assert {id(p) for p in pool.parameters()} == {id(p) for p in [*new.parameters(), *gate.parameters()]}
    assert all(p.grad is not None for p in pool.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in old.state_dict().items())
    assert not old.training


def test_size_by_hand():
    """Two convolutions 3x3 without biases, two batch norms, a linear layer."""
    assert sum(p.numel() for p in Gate(64, 16, 2).parameters()) == 64 * 16 * 9 + 16 * 16 * 9 + 2 * 2 * 16 + 16 * 2 + 2
