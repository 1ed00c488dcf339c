"""Parts of a task's images, each with all classes: what a measure sees of two halves of one task tells what it sees in chance."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

HELD_OUT = 5
"""Every fifth image of a class is held out."""


def rank_in_class(labels: Int64[Tensor, "n"]) -> Int64[Tensor, "n"]:
    """Return the position of each image among those of its class, from 0."""
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels), device=labels.device) - starts[labels[order]]
    return ranks


def first_half(labels: Int64[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Choose every other image of each class; the rest is the second half."""
    return rank_in_class(labels) % 2 == 0


def held_out(labels: Int64[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Choose every fifth image of each class; none where no class has five."""
    return rank_in_class(labels) % HELD_OUT == HELD_OUT - 1
