"""PNN: what is trained with a new column, and what never changes again."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lifelong.methods.conformance import check_method
from lifelong.methods.pnn import PNN
from lifelong.networks.progressive import outputs_of
from lifelong.settings.growing import PNNSettings
from lifelong.settings.training import TrainingSettings
from tests.made import made_split, made_task
from tests.methods.test_par import context, unchanged, weights

TRAINING = TrainingSettings(epochs=3, batch_size=8, lr=0.05, patience=0)
FORMS = pytest.mark.parametrize("lateral", ["adapter", "copies"])


def learn(method: PNN, tasks: int, training: TrainingSettings = TRAINING) -> PNN:
    for index in range(len(method.tasks), tasks):
        method.learn(made_task(kind=index, seed=index), context(index, training))
    return method


def pnn(tasks: int, **changes) -> PNN:
    return learn(PNN(PNNSettings(init_channels=4, **changes)), tasks)


def answers(method: PNN, task: int) -> Tensor:
    return method.logits(made_split(3, 8, seed=77, kind=task).images, task)


@FORMS
def test_old_answers_and_columns_keep_their_bits(lateral: str) -> None:
    method = pnn(2, lateral=lateral)
    before, columns = [answers(method, task) for task in (0, 1)], [weights(column) for column in method.columns]
    learn(method, 3)
    assert all(torch.equal(answers(method, task), before[task]) for task in (0, 1))
    assert all(unchanged(column, kept) for column, kept in zip(method.columns, columns, strict=False))


@FORMS
def test_all_of_a_new_column_is_trained_and_nothing_else(lateral: str) -> None:
    """Without weight decay only gradients move a parameter: scales, adapters, copies, and the first batch norm too."""
    method = pnn(1, lateral=lateral)
    with context(1, TRAINING).seeded("column"):
        start = dict(method._make_column(3, 1).named_parameters())
    learn(method, 2, replace(TRAINING, weight_decay=0.0))
    old, new = method.columns
    assert [name for name, parameter in new.named_parameters() if torch.equal(parameter, start[name])] == []
    new.requires_grad_(True)
    images = torch.randn(4, 3, 8, 8)
    new(images, outputs_of([old], images)).sum().backward()
    assert all(parameter.grad is None for parameter in old.parameters())


def test_a_task_counts_earlier_columns_without_their_heads() -> None:
    method = pnn(2)
    total = sum(parameter.numel() for column in method.columns for parameter in column.parameters())
    own = sum(parameter.numel() for module in method.modules(1) for parameter in module.parameters())
    assert method.num_parameters() == total == own + 4 * 3 + 3


def test_learns() -> None:
    method = learn(PNN(PNNSettings(init_channels=8)), 2, replace(TRAINING, epochs=8))
    split = made_split(3, 16, seed=5, kind=1)
    assert (method.logits(split.images, 1).argmax(dim=1) == split.labels).float().mean() > 0.8


def test_state_round_trip() -> None:
    method = pnn(2)
    again = PNN(method.settings)
    again.load_state_dict(method.state_dict())
    assert all(torch.equal(answers(again, task), answers(method, task)) for task in (0, 1))
    assert not any(parameter.requires_grad for column in again.columns for parameter in column.parameters())
    learn(again, 3)
    assert torch.equal(answers(again, 2), answers(learn(method, 3), 2))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"lateral": "copies"}, {"backbone": "conv4"}])
def test_other_forms_keep_the_contract(changes: dict) -> None:
    check_method(lambda: PNN(PNNSettings(init_channels=4, **changes)))
