"""Cell networks' layers for a training step on a GPU, several in one pass over the maps.

A batch norm takes three passes over its maps, and cells have one after every convolution. Here it takes none of its own: the convolution
before it gathers the statistics of what it writes, and whoever reads the result scales and shifts it on the way (`Normed`). Backwards, the
reader returns the gradient with respect to the normalized maps, and its sums over all pixels; the convolution before computes the gradient
of its own output from these. So the gradient of `Normed.maps` in autograd's graph is that of the *normalized* maps, and the gradient of
`Normed.sums` holds the sums. Nothing but the functions of this module may read a `Normed`.

Results are those of PyTorch's own layers up to rounding (`tests/networks/test_fused.py`); sums are added in a fixed order.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lifelong.networks.fused import kernels as _kernels
from lifelong.networks.fused.normed import Normed

kernels: Any = _kernels
"""Without types: kernels are started with numbers where their types say constants, and with options that they do not name."""

PROGRAMS = 256
"""Programs of a kernel that leaves partial sums, at most: about two of eight warps for each processor of an H100."""

MORE_PROGRAMS = 384
"""The same for depthwise convolutions, whose programs have four warps and many registers: three for each processor."""

MOST_PROGRAMS = 528
"""The same for sums, whose programs have four warps: four for each processor."""

BLOCK = 64
"""Pixels of a block; half as many for small maps, so that there are enough blocks to go round."""

SMALL = 16384
"""Maps with fewer pixels than this, over the batch, are small."""

WIDTH = 64
"""Channels of a block, at most, where a program need not hold all of them."""


class BatchNorm(NamedTuple):
    """What of a batch norm is no tensor to be learned.

    Attributes:
        mean: running mean, or None if none is kept.
        variance: running variance.
        seen: number of batches.
        momentum: of the running statistics.
        eps: added to variances.
    """

    mean: Tensor | None
    variance: Tensor | None
    seen: Tensor | None
    momentum: float
    eps: float

    @classmethod
    def of(cls, module: nn.BatchNorm2d) -> "BatchNorm":
        """Take it from a module."""
        return cls(module.running_mean, module.running_var, module.num_batches_tracked, module.momentum or 0.0, module.eps)


def convolution(x: Tensor | Normed, depthwise: nn.Conv2d | None, pointwise: nn.Conv2d, batch_norm: nn.BatchNorm2d) -> Normed:
    """Apply ReLU, a depthwise 3x3 convolution, a pointwise one, and gather what batch norm needs.

    Args:
        x: maps, channels last.
        depthwise: of stride 1 or 2 and dilation 1 or 2, padded by its dilation; None for none.
        pointwise: a 1x1 convolution of stride 1 without bias.
        batch_norm: of what the convolution returns, in training mode.
    """
    maps, coefficients, sums = x if isinstance(x, Normed) else (x, None, None)
    maps = _castable(maps)
    stride, dilation = (depthwise.stride[0], depthwise.dilation[0]) if depthwise is not None else (1, 1)
    weight = depthwise.weight if depthwise is not None else None
    args = (maps, coefficients, sums, weight, pointwise.weight, batch_norm.weight, batch_norm.bias)
    return Normed(*_Convolution.apply(*args, BatchNorm.of(batch_norm), stride, dilation))


def reduction(x: Tensor, even: nn.Conv2d, odd: nn.Conv2d, batch_norm: nn.BatchNorm2d) -> Normed:
    """Apply ReLU and halve the size by two pointwise convolutions, of every other pixel from the first and from the second on; concatenate.

    Args:
        x: maps, channels last.
        even: a 1x1 convolution without bias.
        odd: another, which reads zeros beyond an odd edge.
        batch_norm: of what they return, in training mode.
    """
    weights = (even.weight, odd.weight, batch_norm.weight, batch_norm.bias)
    return Normed(*_Reduction.apply(_castable(x), *weights, BatchNorm.of(batch_norm)))


def statistics(maps: Tensor, batch_norm: nn.BatchNorm2d) -> Normed:
    """Gather what batch norm needs of maps that something else has made."""
    return Normed(*_Statistics.apply(maps, batch_norm.weight, batch_norm.bias, BatchNorm.of(batch_norm)))


def total(first: Tensor | Normed, second: Tensor | Normed | None = None, *, relu: bool = False) -> Tensor:
    """Add maps, each after its batch norm, and apply a ReLU if that is wanted."""
    if isinstance(second, Normed) and not isinstance(first, Normed):
        first, second = second, first
    a = first if isinstance(first, Normed) else Normed(first, None, None)  # ty: ignore[invalid-argument-type]
    b = second if isinstance(second, Normed) else Normed(second, None, None)  # ty: ignore[invalid-argument-type]
    return _Total.apply(*a, *b, relu)


def _castable(maps: Tensor) -> Tensor:
    """Cast as autocast does."""
    device = maps.device.type
    return maps.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else maps


def _rows(maps: Tensor) -> tuple[Tensor, int]:
    """Return maps as rows of pixels, with the distance between two; copied if they do not lie like that."""
    _, channels, height, width = maps.shape
    distance = maps.stride(3)
    if (maps.stride(1) == 1 or channels == 1) and (maps.stride(2), maps.stride(0)) == (width * distance, height * width * distance):
        return maps, distance
    return maps.contiguous(memory_format=torch.channels_last), channels


def _made(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Make maps, channels last, whatever is in them."""
    strides = (height * width * channels, 1, width * channels, channels)
    return torch.empty_strided((len(like), channels, height, width), strides, dtype=like.dtype, device=like.device)


