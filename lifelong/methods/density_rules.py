"""Decision rules that compare the densities of tasks' features from the frozen extractor: SEMA's and PICLE's."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from lifelong.devices import exact
from lifelong.methods.decisions import DecisionRule, Learned, Question
from lifelong.relatedness.groups import Decision
from lifelong.relatedness.transferability import ledoit_wolf
from lifelong.storage import Tree
from lifelong.training.stages import derive_seed

CODE_SHARE = 6
"""An auto-encoder keeps one in this many dimensions. Source: SEMA's code, 768 features and 128 units."""

FOLDS = 5
"""Folds of a task's images; the errors of each are measured by an auto-encoder fitted to the others."""

DIMENSIONS = 20
"""Dimensions of the random projection. Source: PICLE."""

TEMPERATURE = 0.001
"""tau of the prior exp(a / tau) of a task with validation accuracy a. Source: PICLE."""


class ZScore(DecisionRule):
    """Share with the group whose auto-encoder errs on the new task as on its own (SEMA: Wang et al., CVPR 2025, arXiv 2403.18886).

    Each task stores a linear auto-encoder of its features, and the mean and deviation of its error e, the squared distance of a feature
    to its reconstruction. For a new task, z_k is the mean of |e - mean_k| / deviation_k over its features. SEMA adds an expert if the
    smallest z is above a threshold, 2 by default (`share_z`).

    Differences: SEMA trains its linear auto-encoder by SGD; here it is the solution in closed form, the principal components. SEMA records
    errors on the images that the auto-encoder was trained on, which are too small for few images; here they are measured on held-out
    folds. SEMA decides for each block, by the first batch above the threshold; here all features of `feature_split` decide about the
    expert. A group has the auto-encoders of all its tasks, and the smallest of their z.
    """

    def decide(self, question: Question) -> Decision:
        """Compare the smallest z with `share_z`."""
        features, limit = exact(question.sample.features), question.settings.share_z
        z = torch.stack([_z(features, **one) for one in question.kept]).tolist()
        group, least = _best(question, [-value for value in z])
        if -least <= limit:
            return question.share(group, f"z {-least:.2f} ≤ {limit:g} from group {group}")
        return question.allocate(f"z {-least:.2f} > {limit:g} from every group, {group} the nearest")

    def keep(self, learned: Learned) -> Tree:
        """Return the auto-encoder and the errors of each task."""
        features = exact(learned.sample.features)
        mean, basis = principal(features)
        errors = held_out_errors(features)
        record = {"mean": mean, "basis": basis, "error": torch.stack([errors.mean(), errors.std()])}
        return [*(learned.kept or []), record]


