"""Scores of how well given features, or given probabilities, already tell a task's classes apart: LEEP, LogME and the H-score.

Each comes twice: as its paper has it, where larger is better, and as a distance in [0, 1], where 0 is the best possible and 1 no better
than chance. Chance is what the score gives for the same images with permuted labels: none of these scores is zero for noise, and with few
images of many features noise can come close to the best.

    distance  =  1 - (score - chance) / (best - chance)            within [0, 1]; LogME, which has no best: exp(-2 (score - chance))

A task of one class has nothing to tell apart: its distance is 0. All is computed in float64, and depends on its arguments alone.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from lifelong.devices import exact

PERMUTATIONS = 5
"""Permutations of the labels, over which the score of chance is averaged."""

ROUNDS = 100
"""Largest number of fixed-point rounds of LogME; noise takes the most, about 60."""

RARE = 1e-12
"""Share of the probability below which LEEP leaves out an output of the old head."""


def leep(log_probabilities: Float[Tensor, "n z"], labels: Int64[Tensor, "n"], classes: int) -> float:
    """Compute LEEP: the mean log-likelihood of the labels, predicted from an old head's answers and how often each goes with each label.

    P(y, z) = mean over the images of class y of theta_z, per image of all;  LEEP = mean of log sum over z of P(y | z) theta_z.

    Args:
        log_probabilities: log theta, an old head's answers to the new images.
        labels: the new classes, in 0..classes-1.
        classes: number of new classes.

    Returns:
        A number in [-H(Y), 0], H(Y) the entropy of the labels.

    Source: Nguyen et al., LEEP (ICML 2020), Eq. 2.
    """
    return _leep(exact(log_probabilities).exp(), [labels], classes)[0]


def leep_distance(log_probabilities: Float[Tensor, "n z"], labels: Int64[Tensor, "n"], classes: int) -> float:
    """Compute the distance of LEEP from its best value, 0.

    Args:
        log_probabilities, labels, classes: see `leep`.
    """
    if _present(labels) < 2:
        return 0.0
    score, *chance = _leep(exact(log_probabilities).exp(), _with_permuted(labels), classes)
    return _distance(score, chance, 0.0)


def _leep(theta: Float64[Tensor, "n z"], labelings: Sequence[Int64[Tensor, "n"]], classes: int) -> list[float]:
    marginal = theta.mean(dim=0)  # (z,)
    theta, marginal = theta[:, marginal >= RARE], marginal[marginal >= RARE]
    scores = []
    for labels in labelings:
        joint = one_hot(labels.to(theta.device), classes).double().T @ theta / len(theta)  # (classes, z)
        likelihood = (theta @ (joint / marginal).T).gather(1, labels.to(theta.device)[:, None])  # (n, 1)
        scores.append(likelihood.log().mean().item())
    return scores


def logme(features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], classes: int) -> float:
    """Compute LogME: the evidence per image of a Bayesian linear model of each class's indicator, maximal over both precisions.

    Features are divided by their root mean square, and a constant one is added, since indicators do not have mean zero: the score depends
    neither on the features' unit nor on a rotation.

    Args:
        features: of the new images.
        labels: their classes, in 0..classes-1.
        classes: number of classes; those without images are left out of the mean.

    Source: You et al., LogME (ICML 2021), Algorithm 3; with rank / 2 for d / 2 in front of log alpha, which is the evidence if n < d.
    """
    return _logme(exact(features), [labels], classes)[0]


def logme_distance(features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], classes: int) -> float:
    """Compute the share of the indicators' variance that LogME's model leaves unexplained, in comparison with chance.

    Args:
        features, labels, classes: see `logme`.
    """
    if _present(labels) < 2:
        return 0.0
    score, *chance = _logme(exact(features), _with_permuted(labels), classes)
    return math.exp(-2 * max(0.0, score - sum(chance) / len(chance)))


def _logme(features: Float64[Tensor, "n d"], labelings: Sequence[Int64[Tensor, "n"]], classes: int) -> list[float]:
    scale = features.square().mean().sqrt()
    features = torch.cat([features / torch.where(scale > 0, scale, 1.0), features.new_ones(len(features), 1)], dim=1)
    left, singular, _ = torch.linalg.svd(features, full_matrices=False)
    kept = singular > singular[0] * max(features.shape) * torch.finfo(torch.float64).eps
    left, variances = left[:, kept], singular[kept].square()
    scores = []
    for labels in labelings:
        targets = one_hot(labels.to(features.device), classes).double()
        scores.append(evidence(left, variances, targets[:, targets.any(dim=0)]).mean().item())
    return scores


def evidence(left: Float64[Tensor, "n k"], variances: Float64[Tensor, "k"], targets: Float64[Tensor, "n t"]) -> Float64[Tensor, "t"]:
    """Compute the largest log-evidence per image of a Bayesian linear model of each target, by LogME's fixed point.

    Args:
        left: the left singular vectors of the features that belong to singular values above zero.
        variances: the squares of these singular values.
        targets: one column for each model.
    """
    n, k = left.shape
    sigma = variances[:, None]
    squares = (left.T @ targets).square()  # (k, t)
    outside = (targets.square().sum(dim=0) - squares.sum(dim=0)).clamp_min(0)
    ratio = targets.new_ones(targets.shape[1])  # tau = alpha / beta
    alpha, beta = torch.ones_like(ratio), torch.ones_like(ratio)
    weights, residual = torch.zeros_like(ratio), torch.zeros_like(ratio)
    for _ in range(ROUNDS):
        effective = (sigma / (sigma + ratio)).sum(dim=0)
        weights = (sigma * squares / (ratio + sigma).square()).sum(dim=0)  # |m|^2
        residual = (squares / (1 + sigma / ratio).square()).sum(dim=0) + outside
        alpha, beta = effective / (weights + 1e-5), (n - effective).clamp_min(1e-9) / (residual + 1e-5)
        found = (alpha / beta).clamp_max(1e6 * variances.mean().item())  # with nothing to find alpha grows without end
        settled = ((found - ratio).abs() <= 1e-3 * ratio).all()
        ratio = found
        if settled:
            break
    log_determinant = (alpha + beta * sigma).log().sum(dim=0)
    fit = k / 2 * alpha.log() + n / 2 * beta.log() - log_determinant / 2 - beta * residual / 2 - alpha * weights / 2
    return fit / n - math.log(2 * math.pi) / 2


def h_score(features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], classes: int, *, shrinkage: float | None = None) -> float:
    """Compute the H-score: how much of the features' spread, in each direction in its own unit, lies between the classes.

    H = (1 - a) tr(S_a^-1 B),  S_a = (1 - a) S + a tr(S) / d I;  S the features' covariance, B that of their class means.

    Args:
        features: of the new images.
        labels: their classes, in 0..classes-1.
        classes: number of classes.
        shrinkage: a; None: that of Ledoit and Wolf; 0: the first paper's score, which is d (C - 1) / (n - 1) for noise.

    Returns:
        A number in [0, min(C - 1, d)], C the classes that have images.

    Source: Bao et al., An information-theoretic approach to transferability (ICIP 2019); Ibrahim et al., Newer is not always better
    (ECML 2022), for the shrunk form.
    """
    return _h_score(exact(features), [labels], classes, shrinkage)[0]


def h_score_distance(features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], classes: int) -> float:
    """Compute the distance of the shrunk H-score from its best value, min(C - 1, d).

    Args:
        features, labels, classes: see `h_score`.
    """
    present = _present(labels)
    if present < 2:
        return 0.0
    score, *chance = _h_score(exact(features), _with_permuted(labels), classes, None)
    return _distance(score, chance, float(min(present - 1, features.shape[1])))


def _h_score(
    features: Float64[Tensor, "n d"], labelings: Sequence[Int64[Tensor, "n"]], classes: int, shrinkage: float | None
) -> list[float]:
    centred = features - features.mean(dim=0)
    covariance = centred.T @ centred / len(centred)
    if not covariance.any():
        return [0.0 for _ in labelings]
    share = ledoit_wolf(centred) if shrinkage is None else shrinkage
    length = len(covariance)
    shrunk = (1 - share) * covariance + share * covariance.trace() / length * torch.eye(length).to(covariance)
    inverse = torch.linalg.pinv(shrunk, hermitian=True)
    scores = []
    for labels in labelings:
        members = one_hot(labels.to(features.device), classes).double()  # (n, C)
        counts = members.sum(dim=0)
        means = members.T @ centred / counts.clamp_min(1)[:, None]  # (C, d)
        between = ((means @ inverse) * means).sum(dim=1)
        scores.append((1 - share) * (counts @ between).item() / len(features))
    return scores


def ledoit_wolf(centred: Float64[Tensor, "n d"]) -> float:
    """Compute the share by which a covariance matrix is best drawn towards a multiple of the identity.

    Args:
        centred: the samples, with mean zero.

    Source: Ledoit & Wolf, A well-conditioned estimator for large-dimensional covariance matrices (2004), Lemma 3.2-3.5.
    """
    count, length = centred.shape
    covariance = centred.T @ centred / count
    mean = covariance.trace() / length
    off = covariance.square().sum() - length * mean.square()  # |S - m I|^2
    if off <= 0:
        return 0.0
    noise = (centred.square().sum(dim=1).square().mean() - covariance.square().sum()) / count
    return float((noise.clamp_min(0) / off).clamp_max(1))


def _distance(score: float, chance: Sequence[float], best: float) -> float:
    """Place a score between that of chance (1) and the best one (0); 1 if chance is as good as the best."""
    floor = sum(chance) / len(chance)
    return 1 - min(1.0, max(0.0, score - floor) / (best - floor)) if best > floor else 1.0


def _with_permuted(labels: Int64[Tensor, "n"]) -> list[Int64[Tensor, "n"]]:
    """Return the labels, followed by permutations of them, which are the same in every call."""
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(labels), generator=generator).to(labels.device) for _ in range(PERMUTATIONS)]
    return [labels, *(labels[order] for order in orders)]


def _present(labels: Int64[Tensor, "n"]) -> int:
    """Count the classes that have images."""
    return len(labels.unique())
