"""Hyper-parameters chosen task by task: what is chosen, what it may look at, what it costs, and that it can be stopped."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import lifelong.experiment.run as running
from lifelong.data.task import Split, Task, TaskDescription
from lifelong.errors import DivergedError, LifelongError
from lifelong.experiment.observer import Observer
from lifelong.experiment.proposals import propose
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import run
from lifelong.experiment.tuning import contenders
from lifelong.methods.finetune import Finetune
from lifelong.methods.method import Context
from lifelong.methods.registry import make_method
from lifelong.settings.baselines import FinetuneSettings, LwFSettings
from lifelong.settings.growing import ExpertGateSettings
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.training import TrainingSettings
from lifelong.settings.tuning import Range, TuningSettings
from lifelong.training.examples import evaluate
from tests.experiment.test_resume import candidates
from tests.made import made_task
from tests.trees import same

HERE = Environment(device="cpu", threads=1)
SAVING = replace(HERE, save_every=0.0)
GRID = (("kd_weight", (20.0, 0.5)), ("lr", (0.001, 0.1)))


class MadeStream:
    """Two made tasks of 12 training images; `change` may replace one when it is built."""

    name = "made"

    def __init__(self, change: Callable[[int, Task], Task] = lambda index, task: task) -> None:
        self.change = change

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Task:
        return self.change(index, made_task(f"task {index}", kind=index, seed=index + 1, train=4, valid=12))

    def __iter__(self):
        return (self[index] for index in range(2))

    def describe(self) -> list[TaskDescription]:
        return [TaskDescription(f"task {index}", "made", ("a", "b", "c"), 12, 36, 24, 8) for index in range(2)]

    def prepare(self) -> None:
        pass

    def fingerprint(self) -> str:
        return "made"


class SmallNetwork(nn.Sequential):
    """Learns the made tasks in a few steps of a millisecond."""

    feature_dim = 16

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.BatchNorm1d(16), nn.ReLU())


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch):
    """Puts a stream in the place of the one that would be opened, and a small network in that of every backbone."""
    monkeypatch.setattr("lifelong.methods.backbone.make_backbone", lambda settings, image_size: SmallNetwork())

    def put(stream) -> None:
        monkeypatch.setattr(running, "open_stream", lambda *given: stream)

    put(MadeStream())
    return put


def config(method: str = "lwf", grid=GRID, **tuning) -> RunConfig:
    settings = {"lwf": LwFSettings, "finetune": FinetuneSettings}[method]()
    training = TrainingSettings(epochs=4, batch_size=8, lr=0.02)
    chosen = TuningSettings(grid=grid, **tuning)
    return RunConfig(stream="made", method=method, seed=3, preset="paper", training=training, settings=settings, tuning=chosen)


def state(out: Path):
    return RunDirectory(out).load()


def learned(wanted: RunConfig, before, index: int, values: dict) -> tuple[float, dict]:
    """By hand: one method learns one task with given values; its validation accuracy and its state."""
    settings = {key: value for key, value in values.items() if hasattr(wanted.settings, key)}
    training = {key: value for key, value in values.items() if hasattr(wanted.training, key)}
    method = make_method(wanted.method, replace(wanted.settings, **settings))
    method.load_state_dict(before)
    task = MadeStream()[index]
    trained = replace(wanted.training, **training)
    method.learn(task, Context(task_index=index, task_name=task.name, training=trained, seed=wanted.seed, device=torch.device("cpu")))
    return evaluate(lambda images: method.logits(images, index), task.valid), method.state_dict()


@pytest.mark.parametrize("tolerance", [0.0, 0.3])
def test_the_choice_is_that_of_a_loop_by_hand(streamed, tmp_path: Path, tolerance: float) -> None:
    wanted = config(tolerance=tolerance)
    summary = run(wanted, tmp_path / "run", HERE)
    before = make_method("lwf", wanted.settings).state_dict()
    for index, task in enumerate(summary["tasks"]):
        tried = [{"kd_weight": weight, "lr": rate} for weight in (20.0, 0.5) for rate in (0.001, 0.1)]
        came = [learned(wanted, before, index, values) for values in tried]
        accuracies = [accuracy for accuracy, _ in came]
        chosen = next(i for i, accuracy in enumerate(accuracies) if accuracy >= max(accuracies) - tolerance)
        trials = task["tuning"]["candidates"]
        assert [trial["values"] for trial in trials] == tried
        assert [trial["valid_accuracy"] for trial in trials] == accuracies
        assert task["tuning"]["chosen"] == chosen
        assert {key: task["hyperparameters"][key] for key in ("kd_weight", "lr")} == tried[chosen]
        before = came[chosen][1]
    assert same(state(tmp_path / "run")["method"], before)
    # Here the tolerance matters.
    assert summary["tasks"][0]["tuning"]["chosen"] == (0 if tolerance else 1)


@pytest.mark.parametrize("tuning", [None, TuningSettings(grid=(("lr", (0.02, 0.1)),))])
def test_a_restored_method_is_given_its_extractor(streamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning) -> None:
    """Chosen among candidates, or read from a finished run: without it, images of unknown tasks could not be told apart."""
    runners = []

    class Seen(running.Runner):
        def __init__(self, *given, **named) -> None:
            super().__init__(*given, **named)
            runners.append(self)

    monkeypatch.setattr(running, "Runner", Seen)
    settings = ExpertGateSettings(backbone="conv4", init_channels=2, extractor="pixels")
    training = TrainingSettings(epochs=2, batch_size=8)
    wanted = RunConfig(stream="made", method="expert-gate", seed=3, preset="paper", training=training, settings=settings, tuning=tuning)
    first, second = (run(wanted, tmp_path / "run", HERE) for _ in range(2))
    assert first == second
    images = MadeStream()[0].valid.images
    probabilities = [one.method.task_probabilities(images) for one in runners]
    assert probabilities[0].shape == (len(images), 2)
    assert torch.equal(*probabilities)


def test_the_future_has_no_influence(streamed, tmp_path: Path) -> None:
    """Other images in the second task: everything of the first, choice and weights, is the same bit for bit."""

    def other(index: int, task: Task) -> Task:
        return made_task("task 1", kind=9, seed=99, train=4, valid=12) if index == 1 else task

    saved = {}

    class Watch(Observer):
        def task_finished(self, index, record, accuracy) -> None:
            saved.setdefault(index, []).append((state(out)["method"], record["tuning"]["chosen"], record["tuning"]["candidates"]))

    for name, stream in (("a", MadeStream()), ("b", MadeStream(other))):
        out = tmp_path / name
        streamed(stream)
        run(config(), out, HERE, Watch())
    (weights, chosen, trials), (weights_b, chosen_b, trials_b) = saved[0]
    assert same(weights, weights_b)
    assert chosen == chosen_b
    assert [trial["valid_accuracy"] for trial in trials] == [trial["valid_accuracy"] for trial in trials_b]
    assert not same(saved[1][0][0], saved[1][1][0])


def test_no_test_image_is_touched_before_the_choice(streamed, tmp_path: Path) -> None:
    """A test split that raises until its task is learned."""
    done: list[int] = []

    def guarded(index: int, task: Task) -> Task:
        def load(split: str) -> Split:
            if split == "test" and index not in done:
                raise AssertionError(f"the test images of task {index} were touched")
            return getattr(task, split)

        return Task(task.name, task.classes, load)

    class Watch(Observer):
        started = 0

        def task_started(self, index: int, name: str) -> None:
            self.started = index

        def phase(self, name: str) -> None:
            if name == "evaluate":
                done.append(self.started)

    streamed(MadeStream(guarded))
    assert run(config(), tmp_path / "run", HERE, Watch())["complete"]
    assert done == [0, 1]


def test_the_cost_adds_up(streamed, tmp_path: Path) -> None:
    summary = run(config(), tmp_path / "run", HERE)
    for task in summary["tasks"]:
        report, phases = task["tuning"], task["seconds_by_phase"]
        trials = report["candidates"]
        assert report["epochs"] == sum(trial["epochs"] for trial in trials) == 16
        assert report["seconds"] == pytest.approx(sum(trial["seconds"] for trial in trials))
        assert task["seconds"] == pytest.approx(report["seconds"] + phases["evaluate"])
        assert phases["tune"] > sum(trial["seconds"] for index, trial in enumerate(trials) if index != report["chosen"])
        assert task["epochs"] == 4
    assert summary["tuning"]["candidates"] == 8
    assert summary["tuning"]["epochs"] == 32
    assert summary["tuning"]["seconds"] == pytest.approx(sum(task["tuning"]["seconds"] for task in summary["tasks"]))
    assert summary["seconds"] == pytest.approx(sum(task["seconds"] for task in summary["tasks"]))
    assert 'grid = "kd_weight=20.0,0.5 lr=0.001,0.1"' in (tmp_path / "run/config.toml").read_text()
    assert "lr" not in summary["settings"]
    assert not list((tmp_path / "run/checkpoint").glob("stages/*/*"))


class StopError(Exception):
    """What stops a run here."""


class StopAt(Observer):
    """Stops at an epoch's end of a candidate."""

    def __init__(self, task: int, candidate: int, epoch: int) -> None:
        self.at, self.here = (task, candidate, epoch), [0, 0]
        self.begun: list[tuple[int, int]] = []

    def task_started(self, index: int, name: str) -> None:
        self.here = [index, 0]

    def candidate(self, number: int, count: int, values: dict) -> None:
        self.here[1] = number
        self.begun.append((self.here[0], number))

    def epoch(self, event) -> None:
        if (*self.here, event.epoch) == self.at:
            raise StopError


