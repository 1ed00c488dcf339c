"""Part 7: PAR on the whole CIFAR100-10 with the preset `paper` (100 epochs of search, 100 of training, one weight decay), seed 0.

A row for each task as it is learned, and one for the end: AP, AF, parameters, minutes, next to the paper's 0.853 (Table 3). It stops when
the benchmark's time is over, and the rows so far stay. The run's folder lies next to the rows; called again, the benchmark continues it.
"""

import os
import time
from pathlib import Path
from typing import Any

import torch

import lifelong
from benchmarks.gpu.report import Report
from benchmarks.gpu.scale import Scale
from lifelong.experiment.observer import Observer
from lifelong.records.task import TaskRecord
from lifelong.training.stages import Epoch

PAPER_AP = 0.853
STREAM, TINY_STREAM = "cifar100-10", "digits?tasks=2"


class OutOfTimeError(Exception):
    """The benchmark's time is over."""


class Rows(Observer):
    """A row for each task; stops the run when the time is over."""

    def __init__(self, report: Report, about: str, deadline: float) -> None:
        self.report, self.about, self.deadline = report, about, deadline
        self.started = time.monotonic()

    def epoch(self, event: Epoch) -> None:
        """Look at the clock."""
        if time.monotonic() > self.deadline:
            raise OutOfTimeError

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """Write what the task came to."""
        minutes = (time.monotonic() - self.started) / 60
        phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in (record.seconds_by_phase or {}).items() if (seconds or 0) >= 0.1)
        detail = f"{self.about}; {record['decision']}; {minutes:.2f} min so far; {phases}"
        self.report.add("stream", f"accuracy on task {index + 1}", accuracy[-1], "", detail)


def measure(report: Report, scale: Scale, device: torch.device, scratch: Path, deadline: float) -> None:
    """Run the stream in bf16, and again in float32 if there is time."""
    data = os.environ.get("LIFELONG_DATA")
    whole = scale.channels >= 64
    if whole and (data is None or not (Path(data) / "cifar100").is_dir()):
        report.add("stream", "skipped", None, "", "no CIFAR-100 below LIFELONG_DATA")
        return
    settings: dict[str, Any] = {} if whole else {"preset": "quick", "init_channels": 4, "search_epochs": 1, "epochs": 1}
    stream = STREAM if whole else TINY_STREAM
    taken = 0.0
    for precision in ("bf16", "float32") if whole else ("float32",):
        if taken and deadline - time.monotonic() < taken:
            return  # The other precision takes longer.
        about = f"{stream}, {precision}"
        out = report.path.parent / f"gpu-{stream.partition('?')[0]}-{precision}"
        listener = Rows(report, about, deadline)
        try:
            summary = lifelong.run(stream, "par", 0, out=out, device=str(device), precision=precision, progress=listener, **settings)
        except OutOfTimeError:
            report.add("stream", "stopped", None, "", f"{about}: the time was over")
            return
        taken = time.monotonic() - listener.started
        minutes = taken / 60
        detail = f"{about}; AF {summary['af']:.4f}, M {summary['parameters']}, {minutes:.2f} min; the paper: AP {PAPER_AP}"
        report.add("stream", "AP", summary.ap, "", detail)
