"""Backbones as chains of blocks."""

import pytest
import torch
from torch import nn

from lifelong.networks.blocks import make_chain
from lifelong.networks.resnet import LightResNet


def size(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def through(blocks: list[nn.Module], x: torch.Tensor) -> torch.Tensor:
    for block in blocks:
        x = block(x)
    return x


def test_the_light_resnet_has_five_blocks_of_the_known_sizes() -> None:
    chain = make_chain("light-resnet18")
    # facts/baselines 1.1: stem, and four groups of which three halve the resolution.
    assert [size(chain.make(position)) for position in range(len(chain))] == [1_856, 147_968, 152_192, 152_192, 152_192]
    assert (chain.channels, chain.feature_dim) == (64, 64)


def test_conv4_has_the_known_size() -> None:
    chain = make_chain("conv4")
    assert chain.feature_dim == 576
    # facts/baselines, row 4: 118,858 with a ten-way head.
    assert sum(size(chain.make(position)) for position in range(4)) + 576 * 10 + 10 == 118_858


@pytest.mark.parametrize("stem_pool", [False, True])
def test_the_blocks_in_a_row_are_the_network(stem_pool: bool) -> None:
    torch.manual_seed(0)
    whole = LightResNet(8, stem_pool).eval()
    chain = make_chain("light-resnet18", 8, stem_pool=stem_pool)
    blocks = [chain.make(position).eval() for position in range(5)]
    weights = iter(whole.state_dict().values())
    for block in blocks:
        block.load_state_dict({name: next(weights) for name in block.state_dict()})
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(through(blocks, images), whole(images))


@pytest.mark.parametrize("name", ["light-resnet18", "conv4"])
@pytest.mark.parametrize("side", [8, 32, 84])
def test_maps_between_blocks_and_features(name: str, side: int) -> None:
    chain = make_chain(name, 4)
    x = torch.randn(2, 3, side, side)
    for position in range(len(chain) - 1):
        x = chain.make(position)(x)
        assert x.shape[:2] == (2, chain.channels)
        assert x.ndim == 4
    assert chain.make(len(chain) - 1)(x).shape == (2, chain.feature_dim)
