"""Set the precision in which networks train: float32, TF32 on tensor cores, or bfloat16 by autocast.

Only the forward pass and the loss of a training step (and of a search) are computed in the chosen precision, with the gradients that
follow from them. Weights, their updates, batch-norm statistics, validation, answers, Fisher information, the bases of GPM, features,
prototypes and divergences stay in float32 or float64.

``auto`` is float32 everywhere: results do not depend on what a processor or card is fast at. `docs/devices.md` says what was measured.
"""

import threading
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch
from torch import nn

from lifelong.errors import LifelongError
from lifelong.networks.fused import fused, why_not
from lifelong.settings.training import Precision, TrainingSettings

SMALLEST = 16
"""The smallest height and width, in pixels, of images for training in bfloat16 on a CPU. Smaller ones come to maps of a single pixel before
the last stride, and there oneDNN's gradient of a strided convolution's weights reads memory that nobody has written (PyTorch 2.13)."""

SLOW = 1.5
"""A run warns if a convolution takes more than this many times as long in bfloat16 as in float32."""


def resolved(precision: Precision) -> Precision:
    """Replace "auto" by the precision it stands for."""
    return "float32" if precision == "auto" else precision


def use_precision(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Compute the operations of a block on a device in a precision.

    Args:
        precision: as in `TrainingSettings`.
        device: where the tensors are.
    """
    precision = resolved(precision)
    if precision == "bf16":
        # Casts are not cached: each weight is used once a step, and a cached cast would outlive a recorded step.
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
    return _tf32(precision == "tf32") if device.type == "cuda" else nullcontext()


@contextmanager
def step_precision(precision: Precision, device: torch.device, *, compiled: bool = False) -> Generator[None]:
    """Compute the forward pass and the loss of a training step in a precision, with fused kernels where there are any.

    Args:
        precision: as in `TrainingSettings`.
        device: where the tensors are.
        compiled: the networks are compiled, which fuses kernels in its own way.
    """
    with use_precision(precision, device), fused(not compiled):
        yield


@contextmanager
def _tf32(allowed: bool) -> Generator[None]:
    """Allow or forbid TF32 in convolutions and matrix products on CUDA during a block (PyTorch's own default is mixed)."""
    global _host
    own = (allowed, "high" if allowed else "highest")
    with _switching:
        if not _entered:
            _host = (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())
        _entered.append(own)
        _switch(*own)
    try:
        yield
    finally:
        with _switching:
            # Threads leave their blocks in any order: the last one leaves what the first one found. Equal blocks are alike.
            del _entered[len(_entered) - 1 - _entered[::-1].index(own)]
            _switch(*(_entered[-1] if _entered else _host))


_switching = threading.Lock()

_entered: list[tuple[bool, str]] = []
"""The blocks that threads are in, the last one entered at the end: PyTorch has one switch for the whole process."""

_host = (True, "highest")


def _switch(convolutions: bool, products: str) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)


def exact_float32(device: torch.device) -> AbstractContextManager[object]:
    """Compute a block in exact float32 on a device: nothing is rounded to TF32 unless a training step asks for it."""
    return use_precision("float32", device)


def check_training(settings: TrainingSettings, device: torch.device, image_size: int) -> list[str]:
    """Check that a device can compute in the precision that training asks for, and that compiling can pay there.

    Args:
        settings: `precision` and `compile` are checked.
        device: where networks train.
        image_size: height and width of the smallest images, in pixels.

    Returns:
        What the user should know, one line for each point.

    Raises:
        LifelongError: the device lacks the precision, the images are too small for it, or networks are to be compiled without
            a CUDA GPU.
    """
    if settings.compile and device.type != "cuda":
        raise LifelongError(f"--compile pays on a CUDA GPU only, and this run computes on {device.type}; leave it out")
    precision = resolved(settings.precision)
    if precision == "tf32" and not (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)):
        raise LifelongError(f"--precision tf32: {device} has no TF32 (NVIDIA GPUs have it from Ampere on); use float32 or bf16")
    if precision != "bf16":
        return []
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise LifelongError(f"--precision bf16: {device} has no bfloat16 units (NVIDIA GPUs have them from Ampere on); use float32")
    if device.type == "cpu" and image_size < SMALLEST:
        raise LifelongError(
            f"--precision bf16: on a CPU images must be at least {SMALLEST} pixels wide and high, and some of these are {image_size};"
            " use float32"
        )
    if device.type == "cpu" and (slowdown := bf16_slowdown()) > SLOW:
        return [f"--precision bf16: this CPU is {slowdown:.0f} times slower in bfloat16 than in float32"]
    if device.type == "cuda" and not settings.compile and (reason := why_not(device)):
        return [f"--precision bf16: cells train without fused kernels, because {reason}"]
    return []


@cache
def bf16_slowdown() -> float:
    """Measure, once, how many times longer than in float32 this processor takes for a convolution and its gradients in bfloat16.

    Processors with AVX-512 BF16 or AMX take about half as long, others up to twenty times as long.
    """
    layer = nn.Conv2d(32, 32, 1, bias=False)
    images = torch.ones(16, 32, 16, 16).contiguous(memory_format=torch.channels_last)

    def seconds(dtype: torch.dtype) -> float:
        convolution, inputs = layer.to(dtype), images.to(dtype)
        best = float("inf")
        for _ in range(4):
            started = time.perf_counter()
            convolution(inputs).sum().backward()
            best = min(best, time.perf_counter() - started)
            convolution.zero_grad()
        return best

    return seconds(torch.bfloat16) / seconds(torch.float32)


@contextmanager
def compiled(module: nn.Module, wanted: bool) -> Generator[None]:
    """Run the parts of a module compiled (`torch.compile`) during a block, if that is wanted.

    The parts are compiled, not the whole, since losses call them one by one.
    """
    parts = [part for part in module.children() if any(True for _ in part.parameters())] or [module] if wanted else []
    for part in parts:
        part.compile()
    try:
        yield
    finally:
        for part in parts:
            part._compiled_call_impl = None
