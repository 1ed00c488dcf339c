"""AP and AF by hand."""

import math

import pytest

from lifelong.experiment.metrics import average_forgetting, average_performance, backward_transfer, maximal_forgetting, weighted_accuracy

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
    assert all(math.isnan(metric([])) for metric in (backward_transfer, maximal_forgetting))
    assert math.isnan(weighted_accuracy([], []))


def test_the_forms_of_other_papers_by_hand() -> None:
    # (0.6 - 0.9) + (0.85 - 0.8), over the two tasks before the last
    assert backward_transfer(ROWS) == pytest.approx(-0.25 / 2)
    # The best before the last task: 0.9 and 0.8.
    assert maximal_forgetting(ROWS) == pytest.approx((0.3 - 0.05) / 2)
    # A task that was best after the second: 0.7, 0.9, then 0.5; BWT looks at where it began.
    rows = [[0.7], [0.9, 0.8], [0.5, 0.8, 0.6]]
    assert maximal_forgetting(rows) == pytest.approx((0.4 + 0.0) / 2)
    assert backward_transfer(rows) == pytest.approx((-0.2 + 0.0) / 2)
    assert weighted_accuracy(ROWS, [10, 100, 890]) == pytest.approx((6 + 85 + 445) / 1000)


def test_one_task_has_no_transfer() -> None:
    assert math.isnan(backward_transfer([[0.9]]))
    assert math.isnan(maximal_forgetting([[0.9]]))
    assert weighted_accuracy([[0.9]], [7]) == pytest.approx(0.9)
    assert math.isnan(weighted_accuracy([[math.nan]], [0]))


def test_what_is_unknown() -> None:
    """A task whose images were away meanwhile is held against what is known; one that is unknown now makes the mean unknown."""
    assert maximal_forgetting([[0.9], [math.nan, 0.8], [0.6, 0.8, 0.5]]) == pytest.approx(0.3 / 2)
    assert math.isnan(maximal_forgetting([[0.9], [0.9, 0.8], [math.nan, 0.8, 0.5]]))
    assert math.isnan(backward_transfer([[0.9], [math.nan, 0.8]]))
