"""Peak memory, against a limit and not against another program: `ratio` is the limit over what was needed.

Two rows: the main job, PAR on the embedded digits as `make run` starts it; and one task of the paper's size, phase by phase: a cell
search, the training of an expert, and distillation into it, with 64 channels, images of 32x32 and batches of 64. Either is a process of
its own. A peak is the resident memory of that process, which holds PyTorch itself and what the C library keeps of freed memory. A search
draws networks at random, some of which keep twice as much as others: the peak is that of the largest of 32.

    python -m benchmarks.memory [--quick]       prints the rows
    python -m benchmarks memory                 adds them to results/speed.csv
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lifelong.data.task import Augmentation, Normalization, Split
from lifelong.experiment.machine import peak_memory
from lifelong.methods.distillation import distillation_loss
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import DARTS_V2
from lifelong.search.mdl import search_cell
from lifelong.settings.par import PARSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import fit
from lifelong.training.malloc import keep_freed_memory
from lifelong.training.stages import Stage

LIMIT = 1.2e9
"""Of the main job, in bytes."""

TASK_LIMIT = 2e9
"""Of a task of the paper's size."""

CLASSES = 10


def main(quick: bool = False) -> list[dict[str, object]]:
    """Run both and read their peaks.

    Args:
        quick: two epochs of everything for the main job, and 8 channels for the task.

    Returns:
        For each its name, limit over peak, seconds, and a description with the peak.
    """
    return [main_job(quick), task(quick)]


def main_job(quick: bool) -> dict[str, object]:
    """Run `make run`, which records its own peak."""
    short = ["--epochs", "2", "--search-epochs", "2"] if quick else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "lifelong", "compare", "--stream", "digits", "--preset", "quick", "--out", str(out), *short]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - started
        peak = max(json.loads(file.read_text())["peak_memory_bytes"] for file in out.glob("*/summary.json"))
    return _row("memory of make run", peak, LIMIT, seconds, "ours = seconds of the whole comparison")


def task(quick: bool) -> dict[str, object]:
    """Run the phases of a task one after another in one process."""
    sizes = {"channels": 8, "train": 128, "valid": 64} if quick else {"channels": 64, "train": 512, "valid": 512}
    code = f"from benchmarks.memory import run_phases; run_phases(**{sizes})"
    started = time.perf_counter()
    found = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    seconds = time.perf_counter() - started
    peaks: dict[str, int] = json.loads(found.stdout)
    phases = ", ".join(f"{name} {peak / 1e9:.2f}" for name, peak in peaks.items())
    what = f"GB by phase: {phases}; C={sizes['channels']}, images of 32x32, batch 64; ours = seconds of all"
    return _row("memory of a task", max(peaks.values()), TASK_LIMIT, seconds, what)


def _row(name: str, peak: int, limit: float, seconds: float, more: str) -> dict[str, object]:
    detail = f"peak {peak / 1e9:.2f} GB against a limit of {limit / 1e9:g} GB: ratio = limit / peak; {more}"
    return {"name": name, "ratio": limit / peak, "ours_s": seconds, "plain_s": float("nan"), "parity": 0.0, "detail": detail}


def run_phases(channels: int, train: int, valid: int) -> None:
    """Run the phases in this process, and print the peak of each in bytes as JSON.

    Args:
        channels: channels C of all cells.
        train: training images.
        valid: validation images.
    """
    keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    images, labels = _images(train, generator)
    normalization, augmentation = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), Augmentation(crop=4, flip=True)
    examples = Examples(images, labels, *_images(valid, generator), normalization, augmentation)
    training = TrainingSettings(epochs=1, batch_size=64, patience=0)
    torch.manual_seed(0)
    expert, heads = CellNetwork(DARTS_V2, channels), [nn.Linear(4 * channels, CLASSES) for _ in range(2)]

    def search() -> None:
        # A network for each batch: as many as 8 epochs of 4 batches draw.
        settings = replace(PARSettings(), search_epochs=8, search_sampling="batch")
        split, stage = Split(images, labels), Stage("search", 0)
        search_cell(split, CLASSES, settings, training, stage, normalization=normalization, augmentation=augmentation, channels=channels)

    def learn() -> None:
        network = nn.Sequential(expert, heads[0])
        fit(network, examples, network, training, Stage("train", 0))

    def distill() -> None:
        trained = nn.ModuleList([expert, heads[1]])
        loss = distillation_loss(expert, heads[1], heads[:1], examples, weight=1.0, temperature=2.0)
        fit(trained, examples, lambda inputs: heads[1](expert(inputs)), training, Stage("distill", 0), loss=loss)

    print(json.dumps({name: _peak(phase) for name, phase in (("search", search), ("training", learn), ("distillation", distill))}))


def _images(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random images and labels."""
    images = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return images, torch.randint(CLASSES, (count,), generator=generator)


def _peak(phase: Callable[[], None]) -> int:
    """Return the peak of a phase in bytes; where the system cannot reset it, that of the process so far."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    phase()
    peak = peak_memory()
    assert peak is not None, "this system does not say how large a process is"
    return peak


if __name__ == "__main__":
    for one in main(quick="--quick" in sys.argv):
        print(one)
