"""The candidate operations of a cell, and the layers around them.

Source: Liu et al., DARTS (ICLR 2019), with the choices of PAR's authors' code (darts_operation.py).
"""

from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.depthwise import Depthwise, dense_gradient
from lifelong.networks.fused import can_fuse, convolution, reduction, statistics
from lifelong.networks.fused import total as fused_total
from lifelong.networks.fused.normed import Normed
from lifelong.networks.layout import layout, on_cpu

MakeBatchNorm = Callable[[int], nn.Module]
"""From a number of channels to their batch norm."""


class Maps:
    """The maps of a node, (n, c, h, w), and their ReLU, computed on first use.

    Most operations begin with it. Sharing it saves little time, but a fifth of the memory of a training step.

    Args:
        raw: the maps.
        overwrite: compute the ReLU in place. For maps that are not read unchanged once their ReLU is used, and that the backward pass of
            the operation that made them does not read, such as batch norm and concatenation.
    """

    def __init__(self, raw: Float[Tensor, "n c h w"], *, overwrite: bool = False) -> None:
        self.raw = raw
        self.overwrite = overwrite
        self._pooled: dict[str, Tensor] = {}

    @cached_property
    def rectified(self) -> Float[Tensor, "n c h w"]:
        """The maps after a ReLU."""
        # Fused kernels read the raw maps and apply the ReLU themselves.
        return F.relu(self.raw, inplace=self.overwrite and not can_fuse(self.raw))

    def pooled(self, pool: nn.Module) -> Float[Tensor, "n c _h _w"]:
        """Pool the maps, once for all edges that pool them in the same way.

        On a CPU they are pooled each time: gradients would be summed in another order, and results differ in the last bit.
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
        body: from a tensor to a tensor.
        relu: apply it to the maps after their ReLU.
    """

    def __init__(self, body: nn.Module, *, relu: bool) -> None:
        super().__init__()
        self.body = body
        self.relu = relu

    def forward(self, maps: Maps) -> Float[Tensor, "n d _h _w"]:
        """Apply the module; stride 2 halves the size, rounded up."""
        return self.body(maps.rectified if self.relu else maps.raw)

    def term(self, maps: Maps) -> Tensor | Normed:
        """Apply the module, except for its last batch norm where kernels are fused: whoever adds up the terms of a node applies it."""
        if not (self.relu and can_fuse(maps.raw)):
            return self(maps)
        if isinstance(self.body, FactorizedReduce):
            return self.body.term(maps)
        return convolution(self.body, maps.raw) or self(maps)


class Pool(OnMaps):
    """A pool of maps."""

    def __init__(self, body: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__(body, relu=False)

    def forward(self, maps: Maps) -> Float[Tensor, "n c _h _w"]:
        """Pool the maps; stride 2 halves the size, rounded up."""
        return maps.pooled(self.body)


class FactorizedReduce(nn.Module):
    """Halves the resolution: two pointwise convolutions with stride 2, one of them shifted by a pixel, concatenated; batch norm.

    Args:
        inputs: input channels.
        channels: output channels.
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
        """Halve the size of maps, rounded up."""
        x = self.halved(x)
        return self.bn(x) if self.apply_bn else x

    def term(self, maps: Maps) -> Tensor | Normed:
        """Halve the size of maps after their ReLU, by fused kernels, which leave the batch norm to the reader."""
        fused = reduction(maps.raw, self.even, self.odd, self.bn) if self.apply_bn else None
        return self(maps.rectified) if fused is None else fused

    def halved(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d _h _w"]:
        """Halve the size, without batch norm."""
        if x.shape[2] % 2 or x.shape[3] % 2:
            # The shifted convolution reads zeros beyond an odd edge.
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        # Of each 2x2 block the upper left and the lower right pixel, in one operation, whose gradient is then also channels last.
        blocks = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (n, h/2, 2, w/2, 2, c)
        pixels = blocks.diagonal(dim1=2, dim2=4).permute(4, 0, 3, 1, 2)  # (2, n, c, h/2, w/2)
        even, odd = (part.contiguous(memory_format=layout(x)) for part in pixels)
        return torch.cat([self.even(even), self.odd(odd)], dim=1)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution without bias. Its weight is of shape (D, C, 1, 1)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(inputs, channels, 1, bias=False)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """Convolve maps."""
        if on_cpu(input) or layout(input) != torch.channels_last:
            return super().forward(input)
        # A product of matrices, (n h w, c) by (c, d): on GPUs faster than their convolutions, three times so in float32.
        return F.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)


def sep_conv(channels: int, stride: int, batch_norm: MakeBatchNorm) -> nn.Sequential:
    """Make depthwise 3x3, pointwise, batch norm; ReLU; the same again with stride 1."""
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
    """Make depthwise 3x3 with dilation 2, pointwise, batch norm."""
    return nn.Sequential(Depthwise(channels, stride=stride, dilation=2), Pointwise(channels, channels), batch_norm(channels))


def operation(name: str, channels: int, stride: int, batch_norm: MakeBatchNorm = nn.BatchNorm2d, *, reduce_bn: bool = True) -> OnMaps:
    """Make the module of an operation, from maps of `channels` channels to as many.

    Args:
        name: one of `OPERATIONS` except "none".
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
    """Make the module that brings a cell's input to the cell's channels, and to half the size if the cell in between has halved it."""
    if halve:
        return OnMaps(FactorizedReduce(inputs, channels, batch_norm, apply_bn=reduce_bn), relu=True)
    return OnMaps(nn.Sequential(Pointwise(inputs, channels), batch_norm(channels)), relu=True)


def total(first: Tensor | Normed, second: Tensor | Normed | None = None, *, relu: bool = False) -> Float[Tensor, "n c h w"]:
    """Add up one or two terms of a node."""
    if isinstance(first, Normed) or isinstance(second, Normed):
        return fused_total(first, second, relu=relu)
    maps = first if second is None else dense_gradient(first + second)
    return F.relu(maps) if relu else maps


def stem_maps(stem: nn.Sequential, images: Float[Tensor, "n 3 h w"]) -> Maps:
    """Apply a stem, a convolution and a batch norm, whose readers all begin with a ReLU."""
    images = images.contiguous(memory_format=layout(images))
    if can_fuse(images):
        first, batch_norm = stem
        if (normed := statistics(first(images), batch_norm)) is not None:
            return Maps(total(normed, relu=True))
    return Maps(stem(images), overwrite=True)