def principal(features: Float64[Tensor, "n d"]) -> tuple[Float64[Tensor, "d"], Float64[Tensor, "d k"]]:
    """Compute the best linear auto-encoder of features: their mean, and the first principal directions.

    It keeps a sixth of the dimensions, and at most half as many directions as there are feature vectors, so that some error remains.
    """
    mean = features.mean(dim=0)
    kept = max(1, min(features.shape[1] // CODE_SHARE, len(features) // 2))
    _, _, directions = torch.linalg.svd(features - mean, full_matrices=False)
    return mean, directions[:kept].T.contiguous()


def reconstruction_errors(
    features: Float64[Tensor, "n d"], mean: Float64[Tensor, "d"], basis: Float64[Tensor, "d k"]
) -> Float64[Tensor, "n"]:
    """Compute the mean squared error of each feature vector's reconstruction."""
    centred = features - mean
    return (centred - centred @ basis @ basis.T).square().mean(dim=1)


def held_out_errors(features: Float64[Tensor, "n d"]) -> Float64[Tensor, "n"]:
    """Compute the errors of a task's own features, each by an auto-encoder of the other folds; with fewer than two, by one of all."""
    if len(features) < 2:
        return reconstruction_errors(features, *principal(features)).repeat(2)
    # Images are ordered by class: every fold has some of each.
    part = torch.arange(len(features), device=features.device) % min(FOLDS, len(features))
    errors = torch.zeros(len(features), dtype=features.dtype, device=features.device)
    for held in range(int(part.max()) + 1):
        errors[part == held] = reconstruction_errors(features[part == held], *principal(features[part != held]))
    return errors


def _z(features: Tensor, mean: Tensor, basis: Tensor, error: Tensor) -> Tensor:
    """Compute z of a task's features from the record of an earlier task."""
    deviation = error[1].clamp_min(1e-9 * error[0].clamp_min(1e-30))
    return ((reconstruction_errors(features, mean, basis) - error[0]) / deviation).abs().mean()


class Posterior(DecisionRule):
    """Share with the most probable group, unless a new expert is more probable (PICLE: Valkov et al., ICLR 2024, arXiv 2306.06545).

    Each task stores a Gaussian of its features, randomly projected to 20 dimensions, and its validation accuracy a. The log posterior of
    task k is a_k / tau plus the summed log density of the new task's features under k's Gaussian, with tau = 0.001; a group has that of
    its best member.

    Differences: PICLE ranks paths through a library of modules layer by layer, then trains some of them and a new network and chooses by
    validation loss. Here a new expert is one more hypothesis: a Gaussian of the new task itself, whose free parameters cost log(n) / 2
    each (the BIC's approximation of the evidence), with the mean of the earlier tasks' a. Covariances are shrunk (Ledoit & Wolf), so that
    fewer than 20 images suffice. The 40 inputs that PICLE stores are not needed, since all tasks are measured on the same extractor's
    features.
    """

    def decide(self, question: Question) -> Decision:
        """Compare the log posteriors of the groups and of a new expert."""
        features = projected(exact(question.sample.features), question.context.seed)
        accuracy = torch.stack([one["accuracy"] for one in question.kept]).nan_to_num(0.0)
        known = [Gaussian(one["mean"], one["covariance"]).log_density(features).sum() for one in question.kept]
        posterior = (torch.stack(known) + accuracy / TEMPERATURE).tolist()
        length = features.shape[1]
        cost = (length + length * (length + 1) / 2) / 2 * math.log(len(features))
        new = (gaussian(features).log_density(features).sum() - cost + accuracy.mean() / TEMPERATURE).item()
        group, best = _best(question, posterior)
        if best >= new:
            return question.share(group, f"group {group} more probable than a new expert by {best - new:.0f} in the logarithm")
        return question.allocate(f"a new expert more probable than group {group} by {new - best:.0f} in the logarithm")

    def keep(self, learned: Learned) -> Tree:
        """Return the Gaussian and the accuracy of each task."""
        found = gaussian(projected(exact(learned.sample.features), learned.context.seed))
        accuracy = found.mean.new_tensor(learned.accuracy)
        return [*(learned.kept or []), {"mean": found.mean, "covariance": found.covariance, "accuracy": accuracy}]


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution of feature vectors."""

    mean: Float64[Tensor, "d"]
    covariance: Float64[Tensor, "d d"]

    def log_density(self, features: Float64[Tensor, "n d"]) -> Float64[Tensor, "n"]:
        """Compute the logarithm of the density at each vector."""
        root = torch.linalg.cholesky(self.covariance)
        white = torch.linalg.solve_triangular(root, (features - self.mean).T, upper=False)  # (d, n)
        determinant = 2 * root.diagonal().log().sum()
        return -(white.square().sum(dim=0) + determinant + len(self.mean) * math.log(2 * math.pi)) / 2


def gaussian(features: Float64[Tensor, "n d"]) -> Gaussian:
    """Fit a Gaussian, its covariance shrunk towards a multiple of the identity."""
    mean = features.mean(dim=0)
    centred = features - mean
    covariance, identity = centred.T @ centred / len(features), torch.eye(len(mean), dtype=features.dtype, device=features.device)
    scale = covariance.trace() / len(mean)
    share = max(ledoit_wolf(centred), 1e-6)
    return Gaussian(mean, (1 - share) * covariance + share * scale.clamp_min(1e-12) * identity)


def projected(features: Float64[Tensor, "n d"], seed: int) -> Float64[Tensor, "n k"]:
    """Project features at random, with the same matrix for all tasks of a run; features that are short enough are returned as they are."""
    length = features.shape[1]
    if length <= DIMENSIONS:
        return features
    drawn = torch.Generator().manual_seed(derive_seed(seed, "projection"))
    matrix = torch.randn(length, DIMENSIONS, generator=drawn, dtype=torch.float64) / math.sqrt(length)
    return features @ matrix.to(features.device)


def _best(question: Question, scores: list[float]) -> tuple[int, float]:
    """Return the group whose task has the largest score (ties go to the first group), and the score."""
    best = [max(scores[task] for task in members) for members in question.groups.members]
    group = max(range(len(best)), key=best.__getitem__)
    return group, best[group]
