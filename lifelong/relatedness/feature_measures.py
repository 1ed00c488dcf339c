"""Measures by the features of a frozen network as points or directions: nearest neighbors, kernel means, cosines and subspaces."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.divergence import resolution
from lifelong.relatedness.measures import Bounded, Measure, OfPrototypes, Sample, kept_of
from lifelong.relatedness.neighbors import kth_distances
from lifelong.relatedness.subsamples import first_half
from lifelong.settings.par import RelatednessSettings
from lifelong.storage import Tree

FREQUENCIES = 1024
"""Random frequencies of a kernel mean: within 10 % of the exact MMD^2 for features of 256 numbers."""

PAIRS = 1000
"""Most images of the first task whose pairs of distances give the bandwidth."""

DIRECTIONS = 10
"""Principal directions of a task's subspace; at most a quarter of all, or two tasks' could not but overlap."""


class NeighborKL(Measure):
    """KL(new || earlier) from distances to nearest neighbors, per feature dimension (Eq. 1).

    Eq. 1 multiplies the mean log-ratio by the number of dimensions, of which features vary in few: divided by it again, divergences are
    on a scale where Eq. 6 tells them apart.
    """

    def keep(self, sample: Sample, settings: RelatednessSettings) -> Tree:
        """Return the features themselves."""
        return sample.features.clone()

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute Eq. 1, divided by the number of dimensions."""
        points = sample.features.double()
        count, length = points.shape
        floor, k = resolution(points), settings.measure_neighbors
        own = kth_distances(points, points, k, themselves=True).clamp_min(floor)
        found = []
        for earlier in kept:
            other = kth_distances(points, earlier.double(), k).clamp_min(floor)
            found.append((other / own).log().mean() + math.log(len(earlier) / max(count - 1, 1)) / length)
        return stacked(found)

    def refusal(self, settings: RelatednessSettings) -> str:
        """Refuse to work where features of earlier tasks are not to be kept."""
        if settings.keep_features:
            return ""
        return "the measure 'knn-kl' compares with the features of earlier tasks' images; allow it to keep them with --keep-features"


class KernelMean(Bounded):
    """The maximum mean discrepancy of a Gaussian kernel, by random Fourier features: the distance of mean features in [0, 1].

    phi(f) = m^-1/2 [cos f W, sin f W],  W ~ N(0, 1 / sigma^2);  distance = (MMD^2 / 2)^1/2. The bandwidth sigma, the median distance of
    two images of the first task, and W hold for the whole stream. The unbiased estimate of MMD^2 is taken, at least 0.

    Source: Gretton et al., A kernel two-sample test (JMLR 2012); Rahimi & Recht, Random features (NeurIPS 2007).
    """

    def keep(self, sample: Sample, settings: RelatednessSettings) -> Tree:
        """Return the mean of the random features, the number of images and the bandwidth."""
        features = sample.features.double()
        bandwidth = _median_distance(features) if sample.first is None else sample.first["bandwidth"]
        angles = features @ _frequencies(features.shape[1], bandwidth).to(features)
        mean = torch.cat([angles.cos(), angles.sin()], dim=1).mean(dim=0) / math.sqrt(FREQUENCIES)
        return {"mean": mean, "count": len(features), "bandwidth": bandwidth}

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute the distance from each kept mean."""
        own = kept_of(self, sample, settings)
        squares = [_unbiased(own) + _unbiased(earlier) - 2 * (own["mean"] @ earlier["mean"]) for earlier in kept]
        return (stacked(squares).clamp_min(0) / 2).sqrt()


def _unbiased(task: Tree) -> Float64[Tensor, ""]:
    """Estimate the squared length of the true mean: without the pairs of an image with itself, for which the kernel is 1."""
    count = task["count"]
    return (count * task["mean"].square().sum() - 1) / (count - 1) if count > 1 else task["mean"].square().sum()


def _frequencies(length: int, bandwidth: float) -> Float64[Tensor, "d m"]:
    drawn = torch.randn(length, FREQUENCIES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn / bandwidth


def _median_distance(features: Float64[Tensor, "n d"]) -> float:
    """Compute the median distance of two different images; 1 where all are equal."""
    return (torch.pdist(features[:PAIRS]).median().item() or 1.0) if len(features) > 1 else 1.0


class PrototypeCosine(OfPrototypes, Bounded):
    """How well each class of the new task points in the direction of some class of an earlier one: (1 - cosine) / 2, the mean."""

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute for each earlier task the mean over new classes of the distance to the most similar earlier class."""
        own = prototypes(sample.features, sample.labels, sample.classes)
        bank = PrototypeBank.from_state(kept, sample.features.device)
        bank.check(own)
        new = _directions(own.known)
        found = []
        for index in range(len(bank)):
            earlier = _directions(bank[index].known)
            found.append(((1 - new @ earlier.T) / 2).amin(dim=1).mean())
        return stacked(found)


def _directions(means: Float64[Tensor, "c d"]) -> Float64[Tensor, "c d"]:
    return torch.nn.functional.normalize(means, dim=1)


class Subspace(Bounded):
    """How little the principal subspaces of two tasks' features overlap.

    overlap = |U_new' U_old|_F^2 / k, U the first k right singular vectors of the centred features: 1 for the same subspace, about k / d
    for unrelated ones. The distance is 0 for the overlap of two halves of the new task, and 1 for that of unrelated subspaces.
    """

    def keep(self, sample: Sample, settings: RelatednessSettings) -> Tree:
        """Return the principal directions."""
        return _principal(sample.features.double()).float()

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute the distance from each kept subspace."""
        own = kept_of(self, sample, settings).double()
        half = first_half(sample.labels)
        features = sample.features.double()
        most = _overlap(_principal(features[half]), _principal(features[~half])) if (~half).sum() > 1 else 1.0
        least = own.shape[1] / features.shape[1]
        overlaps = stacked([own.new_tensor(_overlap(own, earlier.double())) for earlier in kept])
        return (1 - (overlaps - least) / max(most - least, 1e-9)).clamp(0, 1)


def _principal(features: Float64[Tensor, "n d"]) -> Float64[Tensor, "d k"]:
    centred = features - features.mean(dim=0)
    kept = max(1, min(DIRECTIONS, features.shape[1] // 4, len(features) - 1))
    return torch.linalg.svd(centred, full_matrices=False).Vh[:kept].T


def _overlap(first: Float64[Tensor, "d k"], second: Float64[Tensor, "d l"]) -> float:
    return (first.T @ second).square().sum().item() / min(first.shape[1], second.shape[1])


def stacked(values: Sequence[Float[Tensor, ""]]) -> Float64[Tensor, "t"]:
    """Return scalars as a vector in float64; no scalars as an empty one."""
    return torch.stack(list(values)).double() if values else torch.zeros(0, dtype=torch.float64)
