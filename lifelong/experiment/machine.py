"""On what a run ran: recorded beside its numbers."""

import os
import platform
import resource
from pathlib import Path
from typing import Literal

import torch

from lifelong.errors import LifelongError


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device of a run.

    Raises:
        LifelongError: CUDA was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise LifelongError("--device cuda: PyTorch finds no CUDA device here; use --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def machine_name(device: torch.device) -> str:
    """The processor (and accelerator) in words, such as "AMD EPYC, 2 cores"."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    words = f"{model}, {os.cpu_count()} cores"
    return f"{words}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else words


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes."""
    kilobytes = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes
