"""What a person may exchange: the examples keep their contracts and stay short; what does not keep them is found out."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn

import lifelong
from lifelong.cli import main
from lifelong.errors import ConformanceError, LifelongError
from lifelong.registry import Registry
from lifelong.report.gallery import FIGURES, made_summary
from lifelong.report.html import write_report
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.fields import check, expected
from lifelong.settings.par import PARSettings
from lifelong.settings.sockets import ALLOCATIONS, BACKBONES, DECISIONS, ENGINES, EXTRACTORS, MEASURES, OBSERVERS, REGULARIZERS

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = "digits?tasks=3&train_per_class=6&valid_per_class=4&test_per_class=4"
LENGTHS = {
    "new_measure": 25,
    "new_regularizer": 40,
    "new_allocation": 40,
    "new_decision": 30,
    "new_extractor": 15,
    "new_method": 60,
    "new_figure": 25,
    "new_backbone": 20,
    "new_observer": 12,
    "new_engine": 40,
}
"""The most lines an example may have, without its text and empty ones."""

SOCKETS = (MEASURES, DECISIONS, REGULARIZERS, ALLOCATIONS, EXTRACTORS, BACKBONES, OBSERVERS, FIGURES, ENGINES)


@pytest.fixture(autouse=True)
def forgotten():
    """What a test registers is known only in it."""
    before = {registry.kind: dict(registry._entries) for registry in SOCKETS}
    yield
    for registry in SOCKETS:
        registry._entries = before[registry.kind]


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", LENGTHS)
def test_an_example_is_one_short_file(name):
    lines = (EXAMPLES / f"{name}.py").read_text().split('"""', 2)[2].splitlines()
    assert len([line for line in lines if line.strip()]) <= LENGTHS[name]


def test_a_measure_of_ones_own():
    example("new_measure")
    lifelong.check_measure("mean-shift")
    ours = lifelong.distances(SMALL, preset="quick", measure="mean-shift")
    assert ours["divergences"] != lifelong.distances(SMALL, preset="quick")["divergences"]


def test_a_run_by_a_measure_of_ones_own_is_found_again(tmp_path):
    example("new_measure")
    few = {"preset": "quick", "epochs": 1, "search_epochs": 1, "init_channels": 2, "device": "cpu"}
    summary = lifelong.run(SMALL, measure="mean-shift", out=tmp_path / "run", **few)
    learner = lifelong.Learner.load(tmp_path / "run")
    assert len(learner.predict(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))) == 2
    assert summary["tasks"][1]["divergences"] == pytest.approx(lifelong.distances(SMALL, measure="mean-shift", **few)["divergences"][1])


def test_the_measure_of_the_paper_keeps_its_contract():
    lifelong.check_measure("prototype-kl")


def test_a_regularizer_of_ones_own(tmp_path):
    example("new_regularizer")
    lifelong.check_regularizer("springs", images=3)
    shared = {
        "variant": "regularization",
        "preset": "quick",
        "epochs": 2,
        "init_channels": 2,
        "cells": 2,
        "device": "cpu",
        "augment": False,
    }
    held = lifelong.run(SMALL, regularizer="springs", kd_weight=1e6, out=tmp_path / "held", **shared)
    free = lifelong.run(SMALL, regularizer="springs", kd_weight=0.0, out=tmp_path / "free", **shared)
    moved = [lifelong.Learner.load(tmp_path / name)._saved.method.experts[0] for name in ("held", "free")]
    assert held["accuracy"][0] == free["accuracy"][0]
    first, second = (torch.cat([weight.flatten() for weight in expert.parameters()]) for expert in moved)
    assert not torch.equal(first, second)
    assert held["memory"]["regularizer"] == 2 * 4 * sum(weight.numel() for weight in moved[0].parameters())


