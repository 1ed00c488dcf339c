"""Average performance and average forgetting (PAR Eq. 11)."""

from collections.abc import Sequence

Rows = Sequence[Sequence[float]]
"""Row i: accuracies, in [0, 1], on tasks 0..i after task i was learned."""


def average_performance(accuracy: Rows) -> float:
    """AP: the mean of the last row; NaN before any task."""
    if not accuracy:
        return float("nan")
    return sum(accuracy[-1]) / len(accuracy[-1])


def average_forgetting(accuracy: Rows) -> float:
    """AF: the mean over all t tasks of (accuracy now - accuracy when just learned); negative is forgetting.

    The last task contributes 0 and counts in the divisor, as in Eq. 11.
    """
    if not accuracy:
        return float("nan")
    return sum(now - accuracy[task][task] for task, now in enumerate(accuracy[-1])) / len(accuracy[-1])
