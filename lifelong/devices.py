"""Differences between devices that computations must respect: Apple's GPUs (mps) have no float64; and the processor's name."""

import platform
from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

WITHOUT_FLOAT64 = {"mps"}
"""Kinds of devices that have no float64."""


def widest(device: torch.device) -> torch.dtype:
    """Return the widest floating-point numbers that a device has: float64, or else float32."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def exact_device(device: torch.device | str) -> torch.device:
    """Return where to compute in float64 with tensors of a device: there, or else on the CPU."""
    place = torch.device(device)
    return torch.device("cpu") if place.type in WITHOUT_FLOAT64 else place


def exact(tensor: Shaped[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Return a tensor in float64: on its device, or on the CPU if the device has no float64 (then the host waits for a copy)."""
    return tensor.to(exact_device(tensor.device)).double()


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all numbers in tensors of one device are finite; integers always are. The host waits for the device once."""
    found = [tensor.detach().isfinite().all() for tensor in tensors if tensor.is_floating_point()]
    return not found or bool(torch.stack(found).all())


def processor_name() -> str:
    """Return the processor's model, such as "AMD EPYC"."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
