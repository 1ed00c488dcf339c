"""What is kept of how a task's test images were answered."""

from typing import Any

from jaxtyping import Int64
from torch import Tensor

MOST_CLASSES = 100
"""Classes of a task up to which its confusion matrix is kept: of a thousand it would have a million numbers."""


def judged(counts: Int64[Tensor, "c c"]) -> dict[str, Any]:
    """Return what stands in a task's record, as plain values.

    Args:
        counts: test images by what they are (rows) and what they are taken for (columns).

    Returns:
        ``recall``: of each class the share that is answered rightly, NaN where it has no test image; ``confusion``: the counts, None for
        more than `MOST_CLASSES` classes; ``majority``: the share of the largest class, which an answer without looking would reach, NaN
        without images.
    """
    images = counts.sum(dim=1)
    total = int(images.sum())
    return {
        "recall": (counts.diagonal() / images).tolist(),
        "confusion": counts.tolist() if len(counts) <= MOST_CLASSES else None,
        "majority": int(images.max()) / total if total else float("nan"),
    }


def right_share(counts: Int64[Tensor, "c c"]) -> float:
    """Return the accuracy, in [0, 1]; NaN for no images."""
    total = int(counts.sum())
    return int(counts.diagonal().sum()) / total if total else float("nan")
