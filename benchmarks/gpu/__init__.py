"""What a GPU is worth to this library: one command, most important parts first, every row written as it is measured.

    python -m benchmarks gpu [--out FILE] [--minutes 8] [--parts parity,steps,...] [--device cuda] [--tiny]

Eight minutes are enough on an H100. Without a GPU it runs a tiny version of every part on the CPU, which takes seconds and is a test of
the script. Parts whose images or weights are not there (LIFELONG_DATA, LIFELONG_WEIGHTS) are skipped, and the rows say so.
"""

import argparse
import importlib
import os
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.gpu.report import Report
from benchmarks.gpu.scale import FULL, TINY
from lifelong.experiment.machine import choose_device
from lifelong.training.denormals import flush_denormals

PARTS = {
    "parity": "every method: trained on the CPU and on the device, eagerly and replayed",
    "steps": "training steps per second of an expert, in every variant, compared with plain loops",
    "phases": "an epoch of a search, an epoch of a distillation, the distances of a task",
    "card": "how near a training step is to what the card's memory allows",
    "candidates": "candidates of one shape: in turn, on streams of their own, stacked in one network",
    "resume": "a run that is killed and continued, next to one that is not",
    "stream": "PAR on the whole CIFAR100-10",
}
"""The parts in their order, and what each is about."""


def main(arguments: list[str]) -> int:
    """Run the parts, and write a row for everything that was measured.

    Args:
        arguments: of the command line, after the name of the benchmark.

    Returns:
        The exit code: 1 if a part failed.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=(__doc__ or "").splitlines()[0])
    folder = Path(os.environ.get("OUT", "results"))
    parser.add_argument("--out", type=Path, default=folder / "gpu.csv", help="the CSV file that rows are added to (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=8.0, help="the last part stops when they are over (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts, in this order (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="where to measure (default: cuda if there is one)")
    parser.add_argument("--tiny", action="store_true", help="the small sizes that a CPU takes by itself")
    options = parser.parse_args(arguments)
    chosen = options.parts.split(",")
    if strangers := [name for name in chosen if name not in PARTS]:
        parser.error(f"no part named {', '.join(strangers)}; there are: {', '.join(PARTS)}")
    deadline = time.monotonic() + 60 * options.minutes
    device = choose_device(options.device)
    flush_denormals()
    scale = TINY if options.tiny or device.type == "cpu" else FULL
    if scale is TINY:
        torch.set_num_threads(1)  # Nothing is large enough to be shared.
    console = Console()
    report = Report(options.out, device, console)
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen:
            console.print(f"{name}: {PARTS[name]} ({deadline - time.monotonic():.0f} s left)", highlight=False)
            part = importlib.import_module(f"benchmarks.gpu.{name}")
            started = time.monotonic()
            try:
                part.measure(report, scale, device, Path(scratch), deadline)
            except Exception as error:  # The other parts are still worth their time.
                failed.append(name)
                report.add(name, "failed", None, "", f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
            report.add(name, "the whole part", time.monotonic() - started, "s")
    console.print(f"rows are in {options.out}", highlight=False)
    return 1 if failed else 0
