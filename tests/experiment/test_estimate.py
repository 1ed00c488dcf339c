"""The estimate of a run: its tasks and decisions are the run's, its sums are right, and nothing is written."""

import json
import shutil
from pathlib import Path

import pytest

import lifelong
from lifelong.api import configured, start_estimates, to_tune
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment.continuing import learn_more
from lifelong.experiment.rehearsals import REPORT, STORED, Rehearsals, _Measured
from lifelong.experiment.run import run as run_experiment
from lifelong.records.estimate import EstimateRecord
from tests.learned import HERE, small_run
from tests.photographs import picture

STREAM = "digits?tasks=3"
SMALL = {"preset": "quick", "init_channels": 2, "device": "cpu", "threads": 1, "progress": False, "budget": 1e6}  # on a busy machine, too


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def par() -> EstimateRecord:
    return lifelong.estimate(STREAM, "par", patience=3, variant="par", **SMALL)


def test_tasks_and_decisions_are_those_of_the_run(par: EstimateRecord, tmp_path: Path) -> None:
    described = lifelong.api.describe_stream(STREAM)["tasks"]
    known = lifelong.distances(STREAM, preset="quick", variant="par", out=tmp_path / "distances", threads=1, progress=False)
    assert [task.name for task in par.tasks] == [task["name"] for task in described]
    assert [(task.train, task.valid, task.test) for task in par.tasks] == [
        (task["train"], task["valid"], task["test"]) for task in described
    ]
    assert [task.classes for task in par.tasks] == [len(task["classes"]) for task in described]
    assert [task.decision for task in par.tasks] == [decision.decision for decision in known.decisions]
    assert all(task.measured for task in par.tasks)


def test_sums(par: EstimateRecord) -> None:
    for name in ("seconds", "lowest", "highest"):
        assert sum(getattr(task, name) for task in par.tasks) == pytest.approx(getattr(par, name))
        for task in par.tasks:
            assert sum(getattr(phase, name) for phase in task.phases) == pytest.approx(getattr(task, name))
    assert par.ending_seconds is not None
    assert par.ending_seconds > REPORT + 3 * STORED
    assert 0 < par.lowest < par.seconds < par.highest, "patience may end a training early"
    phases = {phase.phase: phase for phase in par.tasks[0].phases}
    assert phases["search"].epochs == 10
    assert phases["train"].epochs == 20
    assert phases["search"].lowest == phases["search"].highest
    assert phases["train"].lowest < phases["train"].seconds < phases["train"].highest


def test_nothing_is_written_and_the_model_is_the_runs(tmp_path: Path) -> None:
    found = lifelong.estimate(STREAM, "finetune", epochs=1, **SMALL)
    assert not list(tmp_path.iterdir())
    made = run_experiment(configured(STREAM, "finetune", 0, preset="quick", epochs=1, init_channels=2), tmp_path / "run", HERE)
    assert found.parameters == made.parameters
    assert found.bytes == made.bytes
    assert found.lowest == found.highest == pytest.approx(found.seconds), "one epoch can't end early"
    assert found.stops == []
    assert any(line.startswith("runs/digits-tasks-3-finetune-seed0: free") for line in found.checks)


def test_tasks_beyond_the_budget_follow_from_their_images(par: EstimateRecord) -> None:
    found = lifelong.estimate(STREAM, "finetune", **SMALL | {"budget": 0.0})
    first, *others = found.tasks
    assert [task.measured for task in found.tasks] == [True, False, False]
    for task in others:
        assert task.seconds == pytest.approx(first.seconds * task.train / first.train)
        assert task.lowest < task.seconds < task.highest
    assert found.parameters > 0


