"""Measures by means and covariances of a frozen network's features: Fréchet distances and the Mahalanobis distance."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lifelong.relatedness.bank import prototypes
from lifelong.relatedness.divergence import RESOLUTION
from lifelong.relatedness.feature_measures import stacked
from lifelong.relatedness.measures import Measure, Sample, kept_of
from lifelong.relatedness.subsamples import first_half, held_out
from lifelong.relatedness.transferability import ledoit_wolf
from lifelong.settings.par import RelatednessSettings
from lifelong.storage import Tree


class Gaussian(Measure):
    """The squared distance of two Gaussians, divided by the spread of both together.

    Few images make two samples of one distribution differ. How much is seen from the two halves of the new task, and is subtracted: the
    excess goes with 1 / n, n the number of images.
    """

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute the corrected distance from each earlier task, at least 0."""
        own, features = kept_of(self, sample, settings), sample.features.double()
        half = first_half(sample.labels)
        parts = [self.fitted(features[half]), self.fitted(features[~half])] if (~half).any() else [own, own]
        excess = self.squared_distance(*parts) / sum(1 / part["count"] for part in parts)
        found = []
        for earlier in kept:
            chance = excess * (1 / own["count"] + 1 / earlier["count"])
            both = self.spread(own) + self.spread(earlier)
            lengths = own["mean"].square().sum() + earlier["mean"].square().sum()
            square = (self.squared_distance(own, earlier) - chance).clamp_min(0)
            found.append(square / torch.maximum(both, RESOLUTION * lengths).clamp_min(torch.finfo(torch.float64).tiny))
        return stacked(found)

    def keep(self, sample: Sample, settings: RelatednessSettings) -> Tree:
        """Return the parameters of the Gaussian, and the number of images."""
        return self.fitted(sample.features.double())

    @abstractmethod
    def fitted(self, features: Float64[Tensor, "n d"]) -> Tree:
        """Fit a Gaussian."""

    @abstractmethod
    def squared_distance(self, first: Tree, second: Tree) -> Float64[Tensor, ""]:
        """Compute the squared distance of two Gaussians."""

    @abstractmethod
    def spread(self, fitted: Tree) -> Float64[Tensor, ""]:
        """Compute the trace of the covariance."""


class Frechet(Gaussian):
    """The Fréchet distance |m - m'|^2 + tr(S + S' - 2 (S^1/2 S' S^1/2)^1/2), with covariances shrunk by Ledoit and Wolf's share.

    Source: Dowson & Landau, The Fréchet distance between multivariate normal distributions (1982).
    """

    def fitted(self, features: Float64[Tensor, "n d"]) -> Tree:
        """Fit mean and shrunk covariance, of which the upper triangle is kept."""
        mean = features.mean(dim=0)
        return {"mean": mean, "covariance": packed(shrunk_covariance(features - mean)), "count": len(features)}

    def squared_distance(self, first: Tree, second: Tree) -> Float64[Tensor, ""]:
        """Compute the squared Fréchet distance."""
        a, b = (unpacked(fitted["covariance"]) for fitted in (first, second))
        values, vectors = torch.linalg.eigh(a)
        root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        common = torch.linalg.eigvalsh(root @ b @ root).clamp_min(0).sqrt().sum()
        return (first["mean"] - second["mean"]).square().sum() + (a.trace() + b.trace() - 2 * common).clamp_min(0)

    def spread(self, fitted: Tree) -> Float64[Tensor, ""]:
        """Compute the trace of the covariance."""
        return unpacked(fitted["covariance"]).trace()


class DiagonalFrechet(Gaussian):
    """The Fréchet distance of Gaussians with independent features: |m - m'|^2 + sum (v^1/2 - v'^1/2)^2."""

    def fitted(self, features: Float64[Tensor, "n d"]) -> Tree:
        """Fit mean and variances."""
        return {"mean": features.mean(dim=0), "variance": features.var(dim=0, correction=0), "count": len(features)}

    def squared_distance(self, first: Tree, second: Tree) -> Float64[Tensor, ""]:
        """Compute the squared Fréchet distance."""
        means = (first["mean"] - second["mean"]).square().sum()
        return means + (first["variance"].sqrt() - second["variance"].sqrt()).square().sum()

    def spread(self, fitted: Tree) -> Float64[Tensor, ""]:
        """Compute the sum of the variances."""
        return fitted["variance"].sum()


