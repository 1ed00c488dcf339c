"""Triton kernels of a cell network's training step: ReLU, depthwise and pointwise convolution and batch norm, several at once.

All maps lie channels-last, as rows of pixels by channels; `ld` is the distance between two rows. A batch norm is not a pass of its own:
whoever makes its input also gathers its statistics, and whoever reads its output applies `coefficients` (mean, reciprocal deviation,
scale, shift; a row of channels each) on the fly. Programs walk over blocks of pixels in a fixed order and leave partial sums, one row for
each program, which are then added up: results do not depend on which program was first.

`lifelong.networks.fused.functions` says what each is for and calls them.
"""

import triton
import triton.language as tl


@triton.jit
def _normalized(values, coefficients, channels, c, valid):
    """Apply the scale and the shift of a batch norm to a block."""
    scale = tl.load(coefficients + 2 * channels + c, mask=valid, other=0.0)
    shift = tl.load(coefficients + 3 * channels + c, mask=valid, other=0.0)
    return values * scale[None, :] + shift[None, :]


@triton.jit
def _deviations(values, coefficients, channels, c, valid):
    """Return how many deviations from the mean the values of a block lie."""
    mean = tl.load(coefficients + c, mask=valid, other=0.0)
    rstd = tl.load(coefficients + channels + c, mask=valid, other=0.0)
    return (values - mean[None, :]) * rstd[None, :]


@triton.jit
def _batch_norm_gradient(gradient, values, coefficients, sums, ld_sums, pixels, channels, c, valid):
    """Return the gradient of a batch norm's input, from that of its output and the sums over all pixels."""
    scale = tl.load(coefficients + 2 * channels + c, mask=valid, other=0.0)
    plain = tl.load(sums + c, mask=valid, other=0.0) / pixels
    along = tl.load(sums + ld_sums + c, mask=valid, other=0.0) / pixels
    deviations = _deviations(values, coefficients, channels, c, valid)
    return scale[None, :] * (gradient - plain[None, :] - deviations * along[None, :])


@triton.jit
def _store_statistics(at, distance, count, added, squared, valid):
    """Store how many values a program has seen, their mean, and the sum of their squared deviations from it."""
    total = tl.sum(added, 0)
    mean = total / count
    deviations = tl.maximum(tl.sum(squared, 0) - total * mean, 0.0)
    tl.store(at, tl.zeros_like(mean) + count, mask=valid)
    tl.store(at + distance, mean, mask=valid)
    tl.store(at + 2 * distance, deviations, mask=valid)


@triton.jit
def _seen(program, programs, pixels, BP: tl.constexpr):
    """Count the pixels of a program's blocks."""
    blocks = tl.cdiv(pixels, BP)
    own = tl.cdiv(blocks - program, programs)
    lacking = tl.where((blocks - 1) % programs == program, blocks * BP - pixels, 0)
    return (own * BP - lacking).to(tl.float32)


