"""Sweeps of runs of a second."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lifelong.experiment.journal import Journal
from lifelong.sweeps.spec import plan

ROOT = Path(__file__).resolve().parents[2]
STREAM = "digits?tasks=2&train_per_class=4&valid_per_class=2&test_per_class=4"
FLAGS = ("--device", "cpu", "--threads", "1", "--save-every", "0")


def spec(methods: tuple[str, ...] = ("finetune", "independent"), seeds: int = 2, epochs: int = 1) -> dict[str, Any]:
    settings = {"epochs": epochs, "init_channels": 2, "batch_size": 16}
    return {"streams": [STREAM], "methods": list(methods), "seeds": list(range(seeds)), "preset": "quick", "settings": settings}


def as_file(content: dict[str, Any], file: Path) -> Path:
    """The same as TOML."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in content.items() if not isinstance(value, dict)]
    for name, section in content.items():
        if isinstance(section, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    file.write_text("\n".join(lines))
    return file


def command(*words: object, **variables: str) -> subprocess.Popen[str]:
    """`lifelong sweep` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    line = [sys.executable, "-m", "lifelong", "sweep", *map(str, words)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def journals(file: Path, out: Path) -> dict[str, Journal]:
    planned = plan(file, out)
    return {run.name: Journal(planned.journal(run)) for run in planned.runs}


def events(journal: Journal) -> list[str]:
    """What happened to a run, in order."""
    if not journal.file.exists():
        return []
    return [json.loads(line)["what"] for line in journal.file.read_text().splitlines() if line]


def numbers(file: Path, out: Path) -> dict[str, list[Any]]:
    """What each run came to: its accuracies, and the loss of every epoch."""
    found = {}
    for run in plan(file, out).runs:
        folder = out / run.name
        losses = [json.loads(line).get("loss") for line in (folder / "curves.jsonl").read_text().splitlines()]
        found[run.name] = [json.loads((folder / "summary.json").read_text())["accuracy"], losses]
    return found
