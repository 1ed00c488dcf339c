"""Depthwise 3x3 convolution that is fast forwards and backwards, on a CPU and on others.

PyTorch's own backward pass on a CPU falls back to slow loops in two cases of the cell network: dilation 2 (for 64 maps of 64x32x32,
100 ms against 10 ms for an undilated convolution), and the weight's gradient on maps of 2x2 and less (2 ms against 0.2 ms on 4x4).
Both have an exact way out, with the same products added up. Dilation 2 never mixes pixels of different parity: on each of the four
grids of every other pixel it is an ordinary depthwise convolution. A small map may be enlarged by zeros. And the gradient of the
input is a forward pass with the kernel turned around, which is fast as it is.

On a GPU dilation 2 is slow in channels-last order, forwards and backwards (on an H100 twelve times as slow as an undilated one); there the
four grids serve both directions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lifelong.networks.layout import autocast_to, layout, on_cpu

SMALL = 3
"""Maps with fewer rows or columns take the slow path in PyTorch."""


# `Any` for contexts: PyTorch's type for them lacks what a function stores there.
class _DenseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=layout(gradient))


def dense_gradient(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return the same maps, but bring their gradient into the preferred layout.

    After a concatenation or a mean a gradient is a slice or an expansion; batch norm's backward pass would read that several
    times, on a path five times slower.
    """
    return _DenseGradient.apply(x) if torch.is_grad_enabled() else x


class Depthwise(nn.Conv2d):
    """A depthwise 3x3 convolution without bias, padded so that stride 1 keeps the size. Its weight is of shape (C, 1, 3, 3)."""

    def __init__(self, channels: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, groups=channels, bias=False)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _h _w"]:
        """Convolve maps; stride 2 halves the size, rounded up."""
        if on_cpu(input):
            return depthwise(input, self.weight, self.stride[0], self.dilation[0])
        if self.dilation[0] == 2:
            return dilated(input, self.weight, self.stride[0])
        return super().forward(input)


def dilated(x: Float[Tensor, "n c h w"], weight: Float[Tensor, "c 1 3 3"], stride: int) -> Float[Tensor, "n c _h _w"]:
    """Compute a depthwise convolution with dilation and padding 2 by undilated ones.

    Args:
        x: maps.
        weight: one 3x3 kernel per channel.
        stride: 1 or 2.
    """
    if stride == 2:
        # Only every other pixel takes part.
        return F.conv2d(x[:, :, ::2, ::2], weight, padding=1, groups=len(weight))
    n, c, h, w = x.shape
    grids = F.conv2d(_grids(x), weight, padding=1, groups=c).permute(0, 2, 3, 1)
    rows, columns = grids.shape[1:3]
    x = grids.reshape(n, 2, 2, rows, columns, c).permute(0, 3, 1, 4, 2, 5).reshape(n, 2 * rows, 2 * columns, c)
    return x[:, :h, :w].permute(0, 3, 1, 2)


def depthwise(x: Float[Tensor, "n c h w"], weight: Float[Tensor, "c 1 3 3"], stride: int, dilation: int) -> Float[Tensor, "n c _h _w"]:
    """Compute a depthwise convolution on a CPU, with padding equal to the dilation.

    Args:
        x: maps.
        weight: one 3x3 kernel per channel.
        stride: 1 or 2.
        dilation: 1 or 2.
    """
    if (dtype := autocast_to("cpu")) is not None:
        # Autocast does this for PyTorch's own operations but not for ours, whose backward pass needs one type throughout.
        x, weight = x.to(dtype), weight.to(dtype)
    if stride == dilation == 2:
        # Only every other pixel takes part.
        x, stride, dilation = x[:, :, ::2, ::2], 1, 1
    if torch.is_grad_enabled() and stride == 1 and (dilation == 2 or min(x.shape[2:]) < SMALL):
        return _Depthwise.apply(x, weight, dilation)
    return F.conv2d(x, weight, stride=stride, padding=dilation, dilation=dilation, groups=len(weight))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return F.conv2d(x, weight, padding=dilation, dilation=dilation, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dilation, groups = ctx.dilation, len(weight)
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            for_x = F.conv2d(gradient, weight.flip(2, 3), padding=dilation, dilation=dilation, groups=groups)
        if ctx.needs_input_grad[1]:
            if dilation == 2:
                gradient, x = _grids(gradient), _grids(x)
            one = [1, 1]
            _, for_weight, _ = torch.ops.aten.convolution_backward(
                _enlarged(gradient), _enlarged(x), weight, None, one, one, one, False, [0, 0], groups, [False, True, False]
            )
        return for_x, for_weight, None


def _grids(x: Tensor) -> Tensor:
    """Split maps into the four grids of every other pixel as a batch: (n, c, h, w) to (4n, c, h/2, w/2), channels last; pad odd edges."""
    n, c, h, w = x.shape
    if h % 2 or w % 2:
        x = F.pad(x, (0, w % 2, 0, h % 2))
        h, w = x.shape[2:]
    x = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(4 * n, h // 2, w // 2, c).permute(0, 3, 1, 2)


def _enlarged(x: Tensor) -> Tensor:
    """Pad maps with zeros at the lower and right edge to a size that PyTorch handles fast."""
    rows, columns = (max(0, SMALL - size) for size in x.shape[2:])
    return F.pad(x, (0, columns, 0, rows)) if rows or columns else x
