"""SG-F: candidates from the top down, the best of them, and what stays of earlier tasks."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lifelong.methods.method import LearnRecord
from lifelong.methods.sgf import SGF
from lifelong.networks.softgates import Gate
from lifelong.settings.growing import SGFSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.fit import FitOutcome
from tests.made import made_split, made_task
from tests.methods.test_par import context, unchanged, weights

TRAINING = TrainingSettings(epochs=3, batch_size=9, lr=0.05, patience=0)


def sgf(**changes) -> SGF:
    return SGF(SGFSettings(**{"init_channels": 4, "gate_channels": 4, "backbone": "conv4", **changes}))


def learn(method: SGF, tasks: int, training: TrainingSettings = TRAINING) -> list[LearnRecord]:
    return [method.learn(made_task(kind=i, seed=i), context(i, training)) for i in range(len(method.tasks), tasks)]


def answers(method: SGF, task: int) -> Tensor:
    return method.logits(made_split(3, 8, seed=77, kind=task).images, task)


def decide(method: SGF, monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> list[int]:
    """Have candidates reach given accuracies, untrained; returns which of them are tried."""
    tried = []

    def fit(module, examples, predict, settings, stage):
        module.eval()
        new = int(stage.name.removeprefix("train-"))
        tried.append(new)
        return FitOutcome(1, 1, accuracies[new], 0.0, 0.0)

    monkeypatch.setattr("lifelong.methods.sgf.fit_selected", fit)
    return tried


@pytest.mark.parametrize(("backbone", "positions"), [("light-resnet18", 5), ("conv4", 4)])
def test_candidates_from_the_top_down(monkeypatch, backbone: str, positions: int):
    method = sgf(backbone=backbone)
    tried = decide(method, monkeypatch, [0.5, 0.6, 0.7, 0.7, 0.4, 0.4])
    learn(method, 1)
    assert tried == [positions]
    assert method.widths == [(1,) * positions]
    tried.clear()
    learn(method, 2)
    assert tried == list(range(positions + 1))
    # The last two: the best, and of the best the one with fewest new modules.
    assert method.widths[1] == (1,) * (positions - 2) + (2, 2)


def test_without_validation_images_nothing_is_added(monkeypatch):
    method = sgf()
    decide(method, monkeypatch, [float("nan")] * 5)
    learn(method, 2)
    assert method.widths[1] == (1,) * 4


@pytest.mark.parametrize("augment", [True, False])
def test_the_best_of_all_candidates_is_kept(augment: bool):
    training = replace(TRAINING, augment=augment)
    method, again = sgf(), sgf()
    learn(method, 1, training)
    again.load_state_dict(method.state_dict())
    (record,) = learn(method, 2, training)
    task = made_task(kind=1, seed=1)
    candidates = [again.candidate(new, task, context(1, training), LearnRecord()) for new in range(5)]
    accuracies = [candidate.outcome.accuracy for candidate in candidates]
    best = accuracies.index(max(accuracies))
    assert record.reason.startswith(f"new modules at the last {best} of 4 positions")
    assert record.hyperparameters["valid_accuracy"] == max(accuracies)
    assert record.epochs == 5 * 3
    assert method.widths[1] == (1,) * (4 - best) + (2,) * best
    assert all(torch.equal(a, b) for a, b in zip(candidates[best].head.parameters(), method.heads[1].parameters(), strict=True))


def test_candidates_change_nothing_that_is_kept():
    method = sgf()
    learn(method, 1)
    old = [weights(module) for module in method.modules(0)]
    for new in range(5):
        method.candidate(new, made_task(kind=1, seed=1), context(1, TRAINING), LearnRecord())
    assert all(unchanged(module, before) for module, before in zip(method.modules(0), old, strict=True))
    assert method.widths == [(1,) * 4]


def test_old_answers_and_gates_stay(monkeypatch):
    """Tasks that each add modules, whatever helps: old gates keep their width, old answers their bits."""
    method = sgf()
    learn(method, 1)
    first = answers(method, 0)
    with monkeypatch.context() as patch:
        decide(method, patch, [0.1, 0.2, 0.3, 0.4, 0.5])
        learn(method, 2)
        second = answers(method, 1)
        gates = weights(method.networks[1])
        learn(method, 3)
    learn(method, 4)
    assert method.widths[:3] == [(1,) * 4, (2,) * 4, (3,) * 4]
    assert torch.equal(answers(method, 0), first)
    assert torch.equal(answers(method, 1), second)
    assert unchanged(method.networks[1], gates)
    widths = [[module.weights.out_features for module in network.modules() if isinstance(module, Gate)] for network in method.networks]
    assert widths[:3] == [[], [2] * 4, [3] * 4]
    assert [len(method.modules(task)) for task in range(3)] == [1 + 4 + 1, 1 + 8 + 1, 1 + 12 + 1]


def test_the_first_task_is_a_plain_network():
    method = sgf()
    learn(method, 1)
    blocks = [pool[0] for pool in method.library.modules]
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(method.predict(images, 0), nn.Sequential(*blocks, method.heads[0])(images))


def test_sizes_at_64_channels(monkeypatch):
    """A light ResNet-18; then gates where there are two modules, and what is new; heads of three classes."""
    method = SGF(SGFSettings())
    decide(method, monkeypatch, [0.1, 0.2, 0.1, 0.1, 0.1, 0.1])
    records = learn(method, 2)
    head, gate = 64 * 3 + 3, (64 + 16) * 16 * 9 + 64 + 34
    assert records[0].parameters_added == 606_400 + head
    assert records[1].parameters_added == 152_192 + gate + head
    # Of all positions, as the method's text has it.
    assert 4 * gate + (3 + 16) * 16 * 9 + 64 + 34 == 49_306
