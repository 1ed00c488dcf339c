"""Covariances of features: their scatter within classes, shrinkage, and the map under which Mahalanobis distances are Euclidean ones.

All of it is computed in float64, and is a function of its arguments alone.

Source: FeCAM (Goswami et al., NeurIPS 2023), section 3.3.
"""

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


def whitening(correlations: Float64[Tensor, "d d"]) -> Float64[Tensor, "d d"]:
    """Return W with |W x|^2 = x' S^-1 x: the inverse of the Cholesky factor of S, a lower triangle."""
    identity = torch.eye(len(correlations), dtype=correlations.dtype, device=correlations.device)
    factor = torch.linalg.cholesky(correlations + ROUNDING * len(correlations) * identity)
    return torch.linalg.solve_triangular(factor, identity, upper=False)
