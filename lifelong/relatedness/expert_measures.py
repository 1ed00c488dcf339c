"""Measures by the experts of earlier tasks: how well an expert, as it is, tells the new task's classes apart. Nothing is kept for them.

They do not ask whether two tasks' images look alike, but whether an expert can solve the new task already, which is the difficulty of the
task. The images of the sample pass each expert once. All of them are distances in [0, 1] from which chance has been subtracted.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from lifelong.relatedness.measures import Bounded, Sample
from lifelong.relatedness.neighbors import labels_by_others
from lifelong.relatedness.transferability import h_score_distance, leep_distance, logme_distance
from lifelong.settings.par import RelatednessSettings
from lifelong.storage import Tree


class ByExperts(Bounded):
    """A measure that asks each earlier task's expert and keeps nothing."""

    needs_experts: ClassVar[bool] = True

    def keep(self, sample: Sample, settings: RelatednessSettings) -> Tree:
        """Return None: the experts are kept anyway."""
        return None


class Leep(ByExperts):
    """The distance of LEEP: how well the answers of an earlier head predict the new labels (`transferability.leep`)."""

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute the distance of LEEP for each earlier task's head."""
        answers = (sample.seen_by(task).log_probabilities for task in range(len(kept)))
        return torch.tensor([leep_distance(each, sample.labels, sample.classes) for each in answers], dtype=torch.float64)


class ByFeatures(ByExperts):
    """A measure that sees the features of an expert, which all tasks of a group share."""

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute the distance for each earlier task's expert, once for each expert."""
        found: dict[int, float] = {}
        experts = [sample.seen_by(task).features for task in range(len(kept))]
        for features in experts:
            if id(features) not in found:
                found[id(features)] = self.distance(features, sample.labels.to(features.device), sample.classes, settings)
        return torch.tensor([found[id(features)] for features in experts], dtype=torch.float64)

    @abstractmethod
    def distance(self, features: Float64[Tensor, "n d"], labels: Int64[Tensor, "n"], classes: int, settings: RelatednessSettings) -> float:
        """Compute how badly the features of an expert tell the classes apart, in [0, 1]."""


class LogMe(ByFeatures):
    """The distance of LogME: the share of the labels' variance that a Bayesian linear model leaves (`transferability.logme`)."""

    def distance(self, features: Float64[Tensor, "n d"], labels: Int64[Tensor, "n"], classes: int, settings: RelatednessSettings) -> float:
        """Compute the distance of LogME."""
        return logme_distance(features, labels, classes)


class HScore(ByFeatures):
    """The distance of the shrunk H-score: how little of the features' spread lies between classes (`transferability.h_score`)."""

    def distance(self, features: Float64[Tensor, "n d"], labels: Int64[Tensor, "n"], classes: int, settings: RelatednessSettings) -> float:
        """Compute the distance of the H-score."""
        return h_score_distance(features, labels, classes)


class NearestNeighbors(ByFeatures):
    """The error of nearest neighbors on an expert's features, by which MNTDP chooses the source of a new task's path.

    Each image of the sample is classified by the others, where MNTDP classifies validation images by training images. The distance is 0
    without errors, and 1 with as many as the answer that is always the largest class.

    Source: Veniat, Denoyer & Ranzato, Efficient continual learning with modular networks and task-driven priors (ICLR 2021).
    """

    def distance(self, features: Float64[Tensor, "n d"], labels: Int64[Tensor, "n"], classes: int, settings: RelatednessSettings) -> float:
        """Compute the error in units of that of the largest class."""
        wrong = len(labels) - int(labels.bincount().max())
        if not wrong:
            return 0.0
        missed = int((labels_by_others(features, labels, settings.measure_neighbors) != labels).sum())
        return min(1.0, missed / wrong)
