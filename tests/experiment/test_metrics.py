"""AP and AF by hand."""

import math

import pytest

from lifelong.experiment.metrics import average_forgetting, average_performance

ROWS = [[0.9], [0.7, 0.8], [0.6, 0.85, 0.5]]


def test_by_hand() -> None:
    assert average_performance(ROWS) == pytest.approx((0.6 + 0.85 + 0.5) / 3)
    # (0.6 - 0.9) + (0.85 - 0.8) + 0, over three tasks
    assert average_forgetting(ROWS) == pytest.approx(-0.25 / 3)


def test_reference_run_of_the_authors() -> None:
    """The published run on CIFAR100-10, seed 0: AP 0.850, AF -0.0146 (facts of the authors' results.png)."""
    learned = [0.859, 0.848, 0.859, 0.836, 0.876, 0.924, 0.900, 0.795, 0.865, 0.885]
    last = [0.790, 0.848, 0.835, 0.808, 0.876, 0.899, 0.900, 0.795, 0.865, 0.885]
    rows = [learned[: task + 1] for task in range(9)] + [last]
    assert average_performance(rows) == pytest.approx(0.850, abs=5e-4)
    assert average_forgetting(rows) == pytest.approx(-0.0146, abs=5e-4)


def test_nothing_learned_yet() -> None:
    assert math.isnan(average_performance([]))
    assert math.isnan(average_forgetting([]))