class Mahalanobis(Measure):
    """How many standard deviations farther from an earlier task's classes new images lie than its own did.

    D(f) = min over classes of (f - m_c)' S^-1 (f - m_c), with the shrunk covariance S within classes; z = (mean D - m_0) / s_0, with the
    mean m_0 and the deviation s_0 of D over a fifth of the earlier task's images, which took no part in m_c and S. A negative z counts
    as 0. The map to distances is 1 - exp(-z / 2).

    Source: Lee et al., A simple unified framework for detecting out-of-distribution samples (NeurIPS 2018).
    """

    def keep(self, sample: Sample, settings: RelatednessSettings) -> Tree:
        """Return class means, the inverse covariance (its upper triangle), and m_0 and s_0."""
        features, apart = sample.features.double(), held_out(sample.labels)
        rest, labels = (features[~apart], sample.labels[~apart])
        fitted = prototypes(rest, labels, sample.classes)
        covariance = shrunk_covariance(rest - fitted.means[labels])
        covariance.diagonal().add_(RESOLUTION * fitted.means[fitted.present].square().mean() + torch.finfo(torch.float64).tiny)
        kept = {"means": fitted.means[fitted.present].float(), "precision": packed(torch.linalg.inv(covariance))}
        squares = _nearest_squares(features[apart] if apart.any() else features, kept)
        return kept | {"mean": squares.mean().item(), "deviation": squares.std(correction=0).item()}

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute z for each earlier task, at least 0."""
        features = sample.features.double()
        found = []
        for earlier in kept:
            deviation = max(earlier["deviation"], RESOLUTION * features.shape[1])  # of one image, or of equal ones, it is 0
            found.append((_nearest_squares(features, earlier).mean() - earlier["mean"]) / deviation)
        return stacked(found).clamp_min(0)

    def to_distance(self, divergence: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Map z to 1 - exp(-z / 2)."""
        return -torch.expm1(-divergence.clamp_min(0) / 2)


def _nearest_squares(features: Float64[Tensor, "n d"], kept: Tree) -> Float64[Tensor, "n"]:
    """Compute the squared Mahalanobis distance of images to the nearest class."""
    precision = unpacked(kept["precision"])
    squares = []
    for mean in kept["means"].double():
        away = features - mean
        squares.append(((away @ precision) * away).sum(dim=1))
    return torch.stack(squares).amin(dim=0).clamp_min(0)


def shrunk_covariance(centred: Float64[Tensor, "n d"]) -> Float64[Tensor, "d d"]:
    """Compute the covariance of samples with mean zero, drawn towards a multiple of the identity by Ledoit and Wolf's share."""
    covariance, share = centred.T @ centred / len(centred), ledoit_wolf(centred)
    return (1 - share) * covariance + share * covariance.trace() / len(covariance) * torch.eye(len(covariance)).to(covariance)


def packed(matrix: Float64[Tensor, "d d"]) -> Float[Tensor, "_"]:
    """Return the upper triangle of a symmetric matrix in float32, which is what is kept of it."""
    rows, columns = torch.triu_indices(*matrix.shape, device=matrix.device)
    return matrix[rows, columns].float()


def unpacked(triangle: Float[Tensor, "_"]) -> Float64[Tensor, "d d"]:
    """Return the symmetric matrix of an upper triangle."""
    length = int(((8 * len(triangle) + 1) ** 0.5 - 1) / 2)
    rows, columns = torch.triu_indices(length, length, device=triangle.device)
    matrix = triangle.new_zeros(length, length, dtype=torch.float64)
    matrix[rows, columns] = triangle.double()
    matrix[columns, rows] = triangle.double()
    return matrix
