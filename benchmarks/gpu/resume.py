"""Part 6: a run on the device that is killed (SIGKILL) and continued comes to the end of one that is not.

The random numbers are the same; sums on a GPU have no fixed order everywhere, so that what is compared is the accuracy after every task.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import lifelong
from benchmarks.gpu.report import Report
from benchmarks.gpu.scale import Scale
from benchmarks.rows import ROOT

PATIENCE = 120.0
"""Seconds that a run is given to save its first state."""


def measure(report: Report, scale: Scale, device: torch.device, scratch: Path, deadline: float) -> None:
    """Add a row: how far the accuracies of the two runs differ."""
    stream = f"digits?tasks={scale.tasks}"
    small = scale.channels < 16
    settings: dict[str, Any] = {
        "preset": "quick",
        "init_channels": min(scale.channels, 16),
        "search_epochs": 2 if small else 10,
        "epochs": 3 if small else 20,
        "save_every": 0.0,
        "device": str(device),
    }
    flags = [part for key, value in settings.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    killed = scratch / "killed"
    command = [sys.executable, "-m", "lifelong", "run", "--stream", stream, "--method", "par", "--out", str(killed), *flags]
    states = kill(command, killed)
    resumed = lifelong.run(stream, "par", out=killed, progress=False, **settings)
    straight = lifelong.run(stream, "par", out=scratch / "straight", progress=False, **settings)
    pairs = [(a, b) for one, other in zip(resumed["accuracy"], straight["accuracy"], strict=True) for a, b in zip(one, other, strict=True)]
    detail = f"PAR, {stream}; killed with {states} saved; AP {resumed['ap']:.4f} and {straight['ap']:.4f}"
    report.add("resume", "largest difference of accuracies, killed and not", max(abs(a - b) for a, b in pairs), "", detail)


def kill(command: list[str], folder: Path) -> str:
    """Start a run, and kill it as soon as it has saved a state in the midst of a task; what it had saved, in words."""
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            while time.monotonic() - started < PATIENCE:
                stages = sorted(path.name for path in folder.glob("checkpoint/stages/*/*.safetensors"))
                if stages:
                    return ", ".join(stages)
                if process.poll() is not None:
                    raise RuntimeError(f"the run ended before it could be killed: {process.communicate()[1][-300:]}")
                time.sleep(0.02)
            raise RuntimeError(f"the run saved nothing within {PATIENCE:.0f} s")
        finally:
            process.kill()
