"""Heads on precomputed features: ridge regression, logistic regression, and the scale that makes scores probabilities.

All of it is computed in float64 (on the CPU where a device has none), and is a function of its arguments alone: nothing is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional

from lifelong.devices import exact

RIDGES = tuple(10.0**power for power in range(-8, 9))
"""The ridge penalties that are tried. Source: RanPAC's code."""

SCALES = tuple(2.0 ** (power / 2) for power in range(-4, 21))
"""The factors of scores that are tried, from 0.25 to 1024."""

HELD_OUT = 5
"""Where a task has no validation images, every fifth training image of a class takes their part."""

ROUNDING = 1e-12
"""Share of the largest eigenvalue below which a penalty could not tell noise from zero."""

ITERATIONS = 100
"""Largest number of L-BFGS iterations of a logistic regression."""

PATIENCE = 2
"""Penalties without a better validation accuracy after which no weaker one is tried."""


@dataclass(frozen=True)
class Rows:
    """Features and labels of some images.

    Attributes:
        features: of shape (n, d).
        labels: class ids in 0..classes-1.
        classes: number of classes.
        originals: how many of the rows are images themselves; the others are copies of these, all of them in this order, once or several
            times. None: all rows are images.
    """

    features: Float[Tensor, "n d"]
    labels: Int64[Tensor, "n"]
    classes: int
    originals: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def targets(self) -> Float64[Tensor, "n c"]:
        """The labels as one-hot rows."""
        return functional.one_hot(self.labels, self.classes).double()

    def taken(self, places: Tensor) -> "Rows":
        """Return some of the rows, by position or as a mask."""
        return Rows(self.features[places], self.labels[places], self.classes)

    def with_rows(self, *others: "Rows") -> "Rows":
        """Return these rows followed by others."""
        parts = [self, *others]
        return Rows(torch.cat([part.features for part in parts]), torch.cat([part.labels for part in parts]), self.classes)


def exact_rows(features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], classes: int, originals: int | None = None) -> Rows:
    """Return rows in float64."""
    found = exact(features)
    return Rows(found, labels.to(found.device), classes, originals)


