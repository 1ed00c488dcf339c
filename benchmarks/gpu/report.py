"""The rows of the GPU benchmark: added to a CSV file one by one, so that nothing measured is lost."""

import csv
import datetime
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.rows import commit
from lifelong.experiment.machine import machine_name

COLUMNS = ("part", "name", "value", "unit", "detail", "machine", "torch", "commit", "date")


class Report:
    """Where rows go.

    Args:
        path: the CSV file; made with its headings if it is new.
        device: where things are measured.
        console: also shows each row.
    """

    def __init__(self, path: Path, device: torch.device, console: Console) -> None:
        self.path, self._console = path, console
        self._about = (machine_name(device), torch.__version__, commit(), datetime.date.today().isoformat())
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            self._write(COLUMNS)

    def add(self, part: str, name: str, value: float | None, unit: str, detail: str = "") -> None:
        """Write a row.

        Args:
            part: of the benchmark.
            name: what was measured.
            value: the number; None where there is none.
            unit: of the number.
            detail: sizes and circumstances, in a line.
        """
        number = "" if value is None else f"{value:.5g}"
        self._write((part, name, number, unit, detail, *self._about))
        self._console.print(f"  {name}: {number} {unit} {detail}".rstrip(), highlight=False, markup=False)

    def _write(self, row: tuple[str, ...]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)
