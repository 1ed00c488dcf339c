"""Part 6: what is interrupted and continued on the device comes to the end of what is not.

First a training with crops, mirroring and dropout whose sums have a fixed order on every device: it must give the same bits. Then a run
that is killed (SIGKILL). The sums of convolutions and pools on a GPU have no fixed order, so that only its accuracies can be compared.
"""

import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lifelong
from benchmarks.gpu.report import Report
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.steps import CLASSES, NORMALIZATION, POLICY
from benchmarks.rows import ROOT
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import fit
from lifelong.training.stages import Epoch, Stage, seeded

STOPS = (1, 2, 4)
"""Epochs after which a training is stopped."""

PATIENCE = 120.0
"""Seconds that a run is given to save its first state."""


def measure(report: Report, scale: Scale, device: torch.device, scratch: Path, deadline: float) -> None:
    """Add rows: how far interrupted and uninterrupted ones differ."""
    straight = trained(device, Stage("train", 5))
    for epoch in STOPS:
        folder = scratch / f"stopped-{epoch}"
        with suppress(KeyboardInterrupt):
            trained(device, Stage("train", 5, folder=folder, save_every=0.0, listener=partial(stop, epoch)))
        resumed = trained(device, Stage("train", 5, folder=folder, save_every=0.0))
        report.add(
            "resume", f"largest difference of weights, stopped after epoch {epoch} and not", float((straight - resumed).abs().max()), ""
        )
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
    whole = lifelong.run(stream, "par", out=scratch / "straight", progress=False, **settings)
    pairs = [(a, b) for one, other in zip(resumed["accuracy"], whole["accuracy"], strict=True) for a, b in zip(one, other, strict=True)]
    detail = f"PAR, {stream}; killed with {states} saved; AP {resumed['ap']:.4f} and {whole['ap']:.4f}"
    report.add("resume", "largest difference of accuracies, killed and not", max(abs(a - b) for a, b in pairs), "", detail)


def stop(last: int, epoch: Epoch) -> None:
    """Stop after an epoch, as Ctrl-C does."""
    if epoch.epoch == last:
        raise KeyboardInterrupt


def trained(device: torch.device, stage: Stage) -> Tensor:
    """All weights of a dense network after a training that draws crops, mirrorings and dropped units."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (200, 3, 16, 16), generator=generator, dtype=torch.uint8).to(device)
    labels = torch.randint(CLASSES, (200,), generator=generator).to(device)
    with seeded(0):
        network = nn.Sequential(nn.Flatten(), nn.Linear(768, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, CLASSES)).to(device)
    examples = Examples(images, labels, images[:50], labels[:50], NORMALIZATION, POLICY)
    fit(network, examples, network, TrainingSettings(epochs=max(STOPS) + 2, batch_size=32, lr=0.05, patience=0), stage)
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


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
