"""Allocations that cost little: the best of some random cells by a short training or without any, a search with a head start, a ResNet-18.

Each task draws its own cells with the seed. All of them are judged under the same conditions: equal initial weights, the same images.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from lifelong.methods.allocations import Allocation, CellAllocation, Newcomer, random_cell, searched_cell
from lifelong.methods.single import new_head
from lifelong.networks.genotype import EDGES, OPERATIONS, CellPlan, Genotype, genotype
from lifelong.networks.resnet import LightResNet
from lifelong.search.distribution import Distribution
from lifelong.search.proxies import Batch, best, score
from lifelong.settings.par import PARSettings
from lifelong.storage import Tree
from lifelong.training.fit import fit
from lifelong.training.stages import derive_seed

PROXY_IMAGES = 64
"""Images in each of the two batches of a zero-cost score, if the task has as many."""

INITIALIZATIONS = 3
"""Initial weights over which a zero-cost score is averaged."""

KNOWN = 0.5
"""Weight of the cells of earlier experts, against the even distribution, where a search begins with them."""


def candidates(newcomer: Newcomer) -> list[Genotype]:
    """Draw the random cells among which one is chosen."""
    return [Genotype.parse(random_cell(newcomer, number)) for number in range(newcomer.settings.candidates)]


class BestOfK(CellAllocation):
    """Experts of the random cell that does best on validation images after a short training."""

    by_distance = False

    def plan(self, newcomer: Newcomer) -> str:
        """Train each cell for `candidate_epochs`, and choose the most accurate, of equals the first."""
        context, settings = newcomer.context, newcomer.settings
        # Whatever ends a training early belongs to long ones.
        training = replace(context.training, epochs=settings.candidate_epochs, patience=0, weight_decay_grid=(), schedule="cosine")
        cells, accuracies = candidates(newcomer), []
        for number, cell in enumerate(cells):
            with context.seeded("candidate"):
                expert = self.build(str(cell), settings).to(context.device)
            network = nn.Sequential(expert, new_head(expert, newcomer.task, context))
            outcome = fit(network, newcomer.examples, network, training, context.stage(f"candidate-{number}"))
            accuracies.append(outcome.accuracy)
            newcomer.record.seconds["search"] = newcomer.record.seconds.get("search", 0.0) + outcome.seconds
        chosen = best(accuracies)
        if math.isnan(accuracies[chosen]):
            context.note("a cell cannot be chosen without validation images: the first of the random ones is taken", newcomer.record)
        newcomer.record.reason += f"; best of {len(cells)} random cells after {settings.candidate_epochs} epochs"
        return str(cells[chosen])


class Scored(CellAllocation):
    """Experts of the random cell with the highest zero-cost score (`lifelong.search.proxies`)."""

    by_distance = False
    proxy: ClassVar[str]

    def plan(self, newcomer: Newcomer) -> str:
        """Score each cell, and choose the best."""
        stage, cells = newcomer.context.stage("scores"), candidates(newcomer)
        done = stage.outcome()
        if done is None:
            started, settings = time.perf_counter(), newcomer.settings
            seeds = [derive_seed(stage.seed, number) for number in range(INITIALIZATIONS)]
            makers = [partial(self.build, str(cell), settings) for cell in cells]
            scores = score(self.proxy, makers, proxy_batches(newcomer, stage.generator()), seeds)
            done = _outcome(scores, time.perf_counter() - started)
            stage.finish(done)
        newcomer.record.seconds["search"] = done["seconds"]
        newcomer.record.reason += f"; best of {len(cells)} random cells by {self.proxy}"
        return str(cells[best(done["scores"])])


def _outcome(scores: list[float], seconds: float) -> Tree:
    """Return what the stage of a zero-cost choice stores."""
    return {"scores": scores, "seconds": seconds}


class MostParameters(Scored):
    """The largest of some random cells."""

    proxy = "most-parameters"


class SynFlow(Scored):
    """By synaptic flow."""

    proxy = "synflow"


class NASWOT(Scored):
    """By how well the ReLUs tell images apart."""

    proxy = "naswot"


class ZiCo(Scored):
    """By how steady the gradients are from batch to batch."""

    proxy = "zico"


class AZNAS(Scored):
    """By four scores of the cells, ranked."""

    proxy = "az-nas"


def proxy_batches(newcomer: Newcomer, generator: torch.Generator) -> Sequence[Batch]:
    """Draw two batches of the task's training images, without augmentation."""
    examples = newcomer.examples
    count = min(PROXY_IMAGES, max(len(examples.train_labels) // 2, 1))
    order = torch.randperm(len(examples.train_labels), generator=generator)
    parts = [order[:count], order[-count:]]
    return [
        (examples.prepare(examples.train[part.to(examples.train.device)]), examples.train_labels[part.to(examples.train.device)])
        for part in parts
    ]


class SearchedOn(CellAllocation):
    """Experts of searched cells, where each search begins with what the cells of earlier experts have in common."""

    by_distance = False

    def plan(self, newcomer: Newcomer) -> str:
        """Search a cell, from the distribution of the cells that there are."""
        known = [genotype(plan) for plan in newcomer.plans]
        start = (known_distribution([cell.normal for cell in known]), known_distribution([cell.reduce for cell in known]))
        return searched_cell(newcomer, start if known else None)


def known_distribution(cells: Sequence[CellPlan]) -> Distribution:
    """Return a distribution that prefers the operations of some cells: on each edge, half even and half as often as they have it there.

    An edge that none of them has stays even.
    """
    start = Distribution()
    counts = torch.zeros_like(start.probabilities)
    for cell in cells:
        for node, operations in enumerate(cell):
            for name, source in operations:
                counts[EDGES.index((node, source)), OPERATIONS.index(name)] += 1
    seen = counts.sum(dim=1, keepdim=True)
    mixed = (1 - KNOWN) * start.probabilities + KNOWN * counts / seen.clamp_min(1)
    start.probabilities = torch.where(seen > 0, mixed, start.probabilities)
    return start


class Light(Allocation):
    """Experts that are light ResNet-18s, with `init_channels` channels, rather than networks of cells."""

    by_distance = False

    def plan(self, newcomer: Newcomer) -> str:
        """Return the network's name."""
        return "light-resnet18"

    def build(self, plan: str, settings: PARSettings) -> nn.Module:
        """Build the network, for images of any size."""
        return LightResNet(settings.init_channels)
