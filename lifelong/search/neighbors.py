"""Nearest neighbors: how well features separate a task's classes, without training."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from lifelong.training.examples import batched


def nearest_labels(
    features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], queries: Float[Tensor, "m d"], neighbors: int
) -> Int64[Tensor, "m"]:
    """Find the most common label among the nearest labelled points by Euclidean distance; on ties the smallest label.

    Args:
        features: the labelled points.
        labels: class ids.
        queries: the points to classify.
        neighbors: how many points vote; all if there are fewer.
    """
    voters, classes = min(neighbors, len(labels)), int(labels.max()) + 1

    def elect(part: Tensor) -> Tensor:
        # Not by the scalar product, which loses the digits that separate close points.
        distances = torch.cdist(part, features, compute_mode="donot_use_mm_for_euclid_dist")  # (b, n)
        nearest = distances.topk(voters, dim=1, largest=False).indices  # (b, voters)
        return F.one_hot(labels[nearest], classes).sum(dim=1).argmax(dim=1)

    return batched(elect, queries)
