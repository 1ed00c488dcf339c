"""Learn to Grow: what a task adds, what it reuses, and what stays of earlier tasks."""

import re

import pytest
import torch
from torch import Tensor

from lifelong.data.task import Task
from lifelong.methods.learn_to_grow import LearnToGrow
from lifelong.methods.method import LearnRecord
from lifelong.networks.growing_resnet import CONVOLUTIONS, NEW, Choice, ChoicePath
from lifelong.settings.growing import LearnToGrowSettings
from lifelong.settings.training import TrainingSettings
from tests.made import made_split, made_task
from tests.methods.test_par import context, unchanged, weights

TRAINING = TrainingSettings(epochs=2, batch_size=12, lr=0.05, patience=0)
REUSE, ADAPT = Choice("reuse", 0), Choice("adapt", 0)


def grow(**changes) -> LearnToGrow:
    return LearnToGrow(LearnToGrowSettings(**{"init_channels": 4, "search_epochs": 2, "search_lr": 0.05, **changes}))


def learn(method: LearnToGrow, *tasks: Task, training: TrainingSettings = TRAINING) -> list[LearnRecord]:
    start = len(method.tasks)
    return [method.learn(task, context(start + index, training)) for index, task in enumerate(tasks)]


def force(monkeypatch: pytest.MonkeyPatch, path: ChoicePath) -> None:
    """Have every search come to a path."""
    monkeypatch.setattr(LearnToGrow, "_search", lambda self, *rest: path)


def answers(method: LearnToGrow, task: int) -> Tensor:
    return method.logits(made_split(3, 8, seed=77, kind=task).images, task)


def test_the_first_task_is_an_ordinary_light_resnet():
    method = grow(init_channels=64)
    (record,) = learn(method, made_task(), training=TrainingSettings(epochs=1, batch_size=18))
    assert record.parameters_added == method.num_parameters() == 606_400 + 64 * 3 + 3
    assert "search" not in record.seconds


# At 4 channels a convolution has 144, its adapter 16; the stem 108 and 12; batch norms 160; a head of three classes 15.
@pytest.mark.parametrize(
    ("path", "added"),
    [
        ((REUSE,) * 20, 160 + 15),
        ((NEW,) * 20, 108 + 16 * 144 + 3 * 16 + 160 + 15),
        ((ADAPT, NEW, ADAPT, *(REUSE,) * 17), 12 + 144 + 16 + 160 + 15),
    ],
)
def test_what_a_path_adds(monkeypatch, path: ChoicePath, added: int):
    method = grow()
    (first,) = learn(method, made_task())
    force(monkeypatch, path)
    (record,) = learn(method, made_task(kind=1, seed=1))
    assert first.parameters_added == 108 + 16 * 144 + 3 * 16 + 160 + 15
    assert record.parameters_added == added
    kinds = [sum(choice.kind == kind for choice in path) for kind in ("reuse", "adapt", "new")]
    assert record.reason == "of 20 convolutions {} are reused, {} adapted and {} new".format(*kinds)


def test_how_sure_the_search_is_stands_beside_what_it_found():
    """Three choices for each convolution; Adam's first steps are as long as its rate, whatever the images say."""
    method = grow(search_epochs=1)
    _, record = learn(method, made_task(), made_task(kind=1, seed=1))
    found = re.search(r"new; the choices weigh (0\.\d+) on average, 0\.333 if nothing had been learned$", record.reason)
    assert found is not None
    assert 0.333 <= float(found[1]) < 0.34


def test_nothing_of_earlier_tasks_changes(monkeypatch):
    """Over tasks that reuse, adapt, adapt an adapted variant, and start a new one; weights and batch-norm statistics too."""
    method = grow()
    (_,) = learn(method, made_task())
    kept, logits = [], []
    twice = Choice("adapt", 1)
    for path in [(ADAPT, NEW, *(REUSE,) * 18), (twice, Choice("reuse", 1), ADAPT, *(REUSE,) * 17), (NEW,) * 20]:
        kept.append([weights(module) for module in method.modules(len(method.tasks) - 1)])
        logits.append(answers(method, len(method.tasks) - 1))
        force(monkeypatch, path)
        learn(method, made_task(kind=len(method.tasks), seed=len(method.tasks)))
    for task, (old, answer) in enumerate(zip(kept, logits, strict=True)):
        assert all(unchanged(module, before) for module, before in zip(method.modules(task), old, strict=True))
        assert torch.equal(answers(method, task), answer)
    assert [len(variants) for variants in method.grown.variants] == [4, 3, 3] + [2] * 17
    # What the third task borrows of its stem: the adapted one, and what that adapts.
    stem = method.networks[2].get_submodule(CONVOLUTIONS[0])
    assert stem.base is method.networks[1].get_submodule(CONVOLUTIONS[0])
    assert stem.base.base is method.networks[0].get_submodule(CONVOLUTIONS[0])
    assert {id(stem.base), id(stem.base.base)} < {id(module) for module in method.modules(2)}


def test_an_adapter_is_used_beside_what_it_adapts(monkeypatch):
    """In the learned network, not only in the search: without its adapters it is the old convolution, and that is not nothing."""
    method = grow()
    learn(method, made_task())
    force(monkeypatch, (ADAPT,) * 20)
    learn(method, made_task(kind=1, seed=1))
    x = torch.randn(2, 3, 8, 8)
    stem = method.networks[1].get_submodule(CONVOLUTIONS[0])
    old = method.networks[0].get_submodule(CONVOLUTIONS[0])
    assert torch.equal(stem(x), old(x) + stem.adapter(x))
    stem.adapter.weight.data.zero_()
    assert torch.equal(stem(x), old(x))
    assert old(x).abs().max() > 0


def test_a_repeated_task_is_reused_at_a_high_price():
    method = grow(size_weight=10.0)
    _, record = learn(method, made_task(seed=1), made_task(seed=2))
    assert method.paths[1] == (REUSE,) * 20
    assert record.parameters_added == 160 + 15
    assert record.seconds["search"] > 0


def test_a_state_keeps_paths_and_who_borrows_of_whom(monkeypatch):
    method, again = grow(), grow()
    learn(method, made_task())
    for path in [(ADAPT, NEW, *(REUSE,) * 18), (Choice("adapt", 1), Choice("reuse", 1), *(REUSE,) * 18)]:
        force(monkeypatch, path)
        learn(method, made_task(kind=len(method.tasks)))
    again.load_state_dict(method.state_dict())
    assert again.paths == method.paths
    assert again.num_parameters() == method.num_parameters()
    assert all(torch.equal(answers(again, task), answers(method, task)) for task in range(3))
