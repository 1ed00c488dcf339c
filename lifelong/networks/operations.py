"""The candidate operations of a cell, and the layers around them.

Source: Liu et al., DARTS (ICLR 2019), with the choices of PAR's authors' code (darts_operation.py).
"""

from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.depthwise import Depthwise
from lifelong.networks.layout import layout, on_cpu

MakeBatchNorm = Callable[[int], nn.Module]
"""From a number of channels to their batch norm."""


class Maps:
    """The maps of a node, (n, c, h, w), and their ReLU, computed when first asked for.

    Most operations begin with it. To share it saves no time to speak of, but a fifth of the memory that a training step keeps.

    Args:
        raw: the maps.
        overwrite: the ReLU takes their place. For maps that nobody reads as they are once their ReLU is asked for, and that the backward
            pass of what has made them does not read: it does not for batch norm and a concatenation.
    """

    def __init__(self, raw: Float[Tensor, "n c h w"], *, overwrite: bool = False) -> None:
        self.raw = raw
        self.overwrite = overwrite
        self._pooled: dict[str, Tensor] = {}

    @cached_property
    def rectified(self) -> Float[Tensor, "n c h w"]:
        """The maps after a ReLU."""
        return F.relu(self.raw, inplace=self.overwrite)

    def pooled(self, pool: nn.Module) -> Float[Tensor, "n c _h _w"]:
        """The maps after a pool. Edges often pool the same maps alike, and once is enough.

        Not on a CPU, where gradients would be added up in another order than before, and results differ in the last bit.
        """
        if on_cpu(self.raw):
            return pool(self.raw)
        key = str(pool)
        if key not in self._pooled:
            self._pooled[key] = pool(self.raw)
        return self._pooled[key]


class OnMaps(nn.Module):
    """A module applied to maps.

    Args:
        body: takes and gives a tensor.
        relu: it takes the maps after their ReLU.
    """

    def __init__(self, body: nn.Module, *, relu: bool) -> None:
        super().__init__()
        self.body = body
        self.relu = relu

    def forward(self, maps: Maps) -> Float[Tensor, "n d _h _w"]:
        """What the module makes of the maps; with stride 2 of half the size, rounded up."""
        return self.body(maps.rectified if self.relu else maps.raw)


class Pool(OnMaps):
    """A pool of maps."""

    def __init__(self, body: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__(body, relu=False)

    def forward(self, maps: Maps) -> Float[Tensor, "n c _h _w"]:
        """The pooled maps; with stride 2 of half the size, rounded up."""
        return maps.pooled(self.body)


class FactorizedReduce(nn.Module):
    """Halves the resolution: two pointwise convolutions with stride 2, one of them a pixel further, side by side; batch norm.

    Args:
        inputs: channels that come in.
        channels: channels that go out.
        batch_norm: makes the batch norm.
        apply_bn: apply the batch norm. The authors' code makes it, counts it and does not apply it.
    """

    def __init__(self, inputs: int, channels: int, batch_norm: MakeBatchNorm, *, apply_bn: bool = True) -> None:
        super().__init__()
        self.even = Pointwise(inputs, channels // 2)
        self.odd = Pointwise(inputs, channels - channels // 2)
        self.bn = batch_norm(channels)
        self.apply_bn = apply_bn

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d _h _w"]:
        """Maps of half the size, rounded up."""
        if x.shape[2] % 2 or x.shape[3] % 2:
            # A pixel further there is nothing beyond an odd edge: zeros.
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        # Of each 2x2 block the upper left and the lower right pixel, in one operation, whose gradient then is channels last too.
        blocks = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (n, h/2, 2, w/2, 2, c)
        pixels = blocks.diagonal(dim1=2, dim2=4).permute(4, 0, 3, 1, 2)  # (2, n, c, h/2, w/2)
        even, odd = (part.contiguous(memory_format=layout(x)) for part in pixels)
        x = torch.cat([self.even(even), self.odd(odd)], dim=1)
        return self.bn(x) if self.apply_bn else x


class Pointwise(nn.Conv2d):
    """A 1x1 convolution without bias. Its weight is of shape (D, C, 1, 1)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(inputs, channels, 1, bias=False)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """The convolved maps."""
        if on_cpu(input) or layout(input) != torch.channels_last:
            return super().forward(input)
        # A product of matrices, (n h w, c) by (c, d): on GPUs faster than their convolutions, three times so in float32.
        return F.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)


def sep_conv(channels: int, stride: int, batch_norm: MakeBatchNorm) -> nn.Sequential:
    """Depthwise 3x3, pointwise, batch norm; ReLU; the same again with stride 1."""
    return nn.Sequential(
        Depthwise(channels, stride=stride),
        Pointwise(channels, channels),
        batch_norm(channels),
        # May overwrite its input: batch norm's backward pass does not read its output.
        nn.ReLU(inplace=True),
        Depthwise(channels),
        Pointwise(channels, channels),
        batch_norm(channels),
    )


def dil_conv(channels: int, stride: int, batch_norm: MakeBatchNorm) -> nn.Sequential:
    """Depthwise 3x3 with dilation 2, pointwise, batch norm."""
    return nn.Sequential(Depthwise(channels, stride=stride, dilation=2), Pointwise(channels, channels), batch_norm(channels))


def operation(name: str, channels: int, stride: int, batch_norm: MakeBatchNorm = nn.BatchNorm2d, *, reduce_bn: bool = True) -> OnMaps:
    """The module of an operation, from maps of `channels` channels to as many.

    Args:
        name: one of `OPERATIONS` but "none".
        channels: channels C of the cell.
        stride: 1, or 2 on the edges from a reduction cell's inputs.
        batch_norm: makes a batch norm for a number of channels.
        reduce_bn: apply the batch norm of a `FactorizedReduce`.
    """
    match name:
        case "max_pool_3x3":
            return Pool(nn.MaxPool2d(3, stride=stride, padding=1))
        case "avg_pool_3x3":
            return Pool(nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False))
        case "skip_connect" if stride == 1:
            return OnMaps(nn.Identity(), relu=False)
        case "skip_connect":
            return OnMaps(FactorizedReduce(channels, channels, batch_norm, apply_bn=reduce_bn), relu=True)
        case "sep_conv_3x3":
            return OnMaps(sep_conv(channels, stride, batch_norm), relu=True)
        case "dil_conv_3x3":
            return OnMaps(dil_conv(channels, stride, batch_norm), relu=True)
    raise ValueError(f"no module for the operation {name!r}")


def preprocess(inputs: int, channels: int, batch_norm: MakeBatchNorm = nn.BatchNorm2d, *, halve: bool, reduce_bn: bool) -> OnMaps:
    """What brings a cell's input to its channels, and to the size of its other input where the cell between them has halved it."""
    if halve:
        return OnMaps(FactorizedReduce(inputs, channels, batch_norm, apply_bn=reduce_bn), relu=True)
    return OnMaps(nn.Sequential(Pointwise(inputs, channels), batch_norm(channels)), relu=True)
