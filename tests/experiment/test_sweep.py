"""Runs at once: the same numbers as in turn, one that fails stops no other, and no process left behind, however a sweep ends."""

import json
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

from lifelong.api import configured, start_comparison
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment import local
from lifelong.experiment.__main__ import main as carry_out
from lifelong.experiment.compare import compare
from lifelong.experiment.job import RunJob, RunOutcome, perform_plain
from lifelong.experiment.observer import Observer
from lifelong.experiment.results import RunDirectory, read_summary
from lifelong.experiment.sweep import SweepError, sweep
from lifelong.plugins import load_plugin
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.sockets import OBSERVERS
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


def test_a_process_takes_the_next_run(stream, tmp_path, monkeypatch):
    """Starting another takes seconds. One that has failed is replaced."""
    started, begun = [], []

    class Counted(local._Worker):
        def __init__(self, context: Any, place: int) -> None:
            super().__init__(context, place)
            started.append(place)

        def begin(self, position: int, job: RunJob, listener: Observer) -> None:
            begun.append((self.place, position))
            super().begin(position, job, listener)

    monkeypatch.setattr(local, "_Worker", Counted)
    configs = [config(stream, seed, epochs=1) for seed in range(4)]
    in_turn = compare(configs, tmp_path / "turn", HERE)
    at_once = compare(configs, tmp_path / "once", HERE, workers=2)
    assert [one["accuracy"] for one in at_once] == [one["accuracy"] for one in in_turn]
    assert sorted(started) == [0, 1]
    assert sorted(position for _, position in begun) == [0, 1, 2, 3]
    started.clear()
    for seed in (0, 1):
        (tmp_path / f"{seed}").mkdir()
        (tmp_path / f"{seed}" / "mine.txt").write_text("mine")
    with pytest.raises(SweepError, match="2 of 3 runs failed"):
        dict(sweep([(configs[seed], tmp_path / f"{seed}") for seed in range(3)], HERE, 2, lambda position: Observer()))
    assert len(started) == 3
    assert not multiprocessing.active_children()


def test_what_fails_stops_no_other(stream, tmp_path):
    """It is told when it happens, and raised as one line when the others have ended; a later sweep continues."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "mine.txt").write_text("mine")
    planned = [(config(stream, seed), tmp_path / str(seed)) for seed in range(3)]
    heard: list[str] = []

    class Listening(Observer):
        def run_failed(self, failure: str) -> None:
            heard.append(failure)

    found: list[tuple[int, Any]] = []
    with pytest.raises(SweepError) as caught:
        found.extend(sweep(planned, HERE, 2, lambda position: Listening()))
    assert str(caught.value).startswith(f"1 of 3 runs failed, the others are finished: {tmp_path / '1'}: {tmp_path / '1'} is not empty")
    assert "\n" not in str(caught.value)
    assert heard == [EMPTY.format(tmp_path / "1")]
    assert dict(found) == caught.value.summaries == {seed: read_summary(tmp_path / str(seed)) for seed in (0, 2)}
    assert not multiprocessing.active_children()
    (tmp_path / "1" / "mine.txt").unlink()
    assert set(dict(sweep(planned, HERE, 1, lambda position: Observer()))) == {0, 1, 2}


EMPTY = "{} is not empty and holds no run; choose another folder with --out"


def test_what_is_finished_is_compared_although_another_run_failed(stream, tmp_path, capsys):
    (tmp_path / "finetune-seed1").mkdir()
    (tmp_path / "finetune-seed1" / "mine.txt").write_text("mine")
    with pytest.raises(LifelongError, match="1 of 2 runs failed, the others are finished"):
        start_comparison([config(stream, seed) for seed in (0, 1)], tmp_path, HERE, progress=False)
    assert "finetune" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "finetune-seed0" / "report.html").exists()


def test_one_line_that_is_that_of_every_run(stream, tmp_path):
    here = replace(HERE, data=tmp_path / "none")
    with pytest.raises(SweepError) as caught:
        compare([replace(config(stream, seed), stream="mnist-svhn") for seed in (0, 1)], tmp_path / "out", here)
    assert "runs failed" not in str(caught.value)


def test_a_bug_stops_no_other_and_keeps_its_traceback(stream, tmp_path):
    class Failing(Observer):
        def task_started(self, index: int, name: str) -> None:
            raise ZeroDivisionError("a bug")

    planned = [(config(stream, seed), tmp_path / str(seed)) for seed in (0, 1)]
    with pytest.raises(RuntimeError, match=r"(?s)in the run of .*0:\nTraceback.*ZeroDivisionError: a bug"):
        dict(sweep(planned, HERE, 1, lambda position: Observer() if position else Failing()))
    assert read_summary(tmp_path / "1")["complete"]


def test_a_process_that_dies_is_one_line(stream, tmp_path):
    """The other run is finished."""

    def begin(position: int) -> Observer:
        if position == 1:
            (first,) = multiprocessing.active_children()
            first.kill()
        return Observer()

    planned = [(config(stream, seed, epochs=10_000 if seed == 0 else 1), tmp_path / str(seed)) for seed in (0, 1)]
    with pytest.raises(LifelongError, match=r"the process of .*0 has ended with code -9 .*fewer --workers") as caught:
        dict(sweep(planned, HERE, 2, begin))
    assert "\n" not in str(caught.value)
    assert read_summary(tmp_path / "1")["complete"]
    assert not multiprocessing.active_children()


PLUGIN = """
import lifelong

