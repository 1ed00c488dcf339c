"""Measures, decisions, regularizers and allocations of one's own: examples keep their contracts, what does not is found out."""

import json

import pytest
import torch

import lifelong
from lifelong.cli import main
from lifelong.errors import ConformanceError, LifelongError
from tests.sockets.examples import EXAMPLES, SMALL, Constant, example


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
    moved = [lifelong.Learner.load(tmp_path / name)._known()._saved.method.experts[0] for name in ("held", "free")]
    assert held["accuracy"][0] == free["accuracy"][0]
    first, second = (torch.cat([weight.flatten() for weight in expert.parameters()]) for expert in moved)
    assert not torch.equal(first, second)
    assert held["memory"]["regularizer"] == 2 * 4 * sum(weight.numel() for weight in moved[0].parameters())


def test_a_regularizer_that_gives_a_number_is_named():
    class Number(lifelong.Regularizer):
        def loss(self, shared):
            return torch.zeros(())

    lifelong.register_regularizer("a-number", Number)
    with pytest.raises((ConformanceError, LifelongError), match="'a-number': loss gave a Tensor; it must give a function from a batch"):
        lifelong.check_regularizer("a-number", images=3)


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