@triton.jit
def _reach(
    x, ld_x, x_coefficients, weight, image, row, column, c, both, channels,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TAP: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Return what one tap of a depthwise convolution contributes."""
    r = row * STRIDE + (TAP // 3 - 1) * DILATION
    q = column * STRIDE + (TAP % 3 - 1) * DILATION
    within = both & ((r >= 0) & (r < ROWS) & (q >= 0) & (q < COLUMNS))[:, None]
    at = ((image * ROWS + r) * COLUMNS + q) * ld_x
    values = tl.load(x + at[:, None] + c[None, :], mask=within, other=0.0)
    if NORM:
        values = tl.where(within, _normalized(values.to(tl.float32), x_coefficients, channels, c, c < channels), 0.0)
    return tl.maximum(values, 0.0).to(tl.float32) * weight[None, :]


@triton.jit
def convolve_depthwise(
    x, ld_x, x_coefficients, depthwise, taps, y, pixels, channels,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OUT_ROWS: tl.constexpr, OUT_COLUMNS: tl.constexpr,
    STRIDE: tl.constexpr, DILATION: tl.constexpr, NORM: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """y = depthwise(relu(norm(x))); taps = the weight as taps by channels."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    valid = c < channels
    # Weights stay in registers while the program walks over its blocks.
    w0 = tl.load(depthwise + c * 9 + 0, mask=valid, other=0.0)
    w1 = tl.load(depthwise + c * 9 + 1, mask=valid, other=0.0)
    w2 = tl.load(depthwise + c * 9 + 2, mask=valid, other=0.0)
    w3 = tl.load(depthwise + c * 9 + 3, mask=valid, other=0.0)
    w4 = tl.load(depthwise + c * 9 + 4, mask=valid, other=0.0)
    w5 = tl.load(depthwise + c * 9 + 5, mask=valid, other=0.0)
    w6 = tl.load(depthwise + c * 9 + 6, mask=valid, other=0.0)
    w7 = tl.load(depthwise + c * 9 + 7, mask=valid, other=0.0)
    w8 = tl.load(depthwise + c * 9 + 8, mask=valid, other=0.0)
    if program == 0:
        tl.store(taps + 0 * channels + c, w0, mask=valid)
        tl.store(taps + 1 * channels + c, w1, mask=valid)
        tl.store(taps + 2 * channels + c, w2, mask=valid)
        tl.store(taps + 3 * channels + c, w3, mask=valid)
        tl.store(taps + 4 * channels + c, w4, mask=valid)
        tl.store(taps + 5 * channels + c, w5, mask=valid)
        tl.store(taps + 6 * channels + c, w6, mask=valid)
        tl.store(taps + 7 * channels + c, w7, mask=valid)
        tl.store(taps + 8 * channels + c, w8, mask=valid)
    for block in range(program, tl.cdiv(pixels, BP), programs):
        p = block * BP + tl.arange(0, BP)
        both = (p < pixels)[:, None] & valid[None, :]
        column = p % OUT_COLUMNS
        row = (p // OUT_COLUMNS) % OUT_ROWS
        image = p // (OUT_COLUMNS * OUT_ROWS)
        t = tl.zeros((BP, BN), tl.float32)
        t += _reach(x, ld_x, x_coefficients, w0, image, row, column, c, both, channels, ROWS, COLUMNS, 0, STRIDE, DILATION, NORM)
        t += _reach(x, ld_x, x_coefficients, w1, image, row, column, c, both, channels, ROWS, COLUMNS, 1, STRIDE, DILATION, NORM)
        t += _reach(x, ld_x, x_coefficients, w2, image, row, column, c, both, channels, ROWS, COLUMNS, 2, STRIDE, DILATION, NORM)
        t += _reach(x, ld_x, x_coefficients, w3, image, row, column, c, both, channels, ROWS, COLUMNS, 3, STRIDE, DILATION, NORM)
        t += _reach(x, ld_x, x_coefficients, w4, image, row, column, c, both, channels, ROWS, COLUMNS, 4, STRIDE, DILATION, NORM)
        t += _reach(x, ld_x, x_coefficients, w5, image, row, column, c, both, channels, ROWS, COLUMNS, 5, STRIDE, DILATION, NORM)
        t += _reach(x, ld_x, x_coefficients, w6, image, row, column, c, both, channels, ROWS, COLUMNS, 6, STRIDE, DILATION, NORM)
        t += _reach(x, ld_x, x_coefficients, w7, image, row, column, c, both, channels, ROWS, COLUMNS, 7, STRIDE, DILATION, NORM)
        t += _reach(x, ld_x, x_coefficients, w8, image, row, column, c, both, channels, ROWS, COLUMNS, 8, STRIDE, DILATION, NORM)
        tl.store(y + p[:, None] * channels + c[None, :], t.to(y.dtype.element_ty), mask=both)


@triton.jit
def _source(p, ROWS: tl.constexpr, COLUMNS: tl.constexpr, OUT_ROWS: tl.constexpr, OUT_COLUMNS: tl.constexpr, SHIFT: tl.constexpr):
    """Return which pixel a pointwise convolution reads for a pixel of its result, and whether there is one: with SHIFT 0 or 1 every other
    row and column, from there on; with -1 the same pixel."""
    if SHIFT < 0:
        return p, p >= 0
    else:  # noqa: RET505  # Only one branch is compiled.
        row = 2 * ((p // OUT_COLUMNS) % OUT_ROWS) + SHIFT
        column = 2 * (p % OUT_COLUMNS) + SHIFT
        image = p // (OUT_COLUMNS * OUT_ROWS)
        return (image * ROWS + row) * COLUMNS + column, (row < ROWS) & (column < COLUMNS)


@triton.jit
def convolve_pointwise(
    x, ld_x, x_coefficients, pointwise, z, ld_z, statistics, ld_statistics, pixels, inputs, outputs,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OUT_ROWS: tl.constexpr, OUT_COLUMNS: tl.constexpr, SHIFT: tl.constexpr,
    READY: tl.constexpr, NORM: tl.constexpr, ONE: tl.constexpr,
    BP: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """z = pointwise(relu(norm(x))), or with READY pointwise(x); and the statistics of z by program. With ONE, BK holds all inputs."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    o = tl.arange(0, BN)
    out = o < outputs
    kind = z.dtype.element_ty
    added = tl.zeros((BP, BN), tl.float32)
    squared = added
    c = tl.arange(0, BK)
    weight = tl.load(pointwise + o[None, :] * inputs + c[:, None], mask=(c < inputs)[:, None] & out[None, :], other=0.0).to(kind)
    for block in range(program, tl.cdiv(pixels, BP), programs):
        p = block * BP + tl.arange(0, BP)
        source, exists = _source(p, ROWS, COLUMNS, OUT_ROWS, OUT_COLUMNS, SHIFT)
        inside = p < pixels
        exists = exists & inside
        if ONE:
            values = _read(x + source[:, None] * ld_x, c, exists[:, None] & (c < inputs)[None, :], x_coefficients, inputs, READY, NORM)
            total = tl.dot(values.to(kind), weight, input_precision="ieee")
        else:
            total = tl.zeros((BP, BN), tl.float32)
            for first in range(0, inputs, BK):
                k = first + tl.arange(0, BK)
                values = _read(x + source[:, None] * ld_x, k, exists[:, None] & (k < inputs)[None, :], x_coefficients, inputs, READY, NORM)
                own = tl.load(pointwise + o[None, :] * inputs + k[:, None], mask=(k < inputs)[:, None] & out[None, :], other=0.0)
                total = tl.dot(values.to(kind), own.to(kind), total, input_precision="ieee")
        result = total.to(kind)
        tl.store(z + p[:, None] * ld_z + o[None, :], result, mask=inside[:, None] & out[None, :])
        seen = result.to(tl.float32)  # Zero outside.
        added += seen
        squared += seen * seen
    count = _seen(program, programs, pixels, BP)
    _store_statistics(statistics + program * 3 * ld_statistics + o, ld_statistics, count, added, squared, out)


@triton.jit
def _read(rows, c, mask, coefficients, channels, READY: tl.constexpr, NORM: tl.constexpr):
    """Return what a pointwise convolution reads of rows of maps."""
    values = tl.load(rows + c[None, :], mask=mask, other=0.0)
    if not READY:
        values = values.to(tl.float32)
        if NORM:
            values = tl.where(mask, _normalized(values, coefficients, channels, c, c < channels), 0.0)
        values = tl.maximum(values, 0.0)
    return values


@triton.jit
def gather(x, ld_x, statistics, pixels, channels, BP: tl.constexpr, BN: tl.constexpr):
    """Gather the statistics of maps by program."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    valid = c < channels
    added = tl.zeros((BP, BN), tl.float32)
    squared = added
    for block in range(program, tl.cdiv(pixels, BP), programs):
        p = block * BP + tl.arange(0, BP)
        both = (p < pixels)[:, None] & valid[None, :]
        values = tl.load(x + p[:, None] * ld_x + c[None, :], mask=both, other=0.0).to(tl.float32)
        added += values
        squared += values * values
    _store_statistics(statistics + program * 3 * channels + c, channels, _seen(program, programs, pixels, BP), added, squared, valid)


@triton.jit
def merge(
    statistics, weight, bias, running_mean, running_var, seen, coefficients,
    programs, pixels, channels, eps, momentum,
    AFFINE: tl.constexpr, TRACK: tl.constexpr, BG: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Merge the statistics of all programs into a batch norm's coefficients, and move its running statistics."""
    g = tl.arange(0, BG)
    c = tl.program_id(0) * BN + tl.arange(0, BN)
    valid = c < channels
    both = (g < programs)[:, None] & valid[None, :]
    at = statistics + g[:, None] * (3 * channels) + c[None, :]
    counts = tl.load(at, mask=both, other=0.0)
    means = tl.load(at + channels, mask=both, other=0.0)
    squares = tl.load(at + 2 * channels, mask=both, other=0.0)
    mean = tl.sum(counts * means, 0) / pixels
    off = means - mean[None, :]
    squares = tl.sum(squares + counts * off * off, 0)
    rstd = 1.0 / tl.sqrt(squares / pixels + eps)
    scale, shift = rstd, -mean * rstd
    if AFFINE:
        scale = rstd * tl.load(weight + c, mask=valid, other=0.0)
        shift = tl.load(bias + c, mask=valid, other=0.0) - mean * scale
    tl.store(coefficients + c, mean, mask=valid)
    tl.store(coefficients + channels + c, rstd, mask=valid)
    tl.store(coefficients + 2 * channels + c, scale, mask=valid)
    tl.store(coefficients + 3 * channels + c, shift, mask=valid)
    if TRACK:
        before = tl.load(running_mean + c, mask=valid, other=0.0)
        tl.store(running_mean + c, before + momentum * (mean - before), mask=valid)
        before = tl.load(running_var + c, mask=valid, other=0.0)
        tl.store(running_var + c, before + momentum * (squares / (pixels - 1) - before), mask=valid)
        if tl.program_id(0) == 0:
            tl.store(seen, tl.load(seen) + 1)


@triton.jit
def add(
    a, ld_a, a_coefficients, b, ld_b, b_coefficients, result, pixels, channels,
    NORM_A: tl.constexpr, NORM_B: tl.constexpr, SECOND: tl.constexpr, RELU: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Compute norm(a) + norm(b), or its ReLU."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    valid = c < channels
    both = (p < pixels)[:, None] & valid[None, :]
    total = tl.load(a + p[:, None] * ld_a + c[None, :], mask=both, other=0.0).to(tl.float32)
    if NORM_A:
        total = _normalized(total, a_coefficients, channels, c, valid)
    if SECOND:
        other = tl.load(b + p[:, None] * ld_b + c[None, :], mask=both, other=0.0).to(tl.float32)
        total += _normalized(other, b_coefficients, channels, c, valid) if NORM_B else other
    if RELU:
        total = tl.maximum(total, 0.0)
    tl.store(result + p[:, None] * channels + c[None, :], total.to(result.dtype.element_ty), mask=both)


@triton.jit
def add_backward(
    gradient, ld_g, result, a, ld_a, a_coefficients, b, ld_b, b_coefficients, masked, sums, pixels, channels,
    NORM_A: tl.constexpr, NORM_B: tl.constexpr, RELU: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """For each program and channel the sum of the gradient, and its sums with the deviations of `a` and of `b`."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    valid = c < channels
    plain = tl.zeros((BP, BN), tl.float32)
    along_a, along_b = plain, plain
    for block in range(program, tl.cdiv(pixels, BP), programs):
        p = block * BP + tl.arange(0, BP)
        both = (p < pixels)[:, None] & valid[None, :]
        g = tl.load(gradient + p[:, None] * ld_g + c[None, :], mask=both, other=0.0).to(tl.float32)
        if RELU:
            positive = tl.load(result + p[:, None] * channels + c[None, :], mask=both, other=0.0) > 0
            g = tl.where(positive, g, 0.0)
            tl.store(masked + p[:, None] * channels + c[None, :], g.to(masked.dtype.element_ty), mask=both)
        plain += g
        if NORM_A:
            one = tl.load(a + p[:, None] * ld_a + c[None, :], mask=both, other=0.0).to(tl.float32)
            along_a += g * _deviations(one, a_coefficients, channels, c, valid)
        if NORM_B:
            one = tl.load(b + p[:, None] * ld_b + c[None, :], mask=both, other=0.0).to(tl.float32)
            along_b += g * _deviations(one, b_coefficients, channels, c, valid)
    at = sums + program * 3 * channels + c
    tl.store(at, tl.sum(plain, 0), mask=valid)
    tl.store(at + channels, tl.sum(along_a, 0), mask=valid)
    tl.store(at + 2 * channels, tl.sum(along_b, 0), mask=valid)


@triton.jit
def normalize_backward(gradient, ld_g, x, ld_x, coefficients, sums, ld_sums, result, pixels, channels, BP: tl.constexpr, BN: tl.constexpr):
    """Compute the gradient of a batch norm's input."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    valid = c < channels
    both = (p < pixels)[:, None] & valid[None, :]
    g = tl.load(gradient + p[:, None] * ld_g + c[None, :], mask=both, other=0.0).to(tl.float32)
    values = tl.load(x + p[:, None] * ld_x + c[None, :], mask=both, other=0.0).to(tl.float32)
    values = _batch_norm_gradient(g, values, coefficients, sums, ld_sums, pixels, channels, c, valid)
    tl.store(result + p[:, None] * channels + c[None, :], values.to(result.dtype.element_ty), mask=both)


@triton.jit
def pointwise_backward(
    gradient, ld_g, z, ld_z, coefficients, sums, ld_sums, channels, x, ld_x, x_coefficients, pointwise, for_x, for_weight, x_sums,
    pixels, inputs, outputs,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OUT_ROWS: tl.constexpr, OUT_COLUMNS: tl.constexpr, SHIFT: tl.constexpr,
    READY: tl.constexpr, NORM: tl.constexpr, BP: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of the pointwise convolution before a batch norm: of its input, and of its weight by program.

    Without READY the convolution reads relu(norm(x)); the gradient is then that of norm(x), and its sums are gathered too. The batch norm
    has `channels` channels, of which the convolution makes `outputs`; pointers lead to its first one.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    c = tl.program_id(1) * BK + tl.arange(0, BK)
    o = tl.arange(0, BN)
    valid, out = c < inputs, o < outputs
    kind = z.dtype.element_ty
    matrix = tl.load(pointwise + o[:, None] * inputs + c[None, :], mask=out[:, None] & valid[None, :], other=0.0).to(kind)
    own = tl.zeros((BN, BK), tl.float32)
    plain, along = tl.zeros((BK,), tl.float32), tl.zeros((BK,), tl.float32)
    for block in range(program, tl.cdiv(pixels, BP), programs):
        p = block * BP + tl.arange(0, BP)
        inside = p < pixels
        both = inside[:, None] & out[None, :]
        g = tl.load(gradient + p[:, None] * ld_g + o[None, :], mask=both, other=0.0).to(tl.float32)
        values = tl.load(z + p[:, None] * ld_z + o[None, :], mask=both, other=0.0).to(tl.float32)
        g = _batch_norm_gradient(g, values, coefficients, sums, ld_sums, pixels, channels, o, out)
        g = tl.where(both, g, 0.0).to(kind)
        source, exists = _source(p, ROWS, COLUMNS, OUT_ROWS, OUT_COLUMNS, SHIFT)
        both = (inside & exists)[:, None] & valid[None, :]
        raw = tl.load(x + source[:, None] * ld_x + c[None, :], mask=both, other=0.0)
        result = tl.dot(g, matrix, input_precision="ieee")
        if READY:
            read = raw
        else:
            full = raw.to(tl.float32)
            if NORM:
                full = tl.where(both, _normalized(full, x_coefficients, inputs, c, valid), 0.0)
            read = tl.maximum(full, 0.0).to(kind)
            result = tl.where(full > 0, result, 0.0)
            if NORM:
                plain += tl.sum(result, 0)
                along += tl.sum(result * _deviations(raw.to(tl.float32), x_coefficients, inputs, c, valid), 0)
        own = tl.dot(tl.trans(g), read.to(kind), own, input_precision="ieee")
        tl.store(for_x + source[:, None] * inputs + c[None, :], result.to(kind), mask=both)
    at = for_weight + program * outputs * inputs
    tl.store(at + o[:, None] * inputs + c[None, :], own, mask=out[:, None] & valid[None, :])
    if NORM:
        at = x_sums + program * 2 * inputs + c
        tl.store(at, plain, mask=valid)
        tl.store(at + inputs, along, mask=valid)


@triton.jit
def _tap(
    gradient, taps, read, total, own, image, row, column, c, both, channels,
    OUT_ROWS: tl.constexpr, OUT_COLUMNS: tl.constexpr, TAP: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr,
):  # fmt: skip
    """Add what one tap of a depthwise convolution brings back: to the gradient of its input, and to that of its weight."""
    r = row - (TAP // 3 - 1) * DILATION
    q = column - (TAP % 3 - 1) * DILATION
    if STRIDE == 2:
        within = (r >= 0) & (q >= 0) & (r % 2 == 0) & (q % 2 == 0)
        r, q = r // 2, q // 2
        within = within & (r < OUT_ROWS) & (q < OUT_COLUMNS)
    else:
        within = (r >= 0) & (q >= 0) & (r < OUT_ROWS) & (q < OUT_COLUMNS)
    at = ((image * OUT_ROWS + r) * OUT_COLUMNS + q) * channels
    g = tl.load(gradient + at[:, None] + c[None, :], mask=both & within[:, None], other=0.0).to(tl.float32)
    weight = tl.load(taps + TAP * channels + c, mask=c < channels, other=0.0)
    return total + g * weight[None, :], own + g * read


@triton.jit
def depthwise_backward(
    gradient, x, ld_x, x_coefficients, taps, for_x, sums, pixels, channels,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OUT_ROWS: tl.constexpr, OUT_COLUMNS: tl.constexpr,
    STRIDE: tl.constexpr, DILATION: tl.constexpr, NORM: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of depthwise(relu(norm(x))): of norm(x), and by program of the weight, and the sums of the first."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    valid = c < channels
    zero = tl.zeros((BP, BN), tl.float32)
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    plain, along = zero, zero
    for block in range(program, tl.cdiv(pixels, BP), programs):
        p = block * BP + tl.arange(0, BP)
        both = (p < pixels)[:, None] & valid[None, :]
        column = p % COLUMNS
        row = (p // COLUMNS) % ROWS
        image = p // (COLUMNS * ROWS)
        raw = tl.load(x + p[:, None] * ld_x + c[None, :], mask=both, other=0.0).to(tl.float32)
        full = raw
        if NORM:
            full = tl.where(both, _normalized(raw, x_coefficients, channels, c, valid), 0.0)
        read = tl.maximum(full, 0.0)
        t = zero
        t, w0 = _tap(gradient, taps, read, t, w0, image, row, column, c, both, channels, OUT_ROWS, OUT_COLUMNS, 0, STRIDE, DILATION)
        t, w1 = _tap(gradient, taps, read, t, w1, image, row, column, c, both, channels, OUT_ROWS, OUT_COLUMNS, 1, STRIDE, DILATION)
        t, w2 = _tap(gradient, taps, read, t, w2, image, row, column, c, both, channels, OUT_ROWS, OUT_COLUMNS, 2, STRIDE, DILATION)
        t, w3 = _tap(gradient, taps, read, t, w3, image, row, column, c, both, channels, OUT_ROWS, OUT_COLUMNS, 3, STRIDE, DILATION)
        t, w4 = _tap(gradient, taps, read, t, w4, image, row, column, c, both, channels, OUT_ROWS, OUT_COLUMNS, 4, STRIDE, DILATION)
        t, w5 = _tap(gradient, taps, read, t, w5, image, row, column, c, both, channels, OUT_ROWS, OUT_COLUMNS, 5, STRIDE, DILATION)
        t, w6 = _tap(gradient, taps, read, t, w6, image, row, column, c, both, channels, OUT_ROWS, OUT_COLUMNS, 6, STRIDE, DILATION)
        t, w7 = _tap(gradient, taps, read, t, w7, image, row, column, c, both, channels, OUT_ROWS, OUT_COLUMNS, 7, STRIDE, DILATION)
        t, w8 = _tap(gradient, taps, read, t, w8, image, row, column, c, both, channels, OUT_ROWS, OUT_COLUMNS, 8, STRIDE, DILATION)
        t = tl.where(full > 0, t, 0.0)
        if NORM:
            plain += t
            along += t * _deviations(raw, x_coefficients, channels, c, valid)
        tl.store(for_x + p[:, None] * channels + c[None, :], t.to(for_x.dtype.element_ty), mask=both)
    at = sums + program * 11 * channels
    tl.store(at + c * 9, tl.sum(w0, 0), mask=valid)
    tl.store(at + c * 9 + 1, tl.sum(w1, 0), mask=valid)
    tl.store(at + c * 9 + 2, tl.sum(w2, 0), mask=valid)
    tl.store(at + c * 9 + 3, tl.sum(w3, 0), mask=valid)
    tl.store(at + c * 9 + 4, tl.sum(w4, 0), mask=valid)
    tl.store(at + c * 9 + 5, tl.sum(w5, 0), mask=valid)
    tl.store(at + c * 9 + 6, tl.sum(w6, 0), mask=valid)
    tl.store(at + c * 9 + 7, tl.sum(w7, 0), mask=valid)
    tl.store(at + c * 9 + 8, tl.sum(w8, 0), mask=valid)
    tl.store(at + 9 * channels + c, tl.sum(plain, 0), mask=valid)
    tl.store(at + 10 * channels + c, tl.sum(along, 0), mask=valid)


@triton.jit
def add_up(a, a_rows, a_width, for_a, b, b_rows, b_width, for_b, BG: tl.constexpr, BN: tl.constexpr):
    """Add up the rows of two matrices of partial sums."""
    programs = tl.cdiv(a_width, BN)
    first = tl.program_id(0) < programs
    c = tl.where(first, tl.program_id(0), tl.program_id(0) - programs) * BN + tl.arange(0, BN)
    if first:
        _add_up(a, a_rows, a_width, for_a, c, BG, BN)
    else:
        _add_up(b, b_rows, b_width, for_b, c, BG, BN)


@triton.jit
def _add_up(parts, rows, width, result, c, BG: tl.constexpr, BN: tl.constexpr):
    total = tl.zeros((BG, BN), tl.float32)
    for start in range(0, rows, BG):
        g = start + tl.arange(0, BG)
        total += tl.load(parts + g[:, None] * width + c[None, :], mask=(g < rows)[:, None] & (c < width)[None, :], other=0.0)
    tl.store(result + c, tl.sum(total, 0), mask=c < width)