def _power(number: int) -> int:
    """Return the smallest power of two that is at least `number` and 16."""
    return max(16, 1 << (number - 1).bit_length())


def _block(pixels: int) -> int:
    return BLOCK if pixels >= SMALL else BLOCK // 2


def _programs(pixels: int, block: int, across: int = 1, most: int = PROGRAMS) -> int:
    return max(1, min(-(-pixels // block), most // across))


def _on(maps: Tensor) -> Any:
    """Return a context in which kernels start on the device of maps."""
    return torch.cuda.device(maps.device) if maps.is_cuda else nullcontext()


def _merged(parts: Tensor, programs: int, pixels: int, weight: Tensor | None, bias: Tensor | None, batch_norm: BatchNorm) -> Tensor:
    channels = parts.shape[2]
    coefficients = parts.new_empty(4, channels)
    block = min(16, _power(channels))
    kernels.merge[(-(-channels // block),)](
        parts, weight, bias, batch_norm.mean, batch_norm.variance, batch_norm.seen, coefficients,
        programs, pixels, channels, batch_norm.eps, batch_norm.momentum,
        AFFINE=weight is not None, TRACK=batch_norm.mean is not None, BG=_power(programs), BN=block, num_warps=8,
    )  # fmt: skip
    return coefficients


def _added(*parts: Tensor) -> list[Tensor]:
    """Add up the rows of one or two matrices of partial sums."""
    width = 32
    sums = [part.new_empty(part.shape[1]) for part in parts]
    first, second = parts[0], parts[-1]
    grid = (sum(-(-part.shape[1] // width) for part in parts),)
    kernels.add_up[grid](first, *first.shape, sums[0], second, *second.shape, sums[-1], BG=64, BN=width)
    return sums


def _sizes(x: Tensor, z: Tensor, shift: int = -1) -> dict[str, int]:
    """Return sizes that kernels are compiled for; those that a pointwise convolution does not need would only make more of them."""
    (rows, columns), (out_rows, out_columns) = ((0, 0), (0, 0)) if shift < 0 else (x.shape[2:], z.shape[2:])
    return {"ROWS": rows, "COLUMNS": columns, "OUT_ROWS": out_rows, "OUT_COLUMNS": out_columns, "SHIFT": shift}


def _pointwise(
    x: Tensor, ld_x: int, coefficients: Tensor | None, weight: Tensor, z: Tensor, parts: Tensor, *, ready: bool, shift: int = -1
) -> None:
    """Start a pointwise convolution into `z`, which also leaves its statistics in `parts`, (programs, 3, channels)."""
    outputs, inputs = weight.shape[:2]
    width = min(WIDTH, _power(inputs))
    pixels = z.shape[0] * z.shape[2] * z.shape[3]
    kernels.convolve_pointwise[(len(parts),)](
        x, ld_x, coefficients, weight, z, z.stride(3), parts, parts.stride(1), pixels, inputs, outputs, **_sizes(x, z, shift),
        READY=ready, NORM=coefficients is not None, ONE=inputs <= width,
        BP=_block(pixels), BK=width, BN=_power(outputs), num_warps=8,
    )  # fmt: skip


def _pointwise_backward(
    gradient: Tensor, z: Tensor, coefficients: Tensor, sums: Tensor, x: Tensor, ld_x: int, x_coefficients: Tensor | None, weight: Tensor,
    back: Tensor, *, ready: bool, shift: int = -1,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Start the backward pass of a pointwise convolution into `back`; return parts of its weight's gradient, and of the sums of `back`."""
    outputs, inputs = weight.shape[:2]
    width = min(WIDTH, _power(inputs))
    across = -(-inputs // width)
    pixels = z.shape[0] * z.shape[2] * z.shape[3]
    block = _block(pixels)
    programs = _programs(pixels, block, across)
    parts = torch.empty((programs, outputs * inputs), dtype=torch.float32, device=x.device)
    x_parts = parts.new_empty(programs, 2 * inputs) if x_coefficients is not None else None
    kernels.pointwise_backward[(programs, across)](
        gradient, gradient.stride(3), z, z.stride(3), coefficients, sums, sums.stride(0), coefficients.stride(0),
        x, ld_x, x_coefficients, weight, back, parts, x_parts, pixels, inputs, outputs, **_sizes(x, z, shift),
        READY=ready, NORM=x_coefficients is not None,
        BP=block, BK=width, BN=_power(outputs), num_warps=8, num_stages=1,
    )  # fmt: skip
    return parts, x_parts


# `Any` for contexts: PyTorch's type for them lacks what a function stores there.
class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        x_coefficients: Tensor | None,
        x_sums: Tensor | None,
        depthwise: Tensor | None,
        pointwise: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        batch_norm: BatchNorm,
        stride: int,
        dilation: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, distance = _rows(x)
        n, inputs, rows, columns = x.shape
        outputs = len(pointwise)
        out_rows, out_columns = -(-rows // stride), -(-columns // stride)
        pixels = n * out_rows * out_columns
        y = taps = None
        z = _made(x, outputs, out_rows, out_columns)
        parts = torch.empty((_programs(pixels, _block(pixels)), 3, outputs), dtype=torch.float32, device=x.device)
        with _on(x):
            if depthwise is not None:
                y, taps = _made(x, inputs, out_rows, out_columns), torch.empty((9, inputs), dtype=torch.float32, device=x.device)
                block, width = 16, min(WIDTH, _power(inputs))
                across = -(-inputs // width)
                kernels.convolve_depthwise[(_programs(pixels, block, across, MORE_PROGRAMS), across)](
                    x, distance, x_coefficients, depthwise, taps, y, pixels, inputs,
                    ROWS=rows, COLUMNS=columns, OUT_ROWS=out_rows, OUT_COLUMNS=out_columns,
                    STRIDE=stride, DILATION=dilation, NORM=x_coefficients is not None, BP=block, BN=width,
                )  # fmt: skip
                _pointwise(y, inputs, None, pointwise, z, parts, ready=True)
            else:
                _pointwise(x, distance, x_coefficients, pointwise, z, parts, ready=False)
            coefficients = _merged(parts, len(parts), pixels, weight, bias, batch_norm)
        ctx.save_for_backward(x, x_coefficients, taps, pointwise, y, z, coefficients)
        ctx.shape = (distance, stride, dilation, weight is not None)
        ctx.mark_non_differentiable(coefficients)
        ctx.set_materialize_grads(False)
        return z, coefficients, parts.new_empty(2, outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: None, sums: Tensor) -> tuple[Tensor | None, ...]:
        x, x_coefficients, taps, pointwise, y, z, coefficients = ctx.saved_tensors
        distance, stride, dilation, affine = ctx.shape
        n, inputs, rows, columns = x.shape
        out_rows, out_columns = z.shape[2:]
        gradient = _rows(gradient)[0]
        back = _made(x, inputs, out_rows, out_columns)
        for_depthwise = x_sums = None
        with _on(x):
            if y is None:
                parts, own = _pointwise_backward(gradient, z, coefficients, sums, x, distance, x_coefficients, pointwise, back, ready=False)
                for_pointwise, *rest = _added(parts) if own is None else _added(parts, own)
                x_sums = rest[0] if rest else None
            else:
                parts = _pointwise_backward(gradient, z, coefficients, sums, y, inputs, None, pointwise, back, ready=True)[0]
                dense, back = back, _made(x, inputs, rows, columns)
                pixels, block, width = n * rows * columns, 16, min(WIDTH, _power(inputs))
                across = -(-inputs // width)
                programs = _programs(pixels, block, across)
                own = torch.empty((programs, 11 * inputs), dtype=torch.float32, device=x.device)
                kernels.depthwise_backward[(programs, across)](
                    dense, x, distance, x_coefficients, taps, back, own, pixels, inputs,
                    ROWS=rows, COLUMNS=columns, OUT_ROWS=out_rows, OUT_COLUMNS=out_columns,
                    STRIDE=stride, DILATION=dilation, NORM=x_coefficients is not None, BP=block, BN=width,
                )  # fmt: skip
                for_pointwise, own = _added(parts, own)
                for_depthwise, x_sums = own[: 9 * inputs].view(inputs, 1, 3, 3), own[9 * inputs :]
        x_sums = x_sums.view(2, inputs) if x_sums is not None and x_coefficients is not None else None
        for_bias, for_weight = (sums[0], sums[1]) if affine else (None, None)
        return back, None, x_sums, for_depthwise, for_pointwise.view_as(pointwise), for_weight, for_bias, None, None, None


class _Reduction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, even: Tensor, odd: Tensor, weight: Tensor | None, bias: Tensor | None, batch_norm: BatchNorm
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, distance = _rows(x)
        half, channels = len(even), len(even) + len(odd)
        z = _made(x, channels, -(-x.shape[2] // 2), -(-x.shape[3] // 2))
        pixels = z.shape[0] * z.shape[2] * z.shape[3]
        parts = torch.empty((_programs(pixels, _block(pixels)), 3, channels), dtype=torch.float32, device=x.device)
        with _on(x):
            _pointwise(x, distance, None, even, z[:, :half], parts[:, :, :half], ready=False, shift=0)
            _pointwise(x, distance, None, odd, z[:, half:], parts[:, :, half:], ready=False, shift=1)
            coefficients = _merged(parts, len(parts), pixels, weight, bias, batch_norm)
        ctx.save_for_backward(x, even, odd, z, coefficients)
        ctx.shape = (distance, weight is not None)
        ctx.mark_non_differentiable(coefficients)
        ctx.set_materialize_grads(False)
        return z, coefficients, parts.new_empty(2, channels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: None, sums: Tensor) -> tuple[Tensor | None, ...]:
        x, even, odd, z, coefficients = ctx.saved_tensors
        distance, affine = ctx.shape
        half = len(even)
        gradient = _rows(gradient)[0]
        # Half of the pixels are not read by either.
        back = _made(x, *x.shape[1:]).zero_()
        parts = []
        with _on(x):
            for weight, part, shift in ((even, slice(half), 0), (odd, slice(half, None), 1)):
                own = _pointwise_backward(
                    gradient[:, part], z[:, part], coefficients[:, part], sums[:, part], x, distance, None, weight, back, ready=False,
                    shift=shift,
                )  # fmt: skip
                parts.append(own[0])
            for_even, for_odd = _added(*parts)
        for_bias, for_weight = (sums[0], sums[1]) if affine else (None, None)
        return back, for_even.view_as(even), for_odd.view_as(odd), for_weight, for_bias, None


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, batch_norm: BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
        x, distance = _rows(x)
        n, channels, rows, columns = x.shape
        pixels = n * rows * columns
        block, width = _block(pixels), min(64, _power(channels))
        across = -(-channels // width)
        programs = _programs(pixels, block, across)
        parts = torch.empty((programs, 3, channels), dtype=torch.float32, device=x.device)
        with _on(x):
            kernels.gather[(programs, across)](x, distance, parts, pixels, channels, BP=block, BN=width, num_warps=8)
            coefficients = _merged(parts, programs, pixels, weight, bias, batch_norm)
        ctx.save_for_backward(x, coefficients)
        ctx.affine = weight is not None
        ctx.mark_non_differentiable(coefficients)
        ctx.set_materialize_grads(False)
        return x.view_as(x), coefficients, parts.new_empty(2, channels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: None, sums: Tensor) -> tuple[Tensor | None, ...]:
        x, coefficients = ctx.saved_tensors
        n, channels, rows, columns = x.shape
        pixels = n * rows * columns
        gradient, ld_g = _rows(gradient)
        x, distance = _rows(x)
        back = _made(x, channels, rows, columns)
        width = min(64, _power(channels))
        with _on(x):
            kernels.normalize_backward[(-(-pixels // BLOCK), -(-channels // width))](
                gradient, ld_g, x, distance, coefficients, sums, sums.stride(0), back, pixels, channels, BP=BLOCK, BN=width
            )
        for_bias, for_weight = (sums[0], sums[1]) if ctx.affine else (None, None)
        return back, for_weight, for_bias, None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        a_coefficients: Tensor | None,
        a_sums: Tensor | None,
        b: Tensor | None,
        b_coefficients: Tensor | None,
        b_sums: Tensor | None,
        relu: bool,
    ) -> Tensor:
        a, ld_a = _rows(a)
        n, channels, rows, columns = a.shape
        b, ld_b = (None, 0) if b is None else _rows(b)
        pixels, width = n * rows * columns, min(64, _power(channels))
        result = _made(a, channels, rows, columns)
        with _on(a):
            kernels.add[(-(-pixels // BLOCK), -(-channels // width))](
                a, ld_a, a_coefficients, b, ld_b, b_coefficients, result, pixels, channels,
                NORM_A=a_coefficients is not None, NORM_B=b_coefficients is not None, SECOND=b is not None, RELU=relu, BP=BLOCK, BN=width,
            )  # fmt: skip
        kept_a, kept_b = (a if a_coefficients is not None else None), (b if b_coefficients is not None else None)
        ctx.save_for_backward(kept_a, a_coefficients, kept_b, b_coefficients, result if relu else None)
        ctx.shape = (b is not None, pixels, channels)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        a, a_coefficients, b, b_coefficients, result = ctx.saved_tensors
        second, pixels, channels = ctx.shape
        gradient, ld_g = _rows(gradient)
        width = min(64, _power(channels))
        across, block = -(-channels // width), BLOCK // 2
        programs = _programs(pixels, block, across, MOST_PROGRAMS)
        parts = torch.empty((programs, 3, channels), dtype=torch.float32, device=gradient.device)
        masked = torch.empty_like(result) if result is not None else None
        with _on(gradient):
            kernels.add_backward[(programs, across)](
                gradient, ld_g, result, a, channels if a is None else a.stride(3), a_coefficients,
                b, channels if b is None else b.stride(3), b_coefficients, masked, parts, pixels, channels,
                NORM_A=a is not None, NORM_B=b is not None, RELU=result is not None, BP=block, BN=width,
            )  # fmt: skip
            sums = _added(parts.flatten(1))[0].view(3, channels)
        gradient = gradient if masked is None else masked
        for_a = sums[:2] if a is not None else None
        for_b = sums[::2] if b is not None else None
        return gradient, None, for_a, gradient if second else None, None, for_b, None
