"""The divergence of a task from each earlier task: Eq. 2-4 of PAR.

Conventions where Eq. 4 is undefined:

- *A distance of zero* (a sample that equals a prototype; a class of one sample, which is its own prototype): rho and nu are not taken
  below the resolution of float32 features, 2^-23 of their root mean square length. Both at the floor give a log-ratio of 0: the same
  point. A class of one sample thus gets a very large, finite ratio, the limit of Eq. 4: its task counts as far from everything. With
  `leave_one_out` such a class is left out instead.
- *A class of the new task that cannot be measured* (no sample; one sample with `leave_one_out` or the correction for few images): it
  counts as the mean of the classes that can, so that the sum stays one over all classes, as the thresholds expect.
- *A class of an earlier task without samples*: it has no prototype and is never the nearest.
"""

import math

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from lifelong.errors import LifelongError
from lifelong.relatedness.bank import PrototypeBank, Prototypes
from lifelong.settings.par import RelatednessSettings

RESOLUTION = 2.0**-23
"""Relative spacing of float32 numbers: shorter distances between features are rounding."""


def divergences(
    features: Float[Tensor, "n d"],
    labels: Int64[Tensor, "n"],
    own: Prototypes,
    bank: PrototypeBank,
    settings: RelatednessSettings,
    *,
    few: bool = False,
) -> Float64[Tensor, "t"]:
    """Estimate KL(new task || earlier task) for every earlier task, in one pass.

    Args:
        features: features of the new task's samples, on any device.
        labels: their classes, in 0..C-1.
        own: the prototypes of the new task.
        bank: the prototypes of the t earlier tasks.
        settings: `clamp`, `leave_one_out` and `few_images` are used here.
        few: correct for the new task's small number of images (see `_few_images_bias`), as for earlier tasks with less than `few_images`
            per class.

    Returns:
        Eq. 4 for each earlier task: a sum over the new task's classes. Never below zero with `clamp` "pair" (the sum is clamped) or
        "class" (each class is).

    Raises:
        LifelongError: no class can be measured, or a divergence is not finite.

    Source: PAR Eq. 2-4; clamping per class: the authors' code.
    """
    if not len(bank):
        return features.new_zeros(0, dtype=torch.float64)
    counts = own.counts.double()
    few = few and bool((counts > 1).any())  # One image of a class has no spread that could be corrected.
    measurable = own.counts > (1 if settings.leave_one_out or few else 0)
    if not measurable.any():
        raise LifelongError(
            "leave_one_out needs a class with two images or more in the split of the features; give the task more, or switch it off"
        )
    floor = resolution(features) ** 2
    squares = bank.squared_distances(features, labels, own)
    rho = squares.own
    if settings.leave_one_out:
        # |x - mean of the others| = n/(n-1) |x - mean of all|.
        rho = rho * (counts / (counts - 1).clamp_min(1)).square()[labels]
    elif few:  # As for the variance of a sample: its mean lies nearer to it than the true one.
        rho = rho * (counts / (counts - 1).clamp_min(1))[labels]
    log_ratio = 0.5 * (squares.nearest.clamp_min(floor).log() - rho.clamp_min(floor).log()[:, None])  # (n, t)
    log_ratio -= _few_images_bias(bank, settings.few_images, every=few).to(log_ratio.device)
    share = torch.nn.functional.one_hot(labels, len(own.counts)).double() / own.counts.clamp_min(1)  # (n, C)
    per_class = (share.T @ log_ratio)[measurable]  # (C, t)
    if settings.clamp == "class":
        per_class = per_class.clamp_min(0)
    estimate = per_class.mean(0) * len(own.counts)
    if not estimate.isfinite().all():
        raise LifelongError(
            "the divergence from an earlier task is not a finite number: features are NaN or too large; check the extractor's weights"
        )
    return estimate.clamp_min(0) if settings.clamp == "pair" else estimate


def _few_images_bias(bank: PrototypeBank, few_images: int, *, every: bool) -> Float64[Tensor, "t"]:
    """Estimate by how much the log-ratio to each earlier task is too large, because its prototypes are means of few images.

    The mean of m images deviates from the true one, which makes nu^2 too large by a factor 1 + 1/m for separated classes. For
    overlapping ones the nearest of several prototypes is nearer than it should be, which compensates. Half of the logarithm is taken: of
    0, 1/4, 1/3, 1/2 and 1 the part with the smallest error for 5, 10 and 20 images of a class (results/few-images.csv).

    Args:
        bank: the prototypes of the earlier tasks.
        few_images: tasks with fewer images in a class are corrected; 0: none.
        every: correct for every earlier task, since the new one has few images.
    """
    biases = [task.few_images_bias if every or task.fewest < few_images else 0.0 for task in bank]
    return torch.tensor(biases, dtype=torch.float64)


def resolution(features: Float[Tensor, "n d"]) -> float:
    """Compute the shortest distance that float32 features of this length can resolve; positive even if all are zero."""
    length = torch.linalg.vector_norm(features, dtype=torch.float64).item() / math.sqrt(len(features))
    return max(RESOLUTION * length, math.sqrt(torch.finfo(torch.float64).tiny))
