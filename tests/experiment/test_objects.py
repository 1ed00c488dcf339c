"""Runs of Python objects: as of files to the bit, continued with equal objects, refused with others, and used like any run."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lifelong
from lifelong import Task
from lifelong.api import configure
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment.continuing import learn_more
from lifelong.experiment.run import run as run_experiment
from lifelong.experiment.saved import open_run
from lifelong.records.run import RunRecord
from tests.learned import HERE
from tests.trees import same

QUICK: dict[str, Any] = {"preset": "quick", "epochs": 2, "init_channels": 2, "threads": 1, "device": "cpu", "progress": False}
NAMES = ("birds", "boats")


def images_of(number: int, per_class: int = 16, size: int = 8) -> tuple[np.ndarray, list[str]]:
    """Images of two classes, of which one is brighter; class by class, as a folder lists them."""
    chance = np.random.default_rng(number)
    labels = ["a"] * per_class + ["b"] * per_class
    bright = np.repeat([0, 90], per_class)[:, None, None, None]
    return (chance.integers(0, 160, (len(labels), size, size, 3)) + bright).astype(np.uint8), labels


def tasks(count: int = 2) -> list[Task]:
    return [Task.from_arrays(*images_of(number), name=name) for number, name in enumerate(NAMES[:count])]


def learn(stream: Any, out: Path, method: str = "finetune", **settings: Any) -> RunRecord:
    """What `lifelong.run` does, without the report."""
    settings = {key: value for key, value in (QUICK | settings).items() if key not in ("threads", "device", "progress")}
    return run_experiment(configure(stream, method, **settings), out, HERE)


def method_of(run: Path) -> Any:
    return open_run(run).state["method"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("objects") / "run"
    learn(tasks(), run)
    return run


@pytest.mark.parametrize(("method", "settings"), [("finetune", {}), ("par", {"extractor": "pixels", "search_epochs": 1})])
def test_files_and_objects_give_the_same_weights(tmp_path, method, settings):
    for number, name in enumerate(NAMES):
        for place, (image, label) in enumerate(zip(*images_of(number), strict=True)):
            (tmp_path / "photos" / name / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / "photos" / name / label / f"{place}.png")
    files = learn(f"folder:{tmp_path / 'photos'}?size=8", tmp_path / "files", method, **settings)
    objects = learn(tasks(), tmp_path / "objects", method, **settings)
    assert objects.accuracy == files.accuracy
    assert same(method_of(tmp_path / "objects"), method_of(tmp_path / "files"))


def test_an_opened_stream_gives_the_weights_of_its_name(tmp_path):
    name = "digits?tasks=2&train_per_class=3&valid_per_class=2&test_per_class=2"
    learn(name, tmp_path / "name")
    summary = learn(lifelong.open_stream(name), tmp_path / "object")
    assert summary.stream == name
    assert same(method_of(tmp_path / "object"), method_of(tmp_path / "name"))


def test_the_same_call_reads_it_and_another_is_told_what_differs(finished):
    assert lifelong.run(tasks(), "finetune", out=finished, **QUICK) == learn(tasks(), finished)
    images, labels = images_of(1)
    other = images.copy()
    other[5] = 0
    turned = ["b", *labels[1:]]
    for given, line in (
        (tasks(1), "1 task, not 2"),
        (tasks()[::-1], "task 1 is 'boats', not 'birds'"),
        (
            [tasks()[0], Task.from_arrays(other, labels, name="boats")],
            "'boats' has 1 of 32 training images that are others, the first at position 5",
        ),
        (
            [tasks()[0], Task.from_arrays(images, turned, name="boats")],
            "1 of 32 training images with another label, the first at position 0",
        ),
        ([tasks()[0], Task.from_arrays(images[1:], labels[1:], name="boats")], "has 31 training images, not 32"),
        ([tasks()[0], Task.from_arrays(images, labels, name="boats", size=16)], "images of 16×16 pixels, not 8×8"),
        ([tasks()[0], Task.from_arrays(images, labels, name="boats", flip=True)], "another flip"),
        ([tasks()[0], Task.from_arrays(images, labels, name="boats", test=images_of(7))], "test images of its own, which it had not"),
        ([tasks()[0], Task.from_arrays(images, [f"{label}!" for label in labels], name="boats")], "the classes a!, b!, not a, b"),
    ):
        with pytest.raises(LifelongError, match=f"holds a run of other objects: now .*{line}; give equal ones to continue it"):
            learn(given, finished)


def test_by_default_other_objects_of_the_same_names_are_not_another_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = configure(tasks(), "finetune")
    assert lifelong.api.default_out(config) == Path("runs/birds-boats-finetune-seed0")
    renamed = configure([Task.from_arrays(*images_of(5), name=name) for name in NAMES], "finetune")
    assert lifelong.api.default_out(renamed) == lifelong.api.default_out(config)
    assert config.stream != renamed.stream


KILLED = """
import os, signal, lifelong
from tests.experiment.test_objects import QUICK, tasks

class Killing(lifelong.Observer):
    def task_started(self, index, name):
        self.index = index

    def epoch(self, event):
        if self.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)

lifelong.run(tasks(), "finetune", out={out!r}, save_every=0.0, **QUICK | {{"progress": Killing()}})
"""


def test_a_killed_run_is_continued_with_equal_objects(finished, tmp_path):
    """Equal, not the same: another process makes them anew."""
    out = tmp_path / "run"
    root = Path(__file__).resolve().parents[2]
    killed = subprocess.run([sys.executable, "-c", KILLED.format(out=str(out))], check=False, cwd=root)
    assert killed.returncode == -signal.SIGKILL
    assert len(open_run(out).names) == 1
    learn(tasks(), out)
    assert same(method_of(out), method_of(finished))


def test_runs_in_other_processes_find_the_objects(tmp_path, finished):
    settings = {key: value for key, value in QUICK.items() if key != "epochs"}
    runs = lifelong.compare(tasks(), ["finetune"], [0, 1], out=tmp_path / "compared", workers=2, epochs=2, **settings)
    assert [run.seed for run in runs] == [0, 1]
    assert same(method_of(tmp_path / "compared" / "finetune-seed0"), method_of(finished))


def test_every_call_that_takes_a_stream_takes_objects(tmp_path):
    found = lifelong.distances(tasks(), out=tmp_path / "distances", extractor="pixels", threads=1, progress=False)
    assert found.tasks == list(NAMES)
    tuned = lifelong.tune(tasks(1)[0], "finetune", grid={"lr": [0.1, 0.01]}, out=tmp_path / "tuned", **QUICK)
    assert len(tuned.tasks[0].tuning.candidates) == 2
    described = lifelong.api.preview_stream(tasks(), tmp_path / "sheet.png", progress=False)
    assert [task["name"] for task in described["tasks"]] == list(NAMES)
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.slow
def test_transfer_between_tasks_of_objects(tmp_path):
    pairs = lifelong.transfer(
        tasks(), strategies=["head"], measures=["prototype-kl"], out=tmp_path / "transfer", variant="fixed", extractor="pixels", **QUICK
    )
    assert {(pair.source, pair.target) for pair in pairs.seeds[0].pairs} == {(0, 1), (1, 0)}
    with pytest.raises(LifelongError, match="holds a run of other objects: now task 1 is 'boats', not 'birds'"):
        lifelong.transfer(tasks()[::-1], strategies=["head"], out=tmp_path / "transfer", variant="fixed", extractor="pixels", **QUICK)


@pytest.mark.slow
def test_a_sweep_of_objects_and_an_estimate_of_one_more_task(tmp_path, finished):
    small = {"epochs": 2, "init_channels": 2}
    spec = {"streams": [tasks(), tasks()[::-1]], "methods": ["finetune"], "preset": "quick", "settings": small}
    plan = lifelong.plan_sweep(spec, out=tmp_path / "sweep")
    assert [run.name for run in plan.runs] == ["birds-boats/finetune-seed0", "boats-birds/finetune-seed0"]
    first, second = lifelong.sweep(spec, out=tmp_path / "sweep", device="cpu", threads=1, progress=False)
    assert [task.name for task in (*first.tasks, *second.tasks)] == [*NAMES, *NAMES[::-1]]
    assert same(method_of(tmp_path / "sweep/birds-boats/finetune-seed0"), method_of(finished))
    assert lifelong.sweep_status(spec, out=tmp_path / "sweep").counts["finished"] == 2
    with pytest.raises(LifelongError, match=r"streams = \[3\]: expected a list, each a text"):
        lifelong.plan_sweep(spec | {"streams": [3]})
    found = lifelong.estimate_learning(finished, Task.from_arrays(*images_of(2), name="bees"), device="cpu", threads=1, progress=False)
    assert [(task.name, task.train) for task in found.tasks] == [("bees", 24)]  # of each class 16 - 3 - 1
    assert list(open_run(finished).names) == list(NAMES)


@pytest.mark.parametrize("given", [7, [], [3], [np.zeros(3)], (np.zeros(3), 1), {"a": 1}, torch.zeros(3)])
def test_what_is_no_stream_is_refused(given):
    with pytest.raises(LifelongError, match=r"run: stream = .*expected a path or a lifelong.Stream, or a list of tasks, each made by"):
        lifelong.run(given)
    with pytest.raises(LifelongError, match=r"learn: task = .*: expected .*a task of lifelong.Task.from_arrays or from_dataset"):
        lifelong.learn("nowhere", given)


def test_tasks_without_names_are_numbered_and_two_of_one_name_refused():
    described = lifelong.open_stream([Task.from_arrays(*images_of(0)), Task.from_arrays(*images_of(1))])
    assert described.name == "task 1 + task 2"
    assert [task.name for task in described] == ["task 1", "task 2"]
    with pytest.raises(LifelongError, match="task 'birds': two tasks have this name; give each its own"):
        lifelong.open_stream([tasks()[0], tasks()[0]])


def test_one_more_task_is_learned_from_objects(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    first = lifelong.learn(run, Task.from_arrays(*images_of(2)), progress=False)
    assert [task.name for task in first.tasks] == [*NAMES, "task 3"]
    # As if it had been in the stream from the beginning.
    learn([*tasks(), Task.from_arrays(*images_of(2))], tmp_path / "whole")
    assert same(method_of(tmp_path / "whole"), method_of(run))
    assert learn_more(run, Task.from_arrays(*images_of(2)), HERE) == first
    named = learn_more(run, Task.from_arrays(*images_of(3), name="bees"), HERE, name="wasps")
    assert [task.name for task in named.tasks] == [*NAMES, "task 3", "wasps"]
    with pytest.raises(LifelongError, match="has learned a task 'wasps' before, from other images"):
        lifelong.learn(run, Task.from_arrays(*images_of(4), name="wasps"), progress=False)


@pytest.mark.slow
def test_a_run_of_objects_is_used_like_any_run(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    images, _ = images_of(0)
    assert len(lifelong.Learner.load(run, threads=1).predict(images[:3])) == 3
    assert all(judged.right for judged in lifelong.verify(run, judge=True).judged)
    assert lifelong.write_report(run)["mistakes"] != [None, None]
    assert lifelong.export(run, "birds", format="torch", out=tmp_path / "birds.pt2")["classes"] == ["a", "b"]
    assert main(["run", "--config", str(run / "config.toml"), "--out", str(run), "--device", "cpu", "--threads", "1"]) == 0
    capsys.readouterr()


def test_where_the_objects_are_not_in_the_cache_a_line_says_so(finished, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "empty"))
    assert main(["run", "--config", str(run / "config.toml"), "--out", str(run), "--device", "cpu"]) == 2
    said = capsys.readouterr().err.strip()
    assert "'birds + boats' was given from Python, and its images are not, or not whole, in the cache" in said
    assert "make the same call from Python again" in said
    assert [judged.right for judged in lifelong.verify(run, judge=True).judged] == [None, None]
    assert main(["verify", str(run), "--judge"]) == 0
    assert "given from Python; lifelong.open_stream(tasks) with equal objects keeps them" in " ".join(capsys.readouterr().out.split())
    # As for files that are gone: the next task is learned, and what cannot be judged again is not known.
    grown = learn_more(run, Task.from_arrays(*images_of(2)), HERE)
    assert any("images are not here: 'birds + boats'" in note and "given from Python" in note for note in grown.notes)
    # With equal objects they are back.
    assert lifelong.open_stream(tasks())[0].name == "birds"
    assert None not in [judged.found for judged in lifelong.verify(run, judge=True).judged]


def test_an_address_that_was_typed_is_refused(capsys):
    assert main(["run", "--stream", "python:photos"]) == 2
    assert "images are given from Python as objects" in capsys.readouterr().err
