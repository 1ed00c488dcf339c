"""What is kept of how a task's test images were answered."""

from jaxtyping import Int64
from torch import Tensor

from lifelong.records.base import plain
from lifelong.records.task import Judged

MOST_CLASSES = 100
"""Classes of a task up to which its confusion matrix is kept: of a thousand it would have a million numbers."""


def judged(counts: Int64[Tensor, "c c"]) -> Judged:
    """Return what stands in a task's record.

    Args:
        counts: test images by what they are (rows) and what they are taken for (columns).

    Returns:
        The confusion matrix is None for more than `MOST_CLASSES` classes.
    """
    images = counts.sum(dim=1)
    total = int(images.sum())
    return Judged(
        recall=plain((counts.diagonal() / images).tolist()),
        confusion=counts.tolist() if len(counts) <= MOST_CLASSES else None,
        majority=int(images.max()) / total if total else None,
    )


def right_share(counts: Int64[Tensor, "c c"]) -> float:
    """Return the accuracy, in [0, 1]; NaN for no images."""
    total = int(counts.sum())
    return int(counts.diagonal().sum()) / total if total else float("nan")
