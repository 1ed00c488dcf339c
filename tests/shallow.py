"""Networks of two residual blocks in place of the light ResNet-18's eight, for tests of what methods do with any network.

Most of what a tiny network takes is the number of its operations. Both kinds of block are there: one that keeps the resolution, and one
that halves it, whose shortcut is projected. `tests/experiment/test_golden.py` learns with the whole network.
"""

import pytest
from torch import nn

from lifelong.methods import backbone
from lifelong.networks import blocks
from lifelong.networks.resnet import LIGHT_STRIDES, BasicBlock, LightResNet


class ShallowResNet(LightResNet):
    """The light ResNet-18 with two layers of one block."""

    def __init__(self, channels: int = 64, stem_pool: bool = False) -> None:
        super().__init__(channels, stem_pool)
        self.layers = nn.Sequential(*(one_block(channels, number) for number in (0, 1)))


def one_block(channels: int, number: int) -> nn.Sequential:
    """Make a layer of one block instead of two."""
    return nn.Sequential(BasicBlock(channels, channels, LIGHT_STRIDES[number]))


@pytest.fixture
def shallow_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods that ask for a light ResNet-18, or for its blocks, get shallow ones."""
    monkeypatch.setattr(backbone, "LightResNet", ShallowResNet)
    monkeypatch.setattr(blocks, "light_layer", one_block)