def test_a_decision_of_ones_own(tmp_path):
    example("new_decision")
    lifelong.check_decision("within-spread", images=3)
    few = {"preset": "quick", "epochs": 1, "init_channels": 2, "device": "cpu", "variant": "fixed+regularization"}
    summary = lifelong.run(SMALL, decision="within-spread", out=tmp_path / "run", **few)
    features = [task.valid.images.flatten(1).float() for task in lifelong.open_stream(SMALL)]
    assert [task["decision"] for task in summary["tasks"]] == ["reuse-cell", "reuse-expert", "reuse-expert"]
    assert summary["memory"]["decision"] == 3 * 4 * (features[0].shape[1] + 1)
    assert summary["tasks"][1]["reason"].endswith("spreads from task 0: shared")


def test_an_allocation_of_ones_own():
    example("new_allocation")
    lifelong.check_allocation("shrink-perturb", images=3)


def test_an_allocation_of_ones_own_by_flag(tmp_path, capsys):
    plugin = ["--plugin", str(EXAMPLES / "new_allocation.py")]
    few = ["--preset", "quick", "--epochs", "1", "--search-epochs", "1", "--init-channels", "2", "--device", "cpu"]
    wanted = ["--allocation", "shrink-perturb", "--variant", "coarse+fine"]
    assert main(["run", "--stream", SMALL, *few, *wanted, *plugin, "--out", str(tmp_path / "run")]) == 0
    tasks = json.loads((tmp_path / "run" / "summary.json").read_text())["tasks"]
    assert [task["decision"] for task in tasks] == ["search", "reuse-cell", "reuse-cell"]
    assert len({task["genotype"] for task in tasks}) == 1
    assert tasks[1]["reason"].endswith("experts are never shared: new expert by the allocation 'shrink-perturb'")
    capsys.readouterr()
    assert main(["run", "--stream", SMALL, *few, "--allocation", "shrink-pertub", "--out", str(tmp_path / "other")]) == 2
    assert "did you mean 'shrink-perturb'?" in capsys.readouterr().err


def test_an_extractor_of_ones_own():
    example("new_extractor")
    lifelong.check_extractor("thumbnail")
    assert lifelong.distances(SMALL, preset="quick", extractor="thumbnail")["extractor"] == "thumbnail"


def test_a_run_knows_an_extractor_by_its_weights(tmp_path):
    def network():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    lifelong.register_extractor("mine", network)
    few = {"preset": "quick", "epochs": 1, "init_channels": 2, "search_epochs": 1, "device": "cpu", "extractor": "mine"}
    seed = 0
    lifelong.run(SMALL, out=tmp_path / "run", **few)
    seed = 1
    with pytest.raises(LifelongError, match="extractor digest"):
        lifelong.run(SMALL, out=tmp_path / "run", **few)


class Constant(lifelong.Measure):
    def keep(self, sample, settings):
        return {}

    def divergences(self, sample, kept, settings):
        return torch.ones(len(kept))


class TooMany(Constant):
    def divergences(self, sample, kept, settings):
        return torch.ones(len(kept) + 1)


class Endless(Constant):
    def divergences(self, sample, kept, settings):
        return torch.full((len(kept),), torch.nan)


class Forgetful(Constant):
    def keep(self, sample, settings):
        return torch.rand(())

    def divergences(self, sample, kept, settings):
        return torch.rand(len(kept))


@pytest.mark.parametrize(
    ("measure", "line"),
    [
        (Constant, "not nearer than another"),
        (TooMany, "one finite number for each"),
        (Endless, "one finite number"),
        (Forgetful, "survive a file"),
    ],
)
def test_a_measure_that_breaks_its_contract(measure, line):
    lifelong.register_measure("broken", measure)
    with pytest.raises((ConformanceError, LifelongError), match=line):
        lifelong.check_measure("broken")


class Batchy(nn.Module):
    def forward(self, images):
        return images.flatten(1) - images.flatten(1).mean(0)


class Unbounded(nn.Module):
    def forward(self, images):
        return images.flatten(1) / 0.0


