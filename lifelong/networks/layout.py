"""What the kind of device decides about how cell networks compute: the order of maps in memory, and which of two equal ways is faster.

Measured on an NVIDIA H100 (`docs/devices.md`). In channels-last order PyTorch's depthwise convolutions are three to four times as fast
there as in the plain one, and batch norm twice; what is slow, 1x1 convolutions in float32 and dilated depthwise ones, has a way around it.
"""

import torch
from torch import Tensor


def on_cpu(x: Tensor) -> bool:
    """Whether maps are on a CPU, where results stay what they were in the first version, to the bit."""
    return x.device.type == "cpu"


def layout(x: Tensor) -> torch.memory_format:
    """The memory format in which cell networks run fastest: channels last, but on Apple's GPUs.

    Args:
        x: maps, or what is about to become maps.
    """
    return torch.contiguous_format if x.device.type == "mps" else torch.channels_last


def autocast_to(device: str) -> torch.dtype | None:
    """The type that operations on a kind of device are cast to here; None outside autocast, and on devices that have none."""
    known = torch.amp.is_autocast_available(device)
    return torch.get_autocast_dtype(device) if known and torch.is_autocast_enabled(device) else None
