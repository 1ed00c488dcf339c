"""Covariances of features: their scatter within classes, shrinkage, and Mahalanobis distances.

All of it is computed in float64, and is a function of its arguments alone.

Source: FeCAM (Goswami et al., NeurIPS 2023), section 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from lifelong.training.closed_form import ROUNDING, Rows


@dataclass(frozen=True)
class Scatter:
    """How features scatter around the means of their classes. Scatters of several tasks add up, in any order.

    Attributes:
        matrix: the sum of (f - mean)(f - mean)' over all images.
        degrees: images minus classes, by which the sum is divided for a covariance.
    """

    matrix: Float64[Tensor, "d d"]
    degrees: int

    @property
    def covariance(self) -> Float64[Tensor, "d d"]:
        """The unbiased covariance; zeros where no class has two images."""
        return self.matrix / max(1, self.degrees)

    def __add__(self, other: "Scatter") -> "Scatter":
        """Return the scatter of both sets of images."""
        return Scatter(self.matrix.to(other.matrix) + other.matrix, self.degrees + other.degrees)


def scatter_within(rows: Rows) -> Scatter:
    """Compute the scatter of features around the mean of each one's class.

    Args:
        rows: in float64.
    """
    targets = rows.targets
    counts = targets.sum(dim=0)
    centered = rows.features - (targets / counts.clamp_min(1)) @ (targets.T @ rows.features)
    return Scatter(centered.T @ centered, len(rows) - int((counts > 0).sum()))


def shrunk(covariance: Float64[Tensor, "d d"], shrinkage: float) -> Float64[Tensor, "d d"]:
    """Shrink a covariance: add multiples of its mean variance to variances, and of its mean covariance to the others.

    With one factor for both, the result is as positive as the covariance itself; the paper's code has two, and uses 1 for both.

    Args:
        covariance: without variance at all it becomes the identity.
        shrinkage: the factor, above 0.
    """
    size = len(covariance)
    identity = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    variance = covariance.diagonal().mean()
    between = (covariance.sum() - size * variance) / max(1, size * (size - 1))
    found = covariance + shrinkage * (variance * identity + between * (1 - identity))
    return torch.where(variance > 0, found, identity)


def correlation(covariance: Float64[Tensor, "d d"]) -> Float64[Tensor, "d d"]:
    """Divide a covariance by the standard deviations of its features: ones on the diagonal."""
    deviations = covariance.diagonal().sqrt()
    return covariance / (deviations[:, None] * deviations)


def factor(correlations: Float64[Tensor, "d d"]) -> Float64[Tensor, "d d"]:
    """Return the Cholesky factor L of S = L L', a lower triangle; what is left of S by rounding is added to its diagonal."""
    identity = torch.eye(len(correlations), dtype=correlations.dtype, device=correlations.device)
    return torch.linalg.cholesky(correlations + ROUNDING * len(correlations) * identity)


def whitening(triangle: Float64[Tensor, "d d"]) -> Float64[Tensor, "d d"]:
    """Return W = L^-1, with which |W x|^2 = x' S^-1 x."""
    identity = torch.eye(len(triangle), dtype=triangle.dtype, device=triangle.device)
    return torch.linalg.solve_triangular(triangle, identity, upper=False)


def distances(
    features: Float64[Tensor, "n d"], means: Float64[Tensor, "c d"], triangles: Sequence[Float64[Tensor, "d d"]]
) -> Float64[Tensor, "n c"]:
    """Compute squared distances |L^-1 (f - mean)|^2 of few features to class means, without the inverses.

    Args:
        features, means: what is compared.
        triangles: L for each class, or one for all.
    """
    each = triangles if len(triangles) > 1 else [triangles[0]] * len(means)
    columns = []
    for mean, triangle in zip(means, each, strict=True):
        mapped = torch.linalg.solve_triangular(triangle, (features - mean).T, upper=False)  # (d, n)
        columns.append(mapped.square().sum(dim=0))
    return torch.stack(columns, dim=1)
