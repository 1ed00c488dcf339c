"""The head of a task on frozen features: a few classifiers in closed form, mixed by how well they do on validation images.

own       ridge regression on random features of the network's last stage, and logistic regression on all stages, half each
related   logistic regression on the probabilities that the heads of related tasks give, where there are any
adapted   a classifier of features whose last stage was adapted to the task, where one was trained
side      a small network of cells trained on the task's images beside the frozen one, where one was trained

The logits are the weighted mean of their log-probabilities. A task that returns with few images thus profits from what its first
appearance learned, and one that no related task helps keeps its own head alone.
"""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional

from lifelong.networks.pretrained import RandomFeatures
from lifelong.storage import Tree
from lifelong.training.closed_form import Linear, Rows, choose_logistic, choose_ridge, logistic, ridge, scale_of, to_judge

PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""L2 penalties of the logistic regressions, strongest first."""

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights that a classifier besides the task's own may have."""


class OwnHead(nn.Module):
    """Ridge regression on random features of the last stage, and logistic regression on all stages.

    Args:
        random: the projection, which all heads share.
        inputs: features of all stages.
        last: features of the last stage, which come last; 0: all.
        classes: of the task.
    """

    def __init__(self, random: RandomFeatures, inputs: int, last: int, classes: int) -> None:
        super().__init__()
        # In a tuple it is not a child, so that it is neither counted nor saved with every head.
        self._random = (random,)
        self.last = last or inputs
        self.ridge = nn.Linear(random.projection.shape[1], classes, bias=False)
        self.logistic = nn.Linear(inputs, classes)

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Compute log-probabilities, up to a constant of each image."""
        first = self.ridge(self._random[0](features[:, -self.last :]))
        return (first.log_softmax(dim=1) + self.logistic(features).log_softmax(dim=1)) / 2


@dataclass(frozen=True)
class OwnFit:
    """The two classifiers of an own head, in float64.

    Attributes:
        weight: of the ridge regression, its scale included.
        linear: the logistic regression.
    """

    weight: Float64[Tensor, "m c"]
    linear: Linear

    def log_probabilities(self, features: Float64[Tensor, "n d"], random: RandomFeatures, last: int) -> Float64[Tensor, "n c"]:
        """Compute what the head will answer."""
        first = random(features[:, -last:]) @ self.weight
        return (first.log_softmax(dim=1) + self.linear(features).log_softmax(dim=1)) / 2

    def write_to(self, head: OwnHead) -> None:
        """Copy the solution into a head."""
        with torch.no_grad():
            head.ridge.weight.copy_(self.weight.T)
            head.logistic.weight.copy_(self.linear.weight.T)
            head.logistic.bias.copy_(self.linear.bias)


def fit_own(train: Rows, valid: Rows, random: RandomFeatures, last: int) -> tuple[OwnFit, OwnFit]:
    """Fit an own head.

    Args:
        train, valid: features of all stages, in float64; `valid` may be empty.
        random: the projection.
        last: features of the last stage.

    Returns:
        The head fitted to the images that penalties were not chosen on, by which mixtures are judged, and the one fitted to all.
    """
    fitted_on, judges = to_judge(train, valid)
    projected, judged, everything = (_projected(rows, random, last) for rows in (fitted_on, judges, train.with_rows(valid)))
    penalty = choose_ridge(projected, judged)
    weight = ridge(projected, penalty)
    scale = scale_of(judged.features @ weight, judged.labels)
    decay, linear = choose_logistic(fitted_on, judges, PENALTIES)
    sure = scale_of(linear(judges.features), judges.labels)
    whole = OwnFit(scale * ridge(everything, penalty), logistic(train.with_rows(valid), decay).scaled(sure))
    return OwnFit(scale * weight, linear.scaled(sure)), whole


def _projected(rows: Rows, random: RandomFeatures, last: int) -> Rows:
    return Rows(random(rows.features[:, -last:]), rows.labels, rows.classes)


class Answers(NamedTuple):
    """The log-probabilities that the classifiers of a task give for some images; None from one that is not there, or not asked."""

    own: Float[Tensor, "n c"] | None
    related: Float[Tensor, "n c"] | None = None
    adapted: Float[Tensor, "n c"] | None = None
    side: Float[Tensor, "n c"] | None = None


@dataclass(frozen=True)
class Mixture:
    """The weights of a task's classifiers, which sum to 1.

    Attributes:
        own, related, adapted, side: of each; 0 for one that is not there.
    """

    own: float = 1.0
    related: float = 0.0
    adapted: float = 0.0
    side: float = 0.0

    def state(self) -> Tree:
        """Return the weights as plain values."""
        weights = {"own": self.own, "related": self.related, "adapted": self.adapted}
        return weights | ({"side": self.side} if self.side else {})

    def mixed(self, answers: Answers) -> Float[Tensor, "n c"]:
        """Mix log-probabilities.

        Args:
            answers: of every classifier whose weight is above 0.
        """
        weights = (self.own, self.related, self.adapted, self.side)
        weighted = [weight * part for weight, part in zip(weights, answers, strict=True) if weight and part is not None]
        return torch.stack(weighted).sum(dim=0)


def choose_mixture(answers: Answers, labels: Tensor) -> Mixture:
    """Choose the weights with the least mean cross-entropy on validation images; the own classifier wins ties.

    Args:
        answers: on validation images.
        labels: of these images.
    """
    best, least = Mixture(), float("inf")
    for shares in product(*(SHARES if part is not None else (0.0,) for part in answers[1:])):
        if sum(shares) > 1:
            continue
        mixture = Mixture(1 - sum(shares), *shares)
        loss = functional.cross_entropy(mixture.mixed(answers), labels).item()
        if loss < least - 1e-9:
            best, least = mixture, loss
    return best
