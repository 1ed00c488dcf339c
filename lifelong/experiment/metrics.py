"""Metrics of a run: average performance and forgetting (PAR Eq. 11), and the forms used in other papers."""

import math
from collections.abc import Sequence

from lifelong.experiment.accuracies import best_before

Rows = Sequence[Sequence[float]]
"""Row i: accuracies, in [0, 1], on tasks 0..i after task i was learned."""


def average_performance(accuracy: Rows) -> float:
    """Return AP, the mean of the last row; NaN before any task."""
    if not accuracy:
        return float("nan")
    return sum(accuracy[-1]) / len(accuracy[-1])


def average_forgetting(accuracy: Rows) -> float:
    """Return AF, the mean over all t tasks of (accuracy now - accuracy when just learned); negative is forgetting.

    The last task contributes 0 and counts in the divisor, as in Eq. 11.
    """
    if not accuracy:
        return float("nan")
    return sum(now - accuracy[task][task] for task, now in enumerate(accuracy[-1])) / len(accuracy[-1])


def backward_transfer(accuracy: Rows) -> float:
    """Return BWT (Lopez-Paz & Ranzato 2017): AF over the t - 1 tasks before the last, which cannot be forgotten yet; NaN for one task."""
    earlier = list(enumerate(accuracy[-1][:-1])) if accuracy else []
    return sum(now - accuracy[task][task] for task, now in earlier) / len(earlier) if earlier else float("nan")


def maximal_forgetting(accuracy: Rows, best: Sequence[float] | None = None) -> float:
    """Return forgetting as defined by Chaudhry et al. (2018) and FACIL; positive is forgetting, unlike in AF and BWT.

    The mean over the t - 1 tasks before the last of (best known accuracy before the last task was learned - accuracy now); NaN before a
    second task.

    Args:
        accuracy: accuracies as above.
        best: what `best_before` returns, if that is known.
    """
    lost = [most - accuracy[-1][task] for task, most in enumerate(best_before(accuracy) if best is None else best)]
    return sum(lost) / len(lost) if lost else math.nan


def weighted_accuracy(accuracy: Rows, images: Sequence[int]) -> float:
    """Return the share of all test images classified correctly after the last task: AP weighted by test images; NaN if there are none.

    Args:
        accuracy: accuracies as above.
        images: number of test images of each task.
    """
    total = sum(images)
    return sum(now * count for now, count in zip(accuracy[-1], images, strict=True)) / total if accuracy and total else float("nan")