@pytest.mark.parametrize(("make", "line"), [(Batchy, "other images of a batch"), (Unbounded, "not finite")])
def test_an_extractor_that_breaks_its_contract(make, line):
    lifelong.register_extractor("broken", make)
    with pytest.raises(ConformanceError, match=line):
        lifelong.check_extractor("broken")


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: lifelong.register_measure("mine", Constant()), "a subclass of Measure"),
        (
            lambda: lifelong.register_measure("mine", lifelong.Measure),
            "register_measure: .*: give a subclass of .* that has keep and diverg",
        ),
        (lambda: lifelong.register_measure("bad name!", Constant), "letters, digits"),
        (lambda: lifelong.register_measure("prototype-kl", Constant), "registered already"),
        (lambda: lifelong.register_regularizer("mine", Constant), "a subclass of Regularizer"),
        (lambda: lifelong.register_allocation("mine", Constant), "a subclass of Allocation that has plan and build"),
        (lambda: lifelong.register_allocation("mine", lifelong.Allocation), "a subclass of Allocation that has plan and build"),
        (lambda: lifelong.register_decision("mine", Constant), "a subclass of DecisionRule that has decide"),
        (lambda: lifelong.check_decision("orcale"), "did you mean 'oracle'"),
        (lambda: lifelong.distances("digits", decision="z-score"), "grouped by the thresholds, without training"),
        (
            lambda: lifelong.make_method("par", PARSettings(decision="z-score", variant="fine")),
            "has nothing to decide: --variant fine never shares",
        ),
        (lambda: lifelong.make_method("par", PARSettings(decision="z-score", expert="head")), "--decision z-score is for --expert cells"),
        (lambda: lifelong.register_observer("mine", Constant), "give a subclass of Observer$"),
        (lambda: lifelong.check_allocation("serched"), "did you mean 'searched'"),
        (lambda: lifelong.register_extractor("mine", nn.Flatten()), "a function without arguments"),
        (lambda: lifelong.register_backbone("mine", nn.Flatten()), "give the class itself, or a function"),
        (lambda: lifelong.check_measure("prototype-k"), "did you mean 'prototype-kl'"),
        (lambda: lifelong.distances("digits", measure="prototype-k"), "did you mean 'prototype-kl'"),
        (lambda: lifelong.distances("digits", extractor="resnet"), "expected one of 'auto', 'resnet18', 'pixels'"),
    ],
)
def test_what_cannot_be_registered_is_one_line(call, line):
    with pytest.raises(LifelongError, match=line) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["finetune", "independent", "ewc", "er"])
def test_a_backbone_of_ones_own(tmp_path, method):
    """It is built for the images' size, saved, and found again."""
    example("new_backbone")
    lifelong.run(SMALL, out=tmp_path / "run", method=method, backbone="pixels-mlp", preset="quick", epochs=1, init_channels=2, device="cpu")
    learner = lifelong.Learner.load(tmp_path / "run")
    assert len(learner.predict(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))) == 2
    (layer, *_) = [module for module in learner._saved.method.modules(0)[0].modules() if isinstance(module, nn.Linear)]
    assert layer.weight.shape == (16, 3 * 8 * 8)


def test_a_backbone_keeps_its_contract():
    example("new_backbone")
    lifelong.check_backbone("pixels-mlp", images=3)


def test_a_backbone_that_breaks_its_contract():
    class Short(nn.Flatten):
        feature_dim = 5

        def __init__(self, image_size, width):
            super().__init__()

    lifelong.register_backbone("short", Short)
    with pytest.raises(Exception, match=r"mat1 and mat2|5"):
        lifelong.check_backbone("short")
    lifelong.register_backbone("none", lambda image_size, width: nn.Flatten())
    with pytest.raises(LifelongError, match="feature_dim = None"):
        lifelong.check_backbone("none")


def test_networks_of_timm_are_named_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(LifelongError, match="needs timm"):
        lifelong.make_method("finetune", FinetuneSettings(backbone="timm:resnet18")).make_network()


def test_a_network_of_timm(tmp_path):
    pytest.importorskip("timm", reason="timm is not installed")
    lifelong.check_backbone("timm:resnet10t", images=3)


