"""Nearest neighbors: how well features separate a task's classes, without training."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

ROWS = 256
"""Points whose distances to all others are held at once."""


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
    nearest = [distances.topk(min(neighbors, len(labels)), largest=False).indices for distances in _distances(queries, features)]
    return _elected(labels, torch.cat(nearest))


def labels_by_others(features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], neighbors: int) -> Int64[Tensor, "n"]:
    """Find for each point the most common label among the nearest of the others; on ties the smallest label.

    Args:
        features: at least two points.
        labels: their class ids.
        neighbors: how many points vote; all others if there are fewer.
    """
    found, start = [], 0
    for distances in _distances(features, features):
        distances[torch.arange(len(distances)), torch.arange(start, start + len(distances))] = torch.inf
        found.append(distances.topk(min(neighbors, len(labels) - 1), largest=False).indices)
        start += len(distances)
    return _elected(labels, torch.cat(found))


def kth_distances(
    points: Float[Tensor, "m d"], others: Float[Tensor, "n d"], neighbor: int, *, themselves: bool = False
) -> Float[Tensor, "m"]:
    """Compute the distance of each point to its k-th nearest of the others; to the farthest, if there are fewer than k.

    Args:
        points: from which to measure.
        others: to which.
        neighbor: k.
        themselves: the others are the same points: none is a neighbor of its own.
    """
    rank = min(neighbor, len(others) - themselves) + themselves  # each point is the nearest to itself
    return torch.cat([distances.kthvalue(rank).values for distances in _distances(points, others)])


def _distances(points: Float[Tensor, "m d"], others: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "b n"]]:
    """Yield the distances of some points to all others at a time.

    They are not computed by the scalar product, which loses the digits that separate close points.
    """
    for part in points.split(ROWS):
        yield torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist")


def _elected(labels: Int64[Tensor, "n"], nearest: Int64[Tensor, "m k"]) -> Int64[Tensor, "m"]:
    return F.one_hot(labels[nearest], int(labels.max()) + 1).sum(dim=1).argmax(dim=1)
