"""Choose the device and the threads of a run, and describe the machine for its records."""

import gc
import os
import platform
import re
from contextlib import suppress
from pathlib import Path

import torch

from lifelong import __version__
from lifelong.devices import processor_name
from lifelong.errors import LifelongError
from lifelong.settings.device import ACCELERATORS, Device, parse_device
from lifelong.training.malloc import return_freed_memory

try:
    import resource
except ImportError:  # Windows has none.
    resource = None


def choose_device(name: Device) -> torch.device:
    """Find the device that a name means on this machine.

    Raises:
        LifelongError: there is no device of this name, or not on this machine.
    """
    kind, number = parse_device(name)
    if kind == "auto":
        return torch.device(next((each for each in ACCELERATORS if _count(each)), "cpu"))
    if kind == "cpu":
        return torch.device(kind)
    count = _count(kind)
    if not count:
        raise LifelongError(f"--device {name}: PyTorch {torch.__version__} finds no {kind} device here; use --device cpu or auto")
    if number is not None and number >= count:
        known = f"{kind}:0" if count == 1 else f"{kind}:0 to {kind}:{count - 1}"
        raise LifelongError(f"--device {name}: there is no such card here, only {known}; give one of these")
    return torch.device(kind) if number is None else torch.device(kind, number)


def one_of_several(name: Device, place: int) -> Device:
    """Return the device of one of several parallel runs: where the machine has several GPUs, they take turns.

    Args:
        name: the device that was asked for; one with a number is kept.
        place: number of the run among the parallel ones, from 0.
    """
    kind, number = parse_device(name)
    if number is not None or kind not in ("auto", "cuda") or (count := _count("cuda")) < 2:
        return name
    return f"cuda:{place % count}"


def _count(kind: str) -> int:
    """Count the accelerators of a kind."""
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = torch.get_device_module(kind)
    return module.device_count() if module.is_available() else 0


SMALL_IMAGES = 16
"""Largest image side, in pixels, at which a network's operations are too short to be split among threads."""


def set_threads(threads: int, image_size: int, at_once: int = 1) -> int:
    """Set and return the number of CPU threads.

    On tiny images, networks run slower with several threads than with one, and many times slower on a busy machine.

    Args:
        threads: number of threads; 0: that of the variable OMP_NUM_THREADS, else 1 for images up to 16×16 pixels and all cores for
            larger ones.
        image_size: height and width of the stream's largest images.
        at_once: number of runs that share the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = max(1, cores // at_once)
    allowed = threads_of_environment()
    # Parallel runs share the cores even if the environment allows each of them more.
    own = shared if allowed is None or at_once > 1 else allowed
    usual = min(own, allowed) if allowed is not None else 1 if image_size <= SMALL_IMAGES else own
    chosen = threads or usual
    torch.set_num_threads(chosen)
    return chosen


def threads_of_environment() -> int | None:
    """Return the number of threads that OMP_NUM_THREADS allows; None if it is not set to a positive integer."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if re.fullmatch(r"0*[1-9][0-9]{0,3}", first) else None


def arithmetic(device: torch.device, threads: int) -> dict[str, str]:
    """Return everything that affects the last bit of a sum, in words: processor and its instructions, accelerator, PyTorch, threads."""
    return {
        "processor": f"{processor_name()} ({torch.backends.cpu.get_cpu_capability()})",
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else "no accelerator",
        "torch": f"torch {torch.__version__}",
        "threads": f"{threads} {'thread' if threads == 1 else 'threads'}",
    }


def made_with(device: torch.device, threads: int) -> dict[str, str]:
    """Return everything besides the settings that affects a run's numbers, in words; recorded with each task and in each file of a run."""
    return {"library": f"lifelong {__version__}"} | arithmetic(device, threads)


def machine_name(device: torch.device) -> str:
    """Return the processor and the accelerator in words, such as "AMD EPYC, 2 cores, NVIDIA H100"."""
    words = f"{processor_name()}, {os.cpu_count()} cores"
    if device.type == "cuda":
        return f"{words}, {torch.cuda.get_device_name(device)}"
    return words if device.type == "cpu" else f"{words}, its GPU ({device.type})"


def out_of_memory(error: Exception) -> bool:
    """Tell whether an error means that memory is exhausted; on CPUs PyTorch has no error class for this."""
    said = ("can't allocate memory", "not enough memory", "size calculation overflowed", "exceeds the maximum", "Overflow when unpacking")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in str(error) for words in said)


def watch_device_memory(device: torch.device) -> None:
    """Reset `peak_device_memory`."""
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(device)


def peak_device_memory(device: torch.device) -> int | None:
    """Return the peak number of bytes in tensors of this process on a device since `watch_device_memory`; None if it is not counted.

    PyTorch takes more memory than this: its cache for new tensors, and some hundred megabytes for itself.
    """
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def give_memory_back() -> None:
    """Return what this process has freed to the system, and let `peak_memory` begin anew where the system allows it (Linux).

    For a process of the library's own, between two runs.
    """
    gc.collect()
    return_freed_memory()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_memory() -> int | None:
    """Return the largest resident memory of this process so far, in bytes; None if the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: its peak includes that of the program that started this one.
        marks = [line.split()[1] for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")]
        if marks:
            return int(marks[0]) * 1024
    kilobytes = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes if resource else None
