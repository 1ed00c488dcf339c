"""Summarize the predictions on a task's test images."""

from jaxtyping import Int64
from torch import Tensor

from lifelong.records.base import plain
from lifelong.records.task import Judged

MOST_CLASSES = 100
"""Largest number of classes for which the confusion matrix is stored: with a thousand it would have a million numbers."""


def judged(counts: Int64[Tensor, "c c"]) -> Judged:
    """Return recall, confusion matrix and majority share for a task's record.

    Args:
        counts: test images by true (rows) and predicted class (columns).

    Returns:
        The summary; its confusion matrix is None for more than `MOST_CLASSES` classes.
    """
    images = counts.sum(dim=1)
    total = int(images.sum())
    return Judged(
        recall=plain((counts.diagonal() / images).tolist()),
        confusion=counts.tolist() if len(counts) <= MOST_CLASSES else None,
        majority=int(images.max()) / total if total else None,
    )


def right_share(counts: Int64[Tensor, "c c"]) -> float:
    """Return the accuracy, in [0, 1]; NaN if there are no images."""
    total = int(counts.sum())
    return int(counts.diagonal().sum()) / total if total else float("nan")