class Bell(lifelong.Observer):
    def run_finished(self, summary):
        print("ding")

lifelong.register_observer("a-bell", Bell)
"""


def test_a_process_loads_the_plugins_of_the_sweep(stream, tmp_path, capfd, monkeypatch):
    """What a setting or an observer names by a word is registered there, too."""
    (tmp_path / "a_plugin_of_mine.py").write_text(PLUGIN)
    monkeypatch.setattr(sys, "path", list(sys.path))
    load_plugin(tmp_path / "a_plugin_of_mine.py")
    try:
        planned = [(config(stream, seed), tmp_path / str(seed)) for seed in (0, 1)]
        dict(sweep(planned, replace(HERE, observe=["a-bell"]), 2, lambda position: Observer()))
        plugin_of_job = RunJob(*planned[0], HERE).plugins
    finally:
        OBSERVERS._entries.pop("a-bell")
        sys.modules.pop("a_plugin_of_mine")
    assert capfd.readouterr().out == "ding\nding\n"
    assert plugin_of_job == (tmp_path / "a_plugin_of_mine.py",)


@pytest.mark.parametrize("more", [{"preset": "quick", "alpha": 0.25}, {"grid": "lr=0.1,0.2 kd-weight=1", "tolerance": 0.1}])
def test_a_job_is_plain_data(more, tmp_path):
    """Through JSON and back: tuning, presets, paths; carried out elsewhere it comes to the same."""
    resolved = configured("digits?tasks=2", "par", 3, **more)
    here = Environment(data="some/where", device="cpu", threads=1, observe=["tensorboard"], at_once=3)
    job = RunJob(resolved, Path("runs/x"), here, folder=tmp_path)
    again = RunJob.of(json.loads(json.dumps(job.plain())))
    assert again == job
    assert again.plain() == job.plain()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "No such file"),
        ("{", "is not JSON"),
        ("[]", "describes no job of this version"),
        ('{"config": {}}', "describes no job of this version"),
        ('{"config": {}, "environment": {}, "out": "o", "plugins": [], "folder": 3}', "describes no job of this version"),
        ('{"config": {}, "environment": {}, "out": "o", "plugins": [], "folder": "."}', "no stream given"),
        (
            '{"config": {"stream": "digits"}, "environment": {"devise": 1}, "out": "o", "plugins": [], "folder": "."}',
            "no argument 'devise'",
        ),
    ],
)
def test_a_file_that_is_no_job_is_one_line(text, line, tmp_path, capsys):
    file = tmp_path / "job.json"
    if text is not None:
        file.write_text(text)
    assert carry_out([str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lifelong: ")
    assert line in said
    assert said.count("\n") == 1


def test_a_job_elsewhere(stream, tmp_path, capfd):
    """Relative paths are those of the sweep; a failure is a line and an exit code; a process that died left no outcome."""
    good, bad = (RunJob(config("three.toml", seed), Path(f"run-{seed}"), HERE, folder=tmp_path) for seed in (0, 1))
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "mine.txt").write_text("mine")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert good.outcome(tmp_path / "0.json").failure.startswith("the process of run-0 has ended without saying how")
    codes = [subprocess.run(job.command(tmp_path / f"{job.out}.json"), env=environment).returncode for job in (good, bad)]
    assert codes == [0, 2]
    assert capfd.readouterr().err == f"lifelong: {EMPTY.format('run-1')}\n"
    assert good.outcome(tmp_path / "run-0.json") == RunOutcome(read_summary(tmp_path / "run-0"))
    assert bad.outcome(tmp_path / "run-1.json") == RunOutcome(None, EMPTY.format("run-1"))
    assert perform_plain(good.plain()) == {"failure": "", "crash": ""}
    assert perform_plain(good.plain() | {"plugins": ["none.py"]})["failure"].startswith("--plugin none.py: no Python file")


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/thread-self/children").exists(), reason="this kernel does not list children in /proc")
@pytest.mark.parametrize(("end", "code"), [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow), (signal.SIGKILL, -9)])
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
