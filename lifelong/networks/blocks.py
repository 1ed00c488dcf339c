"""Backbones as chains of blocks, which growing methods replace one by one.

Two chains:

``light-resnet18``
    The light ResNet-18 in the five modules of MNTDP (Veniat et al., ICLR 2021): the stem and four groups of two residual blocks, the
    last with the average over its maps. With the head as the sixth, seven paths lead from all reused to all new.
``conv4``
    Four times convolution 3x3 (padding 2, bias), batch norm, ReLU, max-pool 2: the network of LMC's code (Ostapenko et al., NeurIPS 2021),
    118,858 parameters with a head of ten classes. Its last maps are pooled to 3 x 3, which they are for images of 32 x 32 pixels.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.max_pool import AdaptiveMaxPool
from lifelong.networks.resnet import LIGHT_STRIDES, light_layer, light_stem

ChainName = Literal["light-resnet18", "conv4"]

SIDE = 3
"""Side of the last maps of `conv4`."""


@dataclass(frozen=True)
class Chain:
    """The blocks of a backbone.

    Attributes:
        blocks: for each position a function that makes a block, with weights from torch's generator. The first takes normalized images
            (n, 3, h, w), the last gives features (n, `feature_dim`), the others take and give maps of `channels` channels.
        channels: of the maps between blocks.
        feature_dim: length of the features.
        border: pixels on each side by which a block's maps, before it halves them, are larger than its input.
    """

    blocks: tuple[Callable[[], nn.Module], ...]
    channels: int
    feature_dim: int
    border: int = 0

    def __len__(self) -> int:
        return len(self.blocks)

    def make(self, position: int) -> nn.Module:
        """Make a fresh block."""
        return self.blocks[position]()


def make_chain(name: ChainName, channels: int = 64, *, stem_pool: bool = False) -> Chain:
    """Return the chain of a name.

    Args:
        name: "light-resnet18" or "conv4".
        channels: of all its maps.
        stem_pool: max-pool after the stem of the light ResNet-18 (PAR's authors' code).
    """
    if name == "conv4":
        inputs = (3, channels, channels, channels)
        blocks = tuple(lambda c=c, last=i == 3: _conv_block(c, channels, last=last) for i, c in enumerate(inputs))
        return Chain(blocks, channels, SIDE * SIDE * channels, border=1)

    last = len(LIGHT_STRIDES) - 1
    makers: tuple[Callable[[], nn.Module], ...] = (
        lambda: _named(**dict(zip(("conv", "bn", "relu", "pool"), light_stem(channels, stem_pool), strict=True))),
        *(partial(light_layer, channels, number) for number in range(last)),
        lambda: _named(group=light_layer(channels, last), mean=MapMean()),
    )
    return Chain(makers, channels, channels)


def _conv_block(inputs: int, channels: int, *, last: bool) -> nn.Module:
    end: dict[str, nn.Module] = {"side": AdaptiveMaxPool(SIDE), "flat": nn.Flatten()} if last else {}
    conv = nn.Conv2d(inputs, channels, 3, padding=2)
    return _named(conv=conv, bn=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True), pool=nn.MaxPool2d(2), **end)


def _named(**parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


class MapMean(nn.Module):
    """The average of each map."""

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
        """Average each map."""
        return maps.mean(dim=(2, 3))
