"""The learning rate over the epochs, against numbers worked out by hand."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lifelong.settings.training import TrainingSettings
from lifelong.training.optimizer import SGD
from lifelong.training.schedule import Schedule

# Epoch by epoch: the validation accuracy after it, and the rate of the next one. Patience 1: the second epoch in a row without a
# better accuracy cuts the rate by a half, and counting restarts; an epoch without validation counts for nothing; 0.01 is the least.
PLATEAU = [
    (0.5, 0.08),
    (0.5, 0.08),  # no better: 1
    (0.4, 0.04),  # 2: cut
    (0.6, 0.04),  # better
    (0.6, 0.04),  # 1
    (0.7, 0.04),  # better
    (0.1, 0.04),  # 1
    (float("nan"), 0.04),
    (0.7, 0.02),  # 2: cut
    (0.7, 0.02),  # 1
    (0.7, 0.01),  # 2: cut
    (0.7, 0.01),  # 1
    (0.7, 0.01),  # 2: not below the least
]

SETTINGS = TrainingSettings(epochs=len(PLATEAU), lr=0.08, schedule="plateau", patience=1, plateau_factor=0.5, min_lr=0.01)


def made(settings: TrainingSettings) -> Schedule:
    return Schedule(SGD([nn.Parameter(torch.zeros(1))], lr=settings.lr, momentum=0.9, weight_decay=0.0), settings)


def rates(schedule: Schedule, first: int, last: int) -> list[float]:
    """The rate of each epoch of a part of PLATEAU."""
    seen = []
    for epoch in range(first, last):
        seen.append(schedule.start_epoch(epoch))
        schedule.end_epoch(PLATEAU[epoch][0])
    return seen


def test_plateau():
    expected = [0.08, *(rate for _, rate in PLATEAU[:-1])]
    assert rates(made(SETTINGS), 0, len(PLATEAU)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("stop", range(1, len(PLATEAU)))
def test_plateau_goes_on_from_a_saved_state(stop):
    straight = rates(made(SETTINGS), 0, len(PLATEAU))
    first, second = made(SETTINGS), made(SETTINGS)
    head = rates(first, 0, stop)
    second.load_state_dict(first.state_dict())
    assert head + rates(second, stop, len(PLATEAU)) == straight


def test_plateau_with_no_patience_given_never_cuts():
    assert set(rates(made(replace(SETTINGS, patience=0)), 0, len(PLATEAU))) == {0.08}


def test_cosine():
    schedule = made(replace(SETTINGS, schedule="cosine", epochs=4))
    half = 0.5**0.5
    assert [schedule.start_epoch(epoch) for epoch in range(4)] == pytest.approx([0.08, 0.04 * (1 + half), 0.04, 0.04 * (1 - half)])


@settings(max_examples=50, deadline=None)
@given(
    percents=st.lists(st.integers(0, 100), min_size=1, max_size=40),
    patience=st.integers(1, 4),
    factor=st.sampled_from([0.1, 0.3, 0.5]),
)
def test_plateau_is_that_of_pytorch(percents: list[int], patience: int, factor: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.08)
    plain = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=factor, patience=patience, min_lr=1e-4)
    ours = made(replace(SETTINGS, epochs=40, patience=patience, plateau_factor=factor, min_lr=1e-4))
    for epoch, accuracy in enumerate(percent / 100 for percent in percents):
        assert ours.start_epoch(epoch) == optimizer.param_groups[0]["lr"]
        ours.end_epoch(accuracy)
        plain.step(accuracy)
