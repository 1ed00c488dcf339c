"""Fewer, larger kernels for the training steps of cell networks on a GPU.

A step of a cell network is some 450 kernels, most of them passes over maps that do little arithmetic: ReLUs, batch norms, casts, sums.
Inside `fused()` cells do the same in fewer, written in Triton, which comes with PyTorch for CUDA. On other devices, in other precisions and
without Triton they run PyTorch's own layers. `LIFELONG_FUSED=0` turns the kernels off.
"""

import os
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from lifelong.networks.fused.normed import Normed

SWITCH = "LIFELONG_FUSED"
"""The environment variable that turns the kernels off with the value 0."""

WIDEST = 128
"""A pointwise convolution may have this many output channels: a block holds all of them."""

LARGEST = 2**29
"""Maps with this many elements use PyTorch's layers: kernels count in 32 bits, and a cell returns four times the elements of a node."""

_inside = threading.local()


@contextmanager
def fused(wanted: bool = True) -> Generator[None]:
    """Let cell networks use fused kernels in a block, in this thread, where they can."""
    before = getattr(_inside, "wanted", False)
    _inside.wanted = wanted
    try:
        yield
    finally:
        _inside.wanted = before


def can_fuse(x: Tensor) -> bool:
    """Tell whether maps can be computed by fused kernels, here and now."""
    # Of one image a map may come to a single pixel, which has no variance: PyTorch's own batch norm says so.
    return getattr(_inside, "wanted", False) and len(x) > 1 and x.numel() < LARGEST and supported(x)


def supported(x: Tensor) -> bool:
    """Tell whether the kernels take maps: in bfloat16, on an NVIDIA GPU from Ampere on, with a Triton that works.

    In float32 PyTorch's own layers are faster (`results/gpu.csv`).
    """
    if x.device.type != "cuda" or os.environ.get(SWITCH) == "0":
        return False
    half = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return half == torch.bfloat16 and not why_not(x.device)


@cache
def why_not(device: torch.device) -> str:
    """Return why a CUDA device does not run the kernels; empty if it does.

    Triton needs a C compiler when it first starts a kernel, which not every machine has: a small one is tried, once.
    """
    if torch.version.cuda is None:
        return "they are for NVIDIA GPUs"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "the GPU is older than Ampere"
    if find_spec("triton") is None:
        return "Triton is not installed"
    from lifelong.networks.fused import functions

    maps = torch.zeros(1, 16, 1, 1, dtype=torch.bfloat16, device=device)
    try:
        functions.total(maps, maps)
    except Exception as error:  # Whatever is wrong, PyTorch's own layers do the same.
        return f"Triton does not work here: {' '.join(str(error).split())[:200]}"
    return ""


def convolution(body: nn.Module, x: Tensor) -> Normed | None:
    """Apply ReLU and the convolutions of an operation, without its last batch norm.

    Args:
        body: layers in the order of `operations.sep_conv`, `dil_conv` or `preprocess`.
        x: maps before their ReLU.

    Returns:
        None if the body is none of these, or its batch norm does not use the statistics of its batch.
    """
    layers = [layer for layer in body.children() if not isinstance(layer, nn.ReLU)] if isinstance(body, nn.Sequential) else []
    parts = _parts(layers)
    if not parts:
        return None
    from lifelong.networks.fused import functions

    normed = functions.convolution(x, *parts[0])
    for part in parts[1:]:
        normed = functions.convolution(normed, *part)
    return normed


def _parts(layers: Sequence[nn.Module]) -> list[tuple[nn.Conv2d | None, nn.Conv2d, nn.BatchNorm2d]]:
    """Split layers into (depthwise or none, pointwise, batch norm); empty if they are anything else."""
    parts = []
    depthwise = pointwise = None
    for layer in layers:
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and depthwise is pointwise is None:
            depthwise = layer
        elif isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.out_channels <= WIDEST and pointwise is None:
            pointwise = layer
        elif isinstance(layer, nn.BatchNorm2d) and pointwise is not None and uses_batch(layer):
            parts.append((depthwise, pointwise, layer))
            depthwise = pointwise = None
        else:
            return []
    return parts if depthwise is pointwise is None else []


def uses_batch(batch_norm: nn.BatchNorm2d) -> bool:
    """Tell whether a batch norm uses the statistics of its batch, and moves its running ones, if it has any, by a fixed momentum."""
    return batch_norm.running_mean is None or (batch_norm.training and batch_norm.momentum is not None)


def reduction(x: Tensor, even: nn.Conv2d, odd: nn.Conv2d, batch_norm: nn.Module) -> Normed | None:
    """Apply ReLU and halve maps by two pointwise convolutions, without the batch norm; None if it does not use its batch's statistics."""
    if not (isinstance(batch_norm, nn.BatchNorm2d) and uses_batch(batch_norm) and batch_norm.num_features <= WIDEST):
        return None
    from lifelong.networks.fused import functions

    return functions.reduction(x, even, odd, batch_norm)


def statistics(x: Tensor, batch_norm: nn.Module) -> Normed | None:
    """Gather what batch norm needs of maps; None if it does not use the statistics of its batch."""
    if not (isinstance(batch_norm, nn.BatchNorm2d) and uses_batch(batch_norm)):
        return None
    from lifelong.networks.fused import functions

    return functions.statistics(x, batch_norm)


def total(first: Tensor | Normed, second: Tensor | Normed | None = None, *, relu: bool = False) -> Tensor:
    """Add maps, each after its batch norm if it has one to come, and apply a ReLU if that is wanted."""
    from lifelong.networks.fused import functions

    return functions.total(first, second, relu=relu)
