"""Runs at once: the same numbers as in turn, and no process left behind, however a sweep ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment.compare import compare
from lifelong.experiment.observer import Observer
from lifelong.experiment.results import RunDirectory, read_summary
from lifelong.experiment.sweep import sweep
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.training import TrainingSettings
from lifelong.training.stages import Epoch
from tests.experiment.kill_driver import STREAM

HERE = Environment(device="cpu", threads=1)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stream(tmp_path: Path) -> str:
    path = tmp_path / "three.toml"
    path.write_text(STREAM)
    return str(path)


def config(stream: str, seed: int, epochs: int = 2) -> RunConfig:
    training = TrainingSettings(epochs=epochs, batch_size=16, lr=0.05, patience=0)
    settings = FinetuneSettings(init_channels=4, backbone="cells")
    return RunConfig(stream=stream, method="finetune", seed=seed, preset="paper", training=training, settings=settings)


class Told(Observer):
    """Keeps what it is told."""

    def __init__(self, words: list[Any], label: str = "") -> None:
        self.words, self.label = words, label

    def beside(self, label: str) -> "Told":
        return Told(self.words, label)

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        self.words.append((self.label, "started", tasks, done))

    def phase(self, name: str) -> None:
        self.words.append((f"phase of {self.label}", name))

    def epoch(self, event: Epoch) -> None:
        self.words.append((f"epoch of {self.label}", event.stage))

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        self.words.append((self.label, record["name"]))

    def run_finished(self, summary: RunRecord) -> None:
        self.words.append((self.label, "finished"))


def test_at_once_as_in_turn(stream, tmp_path):
    configs = [config(stream, seed) for seed in (0, 1)]
    in_turn = compare(configs, tmp_path / "turn", HERE)
    words: list[Any] = []
    at_once = compare(configs, tmp_path / "once", HERE, Told(words), workers=2)
    assert [one["seed"] for one in at_once] == [0, 1]
    assert [one["accuracy"] for one in at_once] == [one["accuracy"] for one in in_turn]
    assert at_once[1] == read_summary(tmp_path / "once" / "finetune-seed1")
    for seed in (0, 1):
        label = f"finetune, seed {seed}"
        own = [word for word in words if word[0] == label]
        assert own == [(label, "started", 3, 0), (label, "a"), (label, "b"), (label, "a-again"), (label, "finished")]
        # Within a run too: of the epochs one a second, the first of them in any case.
        assert (f"phase of {label}", "train") in words
        assert (f"epoch of {label}", "train") in words
    assert not multiprocessing.active_children()


def test_what_fails_stops_the_others_and_loses_nothing(stream, tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "mine.txt").write_text("mine")
    planned = [(config(stream, 0, epochs=10_000), tmp_path / "0"), (config(stream, 1), tmp_path / "1"), (config(stream, 2), tmp_path / "2")]
    with pytest.raises(LifelongError, match="is not empty and holds no run"):
        dict(sweep(planned, HERE, 2, lambda position: Observer()))
    assert not multiprocessing.active_children()
    assert not (tmp_path / "2").exists()


def test_a_process_that_dies_is_one_line(stream, tmp_path):
    def begin(position: int) -> Observer:
        if position == 1:
            (first,) = multiprocessing.active_children()
            first.kill()
        return Observer()

    planned = [(config(stream, seed, epochs=10_000), tmp_path / str(seed)) for seed in (0, 1)]
    with pytest.raises(LifelongError, match=r"the process of .*0 has ended with code -9 .*fewer --workers") as caught:
        dict(sweep(planned, HERE, 2, begin))
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/thread-self/children").exists(), reason="this kernel does not list children in /proc")
@pytest.mark.parametrize(("end", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_sweep_that_is_ended_leaves_no_process_and_is_continued(end, code, stream, tmp_path):
    flags = ["--stream", stream, "--methods", "finetune", "--seeds", "0,1", "--backbone", "cells", "--init-channels", "4"]
    command = ["compare", *flags, "--threads", "1", "--workers", "2", "--save-every", "0", "--out", str(tmp_path / "out"), "--epochs", "60"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-m", "lifelong", *command], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    line = next(line for line in process.stdout if "task 1 of 3 done" in line)
    assert line.startswith("finetune, seed ")
    left = children(process.pid)
    assert len(left) >= 2
    process.send_signal(end)
    assert process.wait(60) == code
    process.stdout.close()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}/status").exists() and "Z (zombie)" not in Path(f"/proc/{child}/status").read_text() for child in left):
        assert time.monotonic() < deadline, "a process goes on"
        time.sleep(0.1)
    seed = line.split(":")[0][-1]
    state = RunDirectory(tmp_path / "out" / f"finetune-seed{seed}").load()
    assert state is not None
    assert len(state["entries"]) >= 1


def test_the_device_reaches_every_process(stream, tmp_path):
    """A card that no machine has: each process asks for it, and none computes on another device instead."""
    with pytest.raises(LifelongError, match="--device cuda:99: "):
        compare([config(stream, seed) for seed in (0, 1)], tmp_path, replace(HERE, device="cuda:99"), workers=2)
    assert not list(tmp_path.rglob("summary.json"))


def test_bad_numbers_of_workers(stream, capsys):
    assert main(["compare", "--stream", stream, "--methods", "finetune", "--workers", "0"]) == 2
    assert "--workers 0: must be at least 1" in capsys.readouterr().err
    assert main(["reproduce", "table1", "--scale", "tiny", "--workers", "0"]) == 2
    assert "--workers 0: must be at least 1" in capsys.readouterr().err