def to_judge(train: Rows, valid: Rows) -> tuple[Rows, Rows]:
    """Divide images into those to fit by and those to choose by: the validation images, or else every fifth training image of a class.

    Copies of training images that choose do neither.
    """
    if len(valid):
        return train, valid
    images = len(train) if train.originals is None else train.originals
    held = torch.zeros(images, dtype=torch.bool, device=train.labels.device)
    for label in range(train.classes):
        held[(train.labels[:images] == label).nonzero().flatten()[HELD_OUT - 1 :: HELD_OUT]] = True
    if not bool(held.any()):
        return train, train
    return train.taken(~held.repeat(len(train) // images)), train.taken(held.nonzero().flatten())


def ridge(rows: Rows, penalty: float) -> Float64[Tensor, "d c"]:
    """Solve min |F W - Y|^2 + penalty |W|^2, in whichever of its two forms is smaller.

    Args:
        rows: F and the labels of Y, in float64.
        penalty: above 0.
    """
    features, targets = rows.features, rows.targets
    if len(features) < features.shape[1]:
        return features.T @ solve_ridge(features @ features.T, targets, penalty)
    return solve_ridge(features.T @ features, features.T @ targets, penalty)


def solve_ridge(gram: Float64[Tensor, "d d"], moments: Float64[Tensor, "d c"], penalty: float) -> Float64[Tensor, "d c"]:
    """Solve a ridge regression from its statistics: (F'F + penalty I) W = F'Y.

    Args:
        gram: F'F, possibly summed over tasks.
        moments: F'Y of the classes that are wanted.
        penalty: raised where rounding would swallow it.
    """
    least = ROUNDING * gram.diagonal().sum().item()
    shifted = gram + max(penalty, least) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(moments, torch.linalg.cholesky(shifted))


def choose_ridge(train: Rows, valid: Rows) -> float:
    """Choose the ridge penalty: the least squared error on validation images, the largest on ties.

    Args:
        train, valid: in float64; see `to_judge`.

    Source: RanPAC's code, which judges by the last fifth of a task's images.
    """
    features, dual = train.features, len(train) < train.features.shape[1]
    values, vectors = torch.linalg.eigh(features @ features.T if dual else features.T @ features)
    values = values.clamp_min(0)
    right = vectors.T @ (train.targets if dual else features.T @ train.targets)
    left = (valid.features @ features.T if dual else valid.features) @ vectors
    least = ROUNDING * values.sum().item()
    errors = [(left / (values + max(penalty, least)) @ right - valid.targets).square().mean() for penalty in RIDGES]
    best = torch.stack(errors).flip(0).argmin().item()
    return RIDGES[len(RIDGES) - 1 - int(best)]


@dataclass(frozen=True)
class Linear:
    """A linear classifier of features: logits = F weight + bias."""

    weight: Float64[Tensor, "d c"]
    bias: Float64[Tensor, "c"]

    def __call__(self, features: Float64[Tensor, "n d"]) -> Float64[Tensor, "n c"]:
        """Compute logits."""
        return features @ self.weight + self.bias

    def scaled(self, scale: float) -> "Linear":
        """Return a classifier with logits `scale` times as large."""
        return Linear(scale * self.weight, scale * self.bias)


def logistic(rows: Rows, penalty: float, start: Linear | None = None) -> Linear:
    """Fit a multinomial logistic regression on standardized features by L-BFGS.

    Args:
        rows: in float64.
        penalty: lambda of (lambda / 2) |W|^2 beside the mean cross-entropy; the bias is free.
        start: a solution for the same standardization, from a stronger penalty; None: zeros.

    Returns:
        The classifier of features as they are: the standardization is folded in.
    """
    mean, deviation = _standardization(rows.features)
    weight, bias = _descend(rows, mean, deviation, penalty, _standardized(start, mean, deviation))
    return Linear(weight / deviation[:, None], bias - (mean / deviation) @ weight)


def _standardization(features: Float64[Tensor, "n d"]) -> tuple[Float64[Tensor, "d"], Float64[Tensor, "d"]]:
    deviation = features.std(dim=0, correction=0)
    return features.mean(dim=0), torch.where(deviation > 1e-6 * deviation.max().clamp_min(1e-12), deviation, torch.inf)


def _standardized(start: Linear | None, mean: Tensor, deviation: Tensor) -> Linear | None:
    if start is None:
        return None
    finite = torch.where(deviation.isfinite(), deviation, 0)
    return Linear(start.weight * finite[:, None], start.bias + mean @ start.weight)


def _descend(rows: Rows, mean: Tensor, deviation: Tensor, penalty: float, start: Linear | None) -> tuple[Tensor, Tensor]:
    inputs, labels = (rows.features - mean) / deviation, rows.labels
    weight = inputs.new_zeros(inputs.shape[1], rows.classes) if start is None else start.weight.clone()
    bias = inputs.new_zeros(rows.classes) if start is None else start.bias.clone()
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=ITERATIONS, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(inputs @ weight + bias, labels) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()


def choose_logistic(
    train: Rows, valid: Rows, penalties: Sequence[float], by: Literal["accuracy", "loss"] = "accuracy"
) -> tuple[float, Linear]:
    """Fit logistic regressions from the strongest penalty to weaker ones, and keep the best on validation images.

    Args:
        train, valid: in float64; see `to_judge`.
        penalties: at least one, strongest first; the stronger wins ties.
        by: what is best: the largest accuracy, or the least mean cross-entropy.
    """
    best: tuple[float, float, Linear] | None = None
    fitted, worse = None, 0
    for penalty in penalties:
        fitted = logistic(train, penalty, fitted)
        answers = fitted(valid.features)
        right = (answers.argmax(dim=1) == valid.labels).sum()
        value = right.item() if by == "accuracy" else -functional.cross_entropy(answers, valid.labels).item()
        worse = 0 if best is None or value > best[0] else worse + 1
        if best is None or value > best[0]:
            best = value, penalty, fitted
        elif worse >= PATIENCE:
            break
    assert best is not None
    return best[1], best[2]


def scale_of(scores: Float64[Tensor, "n c"], labels: Int64[Tensor, "n"]) -> float:
    """Choose the factor of scores by which their softmax fits labels best: the least mean cross-entropy."""
    losses = torch.stack([functional.cross_entropy(scores * scale, labels) for scale in SCALES])
    return SCALES[int(losses.argmin())]
