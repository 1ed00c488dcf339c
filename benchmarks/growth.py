"""What one more task costs after many: `python -m benchmarks growth`.

A stream of tiny tasks from the embedded digits (two classes, 24 training images of 8x8) is learned by one method in a process of its own.
For each task are measured: the processor time of learning it, and that of all else (judging, digests, saving, records), of which judging
by itself; the bytes written, as the system counts them; the resident memory. Each row is the median over the last ten tasks before the
count that it names. One task before its end the run is stopped. It is then opened to predict with, its report is written, and the command
that started it is given again, until it learns. Times are processor time, since other programs share the machine.

    python -m benchmarks growth --methods par,finetune --tasks 300 --out growth.csv
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import commit
from lifelong.api import configure
from lifelong.experiment.machine import machine_name
from lifelong.experiment.observer import Observer
from lifelong.experiment.results import read_summary
from lifelong.experiment.run import run
from lifelong.learner import Learner
from lifelong.records.task import TaskRecord
from lifelong.report.html import write_report
from lifelong.settings.run import Environment

COUNTS = (20, 100, 300, 1000)
METHODS = ("par", "finetune", "independent", "ewc", "mntdp-d")
LAST = 10
"""Tasks of which a row has the median."""

HERE = Environment(device="cpu", threads=1)


def stream(tasks: int) -> str:
    """Return a stream of so many tasks as TOML: pairs of digits, turned and inverted, drawn from a fixed list."""
    lines = ['name = "many"', "image_size = 8", "augment = false"]
    for index in range(tasks):
        first = index * 7 % 10
        second = (first + 1 + index // 10 % 9) % 10
        lines += [
            "[[task]]",
            f'name = "task {index + 1}"',
            'source = "digits"',
            f'classes = ["{first}", "{second}"]',
            "train_per_class = 12",
            "valid_per_class = 6",
            "test_per_class = 6",
            "overlap = true",
            f"transform = {{ rotate = {index // 90 % 4 * 90}, invert = {'true' if index // 3 % 2 else 'false'} }}",
        ]
    return "\n".join(lines) + "\n"


def _counter(name: str) -> int:
    """Return a number that Linux keeps of this process."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


class StopError(Exception):
    """The run is where it was to be stopped."""


class Meter(Observer):
    """Measures each task of a run.

    Args:
        stop: before which task the run is stopped, from 0; None: it is not.

    Attributes:
        tasks: of each the processor time of learning it, of all else, and of judging, in seconds, bytes written, and resident bytes.
    """

    def __init__(self, stop: int | None = None) -> None:
        self._stop = stop
        self.tasks: list[tuple[float, float, float, int, int]] = []
        self._began, self._learned, self._judged, self._written = 0.0, 0.0, 0.0, 0

    def task_started(self, index: int, name: str) -> None:
        """Begin, or stop."""
        if index == self._stop:
            raise StopError
        self._began, self._learned, self._written = time.process_time(), 0.0, _counter("wchar")

    def phase(self, name: str) -> None:
        """Learning ends where judging begins."""
        if name == "evaluate":
            self._learned = self._judged = time.process_time()

    def advance(self, done: int, total: int) -> None:
        """Judging ends when the last image was answered."""
        self._judged = time.process_time()

    def task_saved(self, run: Path, entries: list[TaskRecord], accuracy: list[list[float]]) -> None:
        """All is written."""
        if self._learned:
            now = time.process_time()
            seconds = self._learned - self._began, now - self._learned, self._judged - self._learned
            self.tasks.append((*seconds, _counter("wchar") - self._written, _resident()))
            self._learned = 0.0


def measured(method: str, tasks: int, folder: Path) -> list[dict[str, object]]:
    """Learn so many tasks with a method; return a row for each of `COUNTS` that is reached."""
    file, out, meter = folder / f"many-{tasks}.toml", folder / f"{method}-{tasks}", Meter(stop=tasks)
    file.write_text(stream(tasks + 1), encoding="utf-8")
    settings: dict[str, Any] = {"epochs": 1, "init_channels": 2, "patience": 0} | ({"extractor": "pixels"} if method == "par" else {})
    config = configure(str(file), method, preset="quick", **settings)

    def learn() -> None:
        # Not to the end: the judging without task names there is of all tasks by all heads, and not of a task.
        with suppress(StopError):
            run(config, out, HERE, meter)

    learn()
    times = [time.process_time()]
    page: list[Path] = []
    for step in (learn, lambda: Learner.load(out, device="cpu"), lambda: page.append(write_report(out, read_summary(out)))):
        step()
        times.append(time.process_time())
    resumed, loaded, reported = (after - before for before, after in pairwise(times))
    rows: list[dict[str, object]] = []
    for count in (count for count in COUNTS if count <= tasks):
        columns = zip(*meter.tasks[count - LAST : count], strict=True)
        learning, rest, judging, written, memory = map(statistics.median, columns)
        last = count == tasks
        rows.append(
            {
                "method": method,
                "tasks": count,
                "learning_s": round(learning, 4),
                "outside_s": round(rest, 4),
                "judging_s": round(judging, 4),
                "written_kb": round(written / 1e3, 1),
                "resident_mb": round(memory / 1e6),
                "resume_s": round(resumed, 2) if last else "",
                "load_s": round(loaded, 2) if last else "",
                "report_s": round(reported, 2) if last else "",
                "report_mb": round(page[0].stat().st_size / 1e6, 2) if last else "",
                "machine": machine_name(torch.device("cpu")),
                "commit": commit(),
            }
        )
    return rows


def start(arguments: Sequence[str]) -> int:
    """Measure, and print the rows as CSV."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--tasks", default=",".join(map(str, COUNTS)), help="a run of its own for each of these counts")
    parser.add_argument("--out", type=Path, default=None, help="a CSV file to which the rows are added")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for method in given.methods.split(","):
        for tasks in map(int, given.tasks.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                _add(given.out, measured(method, tasks, Path(folder)))
    return 0


def _add(out: Path | None, rows: list[dict[str, object]]) -> None:
    for row in rows:
        print(",".join(map(str, row.values())), flush=True)
    if out is not None:
        new = not out.exists()
        with out.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(rows)
