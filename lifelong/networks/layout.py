"""Device-dependent choices of cell networks: the memory order of maps, and the faster of two equivalent computations.

Measured on an NVIDIA H100 (`docs/devices.md`). In channels-last order PyTorch's depthwise convolutions are three to four times as fast
there as in the plain one, and batch norm twice; what is slow, 1x1 convolutions in float32 and dilated depthwise ones, has a way around it.
"""

import torch
from torch import Tensor


def on_cpu(x: Tensor) -> bool:
    """Tell whether maps are on a CPU, where results stay equal to the first version's, to the bit."""
    return x.device.type == "cpu"


def layout(x: Tensor) -> torch.memory_format:
    """Return the memory format in which cell networks run fastest: channels last, except on Apple's GPUs.

    Args:
        x: maps, or a tensor about to become maps.
    """
    return torch.contiguous_format if x.device.type == "mps" else torch.channels_last


def autocast_to(device: str) -> torch.dtype | None:
    """Return the type to which autocast casts operations on a kind of device; None outside autocast or if it is not supported."""
    known = torch.amp.is_autocast_available(device)
    return torch.get_autocast_dtype(device) if known and torch.is_autocast_enabled(device) else None