def test_a_figure_of_ones_own(tmp_path):
    example("new_figure")
    lifelong.check_figure("worth")
    lifelong.run(SMALL, out=tmp_path / "run", preset="quick", method="finetune", epochs=1, init_channels=2, device="cpu")
    assert (tmp_path / "run" / "figures" / "worth.png").stat().st_size > 1000
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="more"' in page
    assert "accuracy of each task against the parameters that it added" in page


def test_a_figure_that_fails_does_not_cost_the_report(tmp_path, caplog):
    lifelong.register_figure("failing", lambda summary: summary["nothing"], "nothing")
    lifelong.register_figure("absent", lambda summary: None, "nothing either")
    assert (tmp_path / "report.html") == write_report(tmp_path, made_summary() | {"preset": "quick"})
    assert "the figure 'failing' cannot be drawn" in caplog.text
    assert 'id="more"' not in (tmp_path / "report.html").read_text()
    with pytest.raises(ConformanceError, match="KeyError"):
        lifelong.check_figure("failing")


@pytest.mark.parametrize("name", FIGURES)
def test_the_figures_of_the_report_keep_their_contract(name):
    lifelong.check_figure(name)


def test_an_observer_of_ones_own(tmp_path, capsys):
    example("new_observer")
    lifelong.check_observer("bell")
    few = {"preset": "quick", "method": "finetune", "epochs": 1, "init_channels": 2, "device": "cpu"}
    lifelong.run(SMALL, out=tmp_path / "run", observe=["bell"], progress=False, **few)
    assert "ding: AP" in capsys.readouterr().out


class Recording(lifelong.Observer):
    heard: ClassVar[list[str]] = []

    def task_started(self, index, name):
        self.heard.append(f"{index} {name}")

    def task_saved(self, run, entries, accuracy):
        self.heard.append(f"{len(entries)} saved, {len(accuracy[-1])} judged, {(run / 'results.jsonl').exists()}")


class Failing(lifelong.Observer):
    def epoch(self, event):
        raise RuntimeError("no network")


def test_any_number_of_observers_hear_and_one_that_fails_does_not_cost_the_run(tmp_path, capsys):
    Recording.heard = []
    lifelong.register_observer("recording", Recording)
    lifelong.register_observer("failing", Failing)
    few = {"preset": "quick", "method": "finetune", "epochs": 1, "init_channels": 2, "device": "cpu"}
    lifelong.run(SMALL, out=tmp_path / "run", observe=["failing", "recording", "failing"], **few)
    assert Recording.heard[:3] == ["0 low", "1 saved, 1 judged, True", "1 high"]
    assert capsys.readouterr().out.count("the observer 'failing' failed, and hears nothing more: RuntimeError: no network") == 1
    with pytest.raises(ConformanceError, match="epoch failed: RuntimeError: no network"):
        lifelong.check_observer("failing")


def test_observers_by_flag(tmp_path, capsys):
    lifelong.register_observer("recording", Recording)
    Recording.heard = []
    small = ["--preset", "quick", "--method", "finetune", "--epochs", "1", "--init-channels", "2", "--device", "cpu"]
    assert main(["run", "--stream", SMALL, *small, "--observe", "recording", "--out", str(tmp_path / "run")]) == 0
    assert len(Recording.heard) >= 6
    assert main(["run", "--stream", SMALL, *small, "--observe", "recordin", "--out", str(tmp_path / "other")]) == 2
    assert "unknown observer 'recordin'; did you mean 'recording'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_service_whose_package_is_not_there_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LifelongError, match=f"--observe {name} needs the package {name}"):
        lifelong.run(SMALL, out=tmp_path / "run", preset="quick", observe=[name])
    assert not (tmp_path / "run").exists()


def test_services_are_told(monkeypatch):
    """Against stand-ins that take what the packages take."""
    logged = []
    run = SimpleNamespace(log=logged.append, summary={}, finish=lambda: logged.append("finished"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda project, name, config: run))
    lifelong.check_observer("wandb")
    assert {"task": 2, "train/loss": 0.5, "train/accuracy": 0.5} in logged
    assert run.summary == {"ap": 0.75, "af": 0.0, "parameters": 20}
    steps = []
    there = SimpleNamespace(
        start_run=lambda run_name: steps.append(run_name),
        log_metrics=lambda metrics, step=None: steps.append((sorted(metrics), step)),
        end_run=lambda: steps.append("ended"),
    )
    monkeypatch.setitem(sys.modules, "mlflow", there)
    lifelong.check_observer("mlflow")
    assert steps[:2] == ["finetune on made", (["train/accuracy", "train/loss"], 1)]
    assert steps[-1] == "ended"


