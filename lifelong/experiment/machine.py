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


SMALL_IMAGES = 16
"""Up to this many pixels a side, the operations of a network are too short to be shared among threads."""


def set_threads(threads: int, image_size: int, at_once: int = 1) -> int:
    """Set and return the number of threads that compute.

    Networks on tiny images run slower on several threads than on one, and many times slower on a machine that has other work.

    Args:
        threads: how many; 0: one for images of up to 16 pixels a side, all cores for larger ones.
        image_size: height and width of the stream's largest images.
        at_once: how many runs share the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chosen = threads or (1 if image_size <= SMALL_IMAGES else max(1, cores // at_once))
    torch.set_num_threads(chosen)
    return chosen


def processor_name() -> str:
    """Return the processor's model, such as "AMD EPYC"."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def arithmetic(device: torch.device, threads: int) -> dict[str, str]:
    """Return what decides the last bit of a sum, each in words: processor and its instructions, accelerator, PyTorch, threads."""
    return {
        "processor": f"{processor_name()} ({torch.backends.cpu.get_cpu_capability()})",
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else "no accelerator",
        "torch": f"torch {torch.__version__}",
        "threads": f"{threads} {'thread' if threads == 1 else 'threads'}",
    }


def machine_name(device: torch.device) -> str:
    """The processor (and accelerator) in words, such as "AMD EPYC, 2 cores"."""
    words = f"{processor_name()}, {os.cpu_count()} cores"
    return f"{words}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else words


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: there, a program that a large one has started begins with that one's peak.
        marks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        if marks:
            return int(marks[0]) * 1024
    kilobytes = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes
