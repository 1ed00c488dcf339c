"""Sweeps as a whole: nothing is run twice, whoever is killed; what cannot start is said before anything is trained."""

import json
import shutil
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

import lifelong
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment import local, machine
from lifelong.experiment.job import RunJob, RunOutcome
from lifelong.experiment.locking import folder_lock
from lifelong.experiment.observer import Observer
from lifelong.experiment.sweep import SweepError
from tests.experiment.small_sweeps import HERE, small
from tests.sweeps.made import FLAGS, STREAM, as_file, command, events, journals, numbers, spec

QUIET = {"device": "cpu", "threads": 1, "progress": False}
ONE = (STREAM.replace("?", "-").replace("=", "-").replace("&", "-"), "finetune-seed0")


def test_a_sweep(tmp_path, capsys):
    """Its runs are those of `lifelong.run`; the comparison and each report are written; its state can be asked for."""
    content = spec(("finetune",), 1) | {"vary": {"lr": [0.1, 0.05]}}
    found = lifelong.sweep(content, out=tmp_path / "out", **QUIET)
    assert [one.method for one in found] == ["finetune", "finetune"]
    alone = lifelong.run(STREAM, "finetune", 0, preset="quick", out=tmp_path / "alone", lr=0.05, **content["settings"], **QUIET)
    assert found[1].accuracy == alone.accuracy
    assert (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / "comparison.csv").read_text().count("\n") == 3  # two rates, a heading
    file = as_file(content, tmp_path / "mine.toml")
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"waiting": 0, "running": 0, "finished": 2, "failed": 0}
    assert told["runs"][1]["ap"] == pytest.approx(alone.ap)
    assert (told["runs"][1]["done"], told["runs"][1]["tasks"], told["runs"][1]["starts"]) == (2, 2, 1)
    lost = tmp_path.joinpath("out", ONE[0], "finetune-lr-0.1-seed0", "report.html")
    lost.unlink()
    again = lifelong.sweep(file, out=tmp_path / "out", **QUIET)
    assert again == found
    assert lost.exists()
    assert {tuple(events(one)) for one in journals(file, tmp_path / "out").values()} == {("started", "task", "task", "finished")}


def test_checked_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    """All runs, and every reason once, with how many it holds for."""
    file = as_file(spec() | {"streams": [STREAM, "cifar100-10"]}, tmp_path / "mine.toml")
    line = "4 of 8 runs cannot start, and nothing was run: cifar100-10/finetune-seed0 and 3 more: no images for source"
    words = ["sweep", str(file), "--out", str(tmp_path / "out"), "--data", str(tmp_path / "none"), "--device", "cpu"]
    for more in (["--check"], []):
        assert main([*words, *more]) == 2
        assert line in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    as_file(spec(), file)
    assert main([*words, "--check", "--json"]) == 0
    assert [run["run"].partition("/")[2] for run in json.loads(capsys.readouterr().out)["runs"]] == [
        *("finetune-seed0", "independent-seed0", "finetune-seed1", "independent-seed1")
    ]
    assert not (tmp_path / "out").exists()
    with pytest.raises(LifelongError, match="--device cuda:99"):
        lifelong.plan_sweep(spec(), device="cuda:99")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LifelongError, match="--engine slurm: there is no sbatch on this machine"):
        lifelong.plan_sweep(spec(), engine="slurm")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    with pytest.raises(LifelongError, match="--engine ray runs with token authentication only"):
        lifelong.plan_sweep(spec(), engine="ray")
    with pytest.raises(LifelongError, match="unknown engine 'rai'; did you mean 'ray'"):
        lifelong.plan_sweep(spec(), engine="rai")


def test_what_stands_in_the_folders_is_checked_too(tmp_path):
    out = tmp_path / "out"
    lifelong.sweep(spec(("finetune",), 1), out=out, **QUIET)
    (out.joinpath(*ONE).parent / "finetune-seed1").mkdir()
    (out.joinpath(*ONE).parent / "finetune-seed1" / "mine.txt").write_text("mine")
    with pytest.raises(LifelongError) as caught:
        lifelong.sweep(spec(("finetune",), 3, epochs=2), out=out, **QUIET)
    assert "2 of 3 runs cannot start, and nothing was run: " in str(caught.value)
    assert "holds a run with epochs = 1, not 2" in str(caught.value)
    assert "is not empty and holds no run" in str(caught.value)
    assert not (out.joinpath(*ONE).parent / "finetune-seed2").exists()