def test_stopped_in_candidates_and_continued(streamed, tmp_path: Path) -> None:
    """In the second candidate of the first task, in the first and in the third of the second task; each time the run goes on there."""
    wanted = config(tolerance=0.1)
    run(wanted, tmp_path / "straight", HERE)
    out = tmp_path / "stopped"
    reached = (0, 0)
    for at in ((0, 1, 1), (1, 0, 2), (1, 2, 3)):
        stop = StopAt(*at)
        with pytest.raises(StopError):
            run(wanted, out, SAVING, stop)
        # Candidates that were finished are not learned again.
        assert stop.begun[0] == reached
        reached = at[:2]
    with pytest.raises(LifelongError, match=r"holds a run with tolerance = 0\.1, not 0\.2"):
        run(config(tolerance=0.2), out, HERE)
    run(wanted, out, SAVING)
    ours, theirs = state(out), state(tmp_path / "straight")
    assert same(ours["method"], theirs["method"])
    assert ours["accuracy"] == theirs["accuracy"]
    for mine, other in zip(ours["entries"], theirs["entries"], strict=True):
        assert candidates(mine) == candidates(other)


def test_a_finished_run_is_only_read(streamed, tmp_path: Path) -> None:
    summary = run(config(), tmp_path / "run", HERE)
    again = StopAt(9, 9, 9)
    assert run(config(), tmp_path / "run", HERE, again) == summary
    assert again.begun == []