def test_features_that_are_kept_are_not_computed_again_by_the_run() -> None:
    """Of a task that was rehearsed; those of the others are still to be computed."""
    rehearsed = Rehearsals.__new__(Rehearsals)
    rehearsed.config = configured("digits?tasks=2", "linear-probe")
    rehearsed.measured = [_Measured("head", [], other=1.0, judging=0.5, kept=2.0, parameters=10, bytes=40)]
    descriptions = lifelong.open_stream("digits?tasks=2").describe()
    first, second = rehearsed.tasks(descriptions)
    assert first.seconds == pytest.approx(1.5)
    assert second.seconds == pytest.approx((1.5 + 2.0) * descriptions[1].train / descriptions[0].train)
    # At the end each test image is looked at by both tasks, of which one was there when an image took a millisecond.
    rehearsed._earlier, rehearsed._sizes, rehearsed._nameless = (), [8], 0.001
    tests = sum(description.test for description in descriptions)
    assert rehearsed.ending(descriptions) == pytest.approx(REPORT + 2 * STORED + 0.002 * tests)


def test_each_candidate_is_counted() -> None:
    settings = {"preset": "quick", "init_channels": 2, "epochs": 2}
    config = to_tune(configured("digits?tasks=1", "finetune", 0, grid="lr=0.1,0.01,0.001", **settings))
    (found,) = start_estimates([config], [Path("out")], HERE, False)
    (task,) = found.tasks
    assert {phase.phase: phase.epochs for phase in task.phases}["train"] == 3 * 2


def test_why_a_run_would_stop(tmp_path: Path) -> None:
    run = small_run(tmp_path, "finetune")
    before = files(run)
    found = lifelong.estimate("digits?tasks=1", "finetune", out=run, epochs=1, **SMALL)
    (stop,) = found.stops
    assert str(run) in stop
    assert "choose another --out" in stop
    assert files(run) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    assert "holds no run" in lifelong.estimate("digits?tasks=1", "finetune", out=tmp_path / "full", epochs=1, **SMALL).stops[0]
    with pytest.raises(LifelongError, match="with --weights"):
        lifelong.estimate("digits?tasks=1", "par", extractor="resnet18", weights=tmp_path / "none.safetensors", **SMALL)


def test_the_run_that_is_there_is_recognized(tmp_path: Path) -> None:
    run_experiment(configured("digits?tasks=1", "finetune", 0, preset="quick", epochs=1, init_channels=2), tmp_path / "run", HERE)
    found = lifelong.estimate("digits?tasks=1", "finetune", epochs=1, out=tmp_path / "run", **SMALL)
    assert found.stops == []
    assert any("holds this run, with 1 of 1 tasks learned" in line for line in found.checks)


@pytest.mark.slow
def test_one_more_task(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    for number in range(12):
        for place, label in enumerate("xy"):
            (tmp_path / "new" / label).mkdir(parents=True, exist_ok=True)
            picture(2 * number + place, 1).save(tmp_path / "new" / label / f"{number}.png")
    before = files(run)
    found = lifelong.estimate_learning(run, f"folder:{tmp_path / 'new'}", device="cpu", threads=1, progress=False)
    assert files(run) == before
    (task,) = found.tasks
    assert (task.name, task.classes, task.measured) == ("new", 2, True)
    grown = learn_more(shutil.copytree(run, tmp_path / "grown"), f"folder:{tmp_path / 'new'}", HERE)
    assert task.decision == grown.tasks[-1].decision
    assert (task.train, task.valid, task.test) == tuple(grown.tasks[-1][split] for split in ("train", "valid", "test"))


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--preset", "quick", "--init-channels", "2", "--device", "cpu", "--threads", "1", "--dry-run"]
    assert main(["run", "--stream", "digits?tasks=1", "--method", "finetune", *flags]) == 0
    text = capsys.readouterr().out
    assert "about" in text
    assert "nothing was run" in text
    assert main(["run", "--stream", "digits?tasks=1", "--method", "finetune", "--json", *flags]) == 0
    found = EstimateRecord.model_validate(json.loads(capsys.readouterr().out))
    assert found.tasks[0].name == "low"
    methods = ["--methods", "finetune,independent", "--seeds", "0,1,2"]
    assert main(["compare", "--stream", "digits?tasks=1", *methods, *flags]) == 0
    text = capsys.readouterr().out
    assert "independent" in text
    assert "in all" in text
    assert main(["compare", "somewhere", "--dry-run"]) == 2
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