def test_one_that_fails_is_reported_and_tried_again(tmp_path):
    """Here by an observer of the run, as a full disk would make it fail."""

    class Full(Observer):
        def beside(self, label: str) -> Observer:
            return Failing() if label == "independent-seed0" else Observer()

    class Failing(Observer):
        def task_started(self, index: int, name: str) -> None:
            if index == 1:
                raise LifelongError("no space left; make some")

    content, out = spec(), tmp_path / "out"
    with pytest.raises(SweepError, match=r"1 of 4 runs failed, the others are finished: .*no space left; make some"):
        lifelong.sweep(content, out=out, **QUIET | {"progress": Full()})
    status = lifelong.sweep_status(content, out=out)
    assert status.counts == {"waiting": 0, "running": 0, "finished": 3, "failed": 1}
    (failed,) = [run for run in status.runs if run.state == "failed"]
    assert (failed.done, failed.tasks, failed.failure) == (1, 2, "no space left; make some")
    assert (out / "report.html").exists()
    assert len(lifelong.sweep(content, out=out, **QUIET)) == 4
    (again,) = [run for run in lifelong.sweep_status(content, out=out).runs if run.run == failed.run]
    assert (again.state, again.starts, again.failure) == ("finished", 2, "")


def test_a_run_of_another_process_is_waited_for(tmp_path, monkeypatch):
    """And said so; here the other one ends without having learned anything."""
    from lifelong.experiment import sweep as sweeps

    content, out = spec(("finetune",), 2), tmp_path / "out"
    taken = folder_lock(out.joinpath(*ONE))
    taken.__enter__()
    assert [run.state for run in lifelong.sweep_status(content, out=out).runs] == ["running", "waiting"]
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            taken.__exit__(None, None, None)

    monkeypatch.setattr(sweeps.time, "sleep", sleep)
    told: list[str] = []

    class Told(Observer):
        def beside(self, label: str) -> Observer:
            return Observer()

        def note(self, text: str) -> None:
            told.append(text)

    found = lifelong.sweep(content, out=out, **QUIET | {"progress": Told()})
    assert [one.seed for one in found] == [0, 1]
    assert told == [f"waiting, since another process is running in {out.joinpath(*ONE)}; wait for it, or use another folder"]
    assert len(naps) == 3


@pytest.mark.slow
def test_two_at_once_run_nothing_twice(tmp_path):
    """Both come to the end with all runs, each of which one of them has carried out."""
    file, out = as_file(spec(epochs=4), tmp_path / "mine.toml"), tmp_path / "out"
    both = [command(file, "--out", out, *FLAGS, "--json") for _ in range(2)]
    told = [process.communicate(timeout=500) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert [len(json.loads(out_)) for out_, _ in told] == [4, 4]
    assert {tuple(events(one)) for one in journals(file, out).values()} == {("started", "task", "task", "finished")}


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on(tmp_path):
    """The same command continues within a run, and its numbers are those of a sweep that was not interrupted."""
    file, out = as_file(spec(("finetune",), 2, epochs=30), tmp_path / "mine.toml"), tmp_path / "out"
    process = command(file, "--out", out, *FLAGS)
    first = next(iter(journals(file, out).values()))
    deadline = time.monotonic() + 300
    while "task" not in events(first):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert "finished" not in events(first)
    assert lifelong.sweep_status(file, out=out).counts["waiting"] == 2
    lifelong.sweep(file, out=out, save_every=0, **QUIET)
    assert [events(one) for one in journals(file, out).values()] == [
        ["started", "task", "started", "task", "finished"],
        ["started", "task", "task", "finished"],
    ]
    shutil.copytree(out, tmp_path / "kept")
    lifelong.sweep(file, out=tmp_path / "whole", **QUIET)
    assert numbers(file, tmp_path / "kept") == numbers(file, tmp_path / "whole")


def test_parallel_runs_take_turns_over_all_gpus(tmp_path, monkeypatch):
    """On a machine of three cards, of which there is only the number."""
    monkeypatch.setattr(machine, "_count", lambda kind: 3 if kind == "cuda" else 0)
    started: list[str] = []

    class Started:
        def __init__(self, context, place) -> None:
            self.connection = self.place = place

        def begin(self, position, job: RunJob, listener) -> None:
            self.position = position
            started.append(job.environment.device)

        def hear(self) -> RunOutcome:
            return RunOutcome(None, "was not run")

        def end(self) -> None: ...

    monkeypatch.setattr(local, "_Worker", Started)
    monkeypatch.setattr(local, "wait", lambda connections: connections[:1])

    def devices(device: str, workers: int) -> list[str]:
        started.clear()
        jobs = [RunJob(small(seed), tmp_path / str(seed), replace(HERE, device=device)) for seed in range(6)]
        assert len(list(local.Local().run(jobs, workers, lambda position: Observer()))) == 6
        return list(started)

    assert devices("cuda", 4) == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:0", "cuda:1"]
    assert devices("auto", 2) == ["cuda:0", "cuda:1"] * 3
    assert devices("cuda:1", 3) == ["cuda:1"] * 6
    assert devices("cpu", 3) == ["cpu"] * 6
    monkeypatch.setattr(machine, "_count", lambda kind: 1)
    assert devices("cuda", 3) == ["cuda"] * 6