def test_a_candidate_that_diverges_is_not_chosen(streamed, tmp_path: Path) -> None:
    wanted = config("finetune", grid=(("lr", (1e30, 0.02)),))
    summary = run(replace(wanted, training=replace(wanted.training, clip_norm=0.0)), tmp_path / "run", HERE)
    for task in summary["tasks"]:
        first, second = task["tuning"]["candidates"]
        assert first["valid_accuracy"] is None
        assert "NaN or infinite" in first["failure"]
        assert first["epochs"] == 1
        assert second["failure"] == ""
        assert task["tuning"]["chosen"] == 1


def test_nothing_can_be_trained(streamed, tmp_path: Path) -> None:
    wanted = config("finetune", grid=(("lr", (1e30, 1e31)),))
    with pytest.raises(LifelongError, match=r"task 'task 0': no candidate could be trained; .* lr 1e\+31") as caught:
        run(replace(wanted, training=replace(wanted.training, clip_norm=0.0)), tmp_path / "run", HERE)
    assert not isinstance(caught.value, DivergedError)


def test_no_validation_images(streamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = [replace(task, valid=0 if task.name == "task 1" else 36) for task in MadeStream().describe()]
    monkeypatch.setattr(MadeStream, "describe", lambda self: described)
    with pytest.raises(LifelongError, match="task 'task 1' has no validation images"):
        run(config(), tmp_path / "run", HERE)
    assert not (tmp_path / "run").exists()


def test_a_method_keeps_no_images_of_any_candidate(streamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def learn(self, task, context):
        kept.append(task.train.images)
        return Finetune.__mro__[1].learn(self, task, context)

    monkeypatch.setattr(Finetune, "learn", learn)
    with pytest.raises(RuntimeError, match="keeps images of task 'task 0'"):
        run(config("finetune", grid=(("lr", (0.01, 0.02)),)), tmp_path / "run", HERE)


@pytest.mark.parametrize(
    ("accuracies", "tolerance", "alive"),
    [
        ([0.5, 0.7, 0.7], 0.0, [1]),
        ([0.5, 0.7, 0.6, 0.72], 0.02, [1, 3]),
        ([0.90, 0.92], 0.02, [0, 1]),
        ([0.8, 0.92, 0.95], 0.1, [1, 2]),
        ([None, 0.3, None], 0.0, [1]),
        ([0.0, 0.0], 0.0, [0]),
        ([None], 0.0, []),
    ],
)
def test_who_can_still_be_chosen(accuracies, tolerance: float, alive: list[int]) -> None:
    assert contenders(accuracies, tolerance) == alive


def test_whoever_is_dropped_would_never_be_chosen() -> None:
    """Against the rule as it is written, for random accuracies: what is chosen at the end was alive all along."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        accuracies = (torch.randint(0, 12, (7,), generator=generator) / 12).tolist()
        tolerance = torch.randint(0, 4, (1,), generator=generator).item() / 12
        rule = next(i for i, accuracy in enumerate(accuracies) if accuracy >= max(accuracies) - tolerance - 1e-9)
        assert contenders(accuracies, tolerance)[0] == rule
        assert all(rule in contenders(accuracies[: n + 1], tolerance) for n in range(rule, len(accuracies)))


DRAWN = (("lr", Range(0.0005, 0.1)), ("epochs", Range(1, 3)), ("augment", (True, False)), ("momentum", Range(0.0, 0.9)))


def test_optuna_proposes_within_bounds_and_the_same_again() -> None:
    pytest.importorskip("optuna")
    tuning = TuningSettings(grid=DRAWN, trials=15)

    def drawn(seed: int) -> list[dict]:
        proposals, found = propose(tuning, seed), []
        for _ in range(proposals.count):
            found.append(proposals.ask())
            proposals.tell(-abs(found[-1]["lr"] - 0.05))
        return found

    first = drawn(2**62 + 1)
    assert len(first) == 15
    assert first == drawn(2**62 + 1)
    assert first != drawn(2)
    for values in first:
        assert 0.0005 <= values["lr"] <= 0.1
        assert type(values["epochs"]) is int
        assert 1 <= values["epochs"] <= 3
        assert 0 <= values["momentum"] <= 0.9
    assert {values["augment"] for values in first} == {True, False}
    # Evenly in the logarithm: of a range of a factor 200, more than a third lies below 0.01 while nothing is known.
    assert sum(values["lr"] < 0.01 for seed in range(6) for values in drawn(seed)[:9]) > 18


def test_a_run_that_optuna_tunes_continues(streamed, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    wanted = config("finetune", grid=(("lr", Range(0.0005, 0.1)), ("epochs", Range(1, 3))), trials=3)
    run(wanted, tmp_path / "straight", HERE)
    with pytest.raises(StopError):
        run(wanted, tmp_path / "stopped", HERE, StopAt(1, 2, 1))
    run(wanted, tmp_path / "stopped", HERE)
    ours, theirs = state(tmp_path / "stopped"), state(tmp_path / "straight")
    assert same(ours["method"], theirs["method"])
    values = [[trial["values"] for trial in entry["tuning"]["candidates"]] for entry in ours["entries"]]
    assert values == [[trial["values"] for trial in entry["tuning"]["candidates"]] for entry in theirs["entries"]]
    # Every task draws its own.
    assert values[0] != values[1]


def test_without_optuna(streamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(LifelongError, match=r"pip install 'lifelong\[tune\]"):
        run(config(trials=2), tmp_path / "run", HERE)
    assert not (tmp_path / "run").exists()