def test_an_engine_of_ones_own():
    """Each run by a command, as a batch system starts it: a job is plain data, and its outcome a file."""
    example("new_engine")
    lifelong.check_engine("commands")


def test_the_engine_of_this_machine_keeps_its_contract():
    lifelong.check_engine("local")


class InTurn:
    def run(self, jobs, workers, begin):
        for position, job in enumerate(jobs):
            yield position, lifelong.perform(job, begin(position))


class Forgets(InTurn):
    def run(self, jobs, workers, begin):
        yield from list(super().run(jobs, workers, begin))[:-1]


class Stops(InTurn):
    def run(self, jobs, workers, begin):
        for position, outcome in super().run(jobs, workers, begin):
            if outcome.summary is None:
                raise LifelongError(outcome.failure)
            yield position, outcome


class Invents(InTurn):
    def run(self, jobs, workers, begin):
        for position, outcome in super().run(jobs, workers, begin):
            yield position, lifelong.RunOutcome(outcome.summary.model_copy(update={"parameters": 0})) if outcome.summary else outcome


class Silent(InTurn):
    def run(self, jobs, workers, begin):
        return super().run(jobs, workers, lambda position: lifelong.Observer())


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        (Forgets, "has one outcome once: \\[0, 1\\]"),
        (Stops, "is not empty and holds no run"),
        (Invents, "the summary of a job is not that of its folder"),
        (Silent, "begins once: \\[\\]"),
    ],
)
def test_an_engine_that_breaks_its_contract(engine, line):
    lifelong.register_engine("broken", engine)
    with pytest.raises((ConformanceError, LifelongError), match=line):
        lifelong.check_engine("broken")


def test_an_engine_by_flag(tmp_path, capsys):
    lifelong.register_engine("in-turn", InTurn)
    lifelong.check_engine("in-turn")
    words = [
        "compare",
        "--stream",
        SMALL,
        "--methods",
        "finetune",
        "--seeds",
        "0,1",
        "--preset",
        "quick",
        "--epochs",
        "1",
        "--device",
        "cpu",
    ]
    assert main([*words, "--engine", "in-turn", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").exists()
    for command in (words, ["reproduce", "table3", "--scale", "tiny"]):
        assert main([*command, "--engine", "in-tern", "--out", str(tmp_path / "other")]) == 2
        assert "unknown engine 'in-tern'; did you mean 'in-turn'?" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    with pytest.raises(LifelongError, match="give a class with the method run"):
        lifelong.register_engine("mine", InTurn())


def test_a_registry_imports_what_it_names_only_when_asked():
    from lifelong.registry import Entry

    registry = Registry("thing", Entry("one", "json:dumps", "", ""), Entry("two", "not_a_module:at_all", "", ""))
    assert "not_a_module" not in sys.modules
    assert registry["one"]([1]) == "[1]"
    assert list(registry) == ["one", "two"]
    with pytest.raises(LifelongError, match=r"unknown thing 'ones'; did you mean 'one'"):
        registry["ones"]


def test_a_setting_of_a_registry_says_what_it_accepts():
    hint = PARSettings.__annotations__["regularizer"]
    known = "one of 'distillation', 'feature-distillation', 'ewc', 'mas', 'l2-sp', 'none', 'frozen'"
    assert expected(hint) == known
    lifelong.register_regularizer("nothing", type("Free", (lifelong.Regularizer,), {"loss": lambda self, shared: None}))
    assert check(hint, "nothing") == "nothing"
    assert expected(hint) == f"{known}, 'nothing'"
    for wrong in (3, None, ["distillation"], "distil"):
        with pytest.raises(ValueError, match="expected one of"):
            check(hint, wrong)
