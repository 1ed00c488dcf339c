"""Cheap allocations: the best of some random cells after a short training or without any, a warm-started search, a ResNet-18.

Each task draws its own cells with the seed. All are compared under the same conditions: the same seeds of initial weights and images.
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
"""Number of initializations over which a zero-cost score is averaged."""

KNOWN = 0.5
"""Weight of earlier experts' cells in the initial distribution of a warm-started search; the rest is uniform."""


def candidates(newcomer: Newcomer) -> list[Genotype]:
    """Draw the random cells from which one is chosen."""
    return [Genotype.parse(random_cell(newcomer, number)) for number in range(newcomer.settings.candidates)]


class BestOfK(CellAllocation):
    """Experts of the random cell with the best validation accuracy after a short training."""

    by_distance = False

    def plan(self, newcomer: Newcomer) -> str:
        """Train each cell for `candidate_epochs`, and choose the most accurate; ties go to the first."""
        context, settings = newcomer.context, newcomer.settings
        # No early stopping and no search for the weight decay: a short training runs to its end.
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
            context.note("no validation images to choose a cell by: the first random cell is used", newcomer.record)
        newcomer.record.reason += f"; best of {len(cells)} random cells after {settings.candidate_epochs} epochs"
        return str(cells[chosen])


class Scored(CellAllocation):
    """Experts of the random cell with the highest zero-cost score (`lifelong.search.proxies`)."""

    by_distance = False
    proxy: ClassVar[str]

    def plan(self, newcomer: Newcomer) -> str:
        """Score all cells, and choose the best."""
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
    """Return what the stage of a zero-cost choice saves."""
    return {"scores": scores, "seconds": seconds}


class MostParameters(Scored):
    """The largest of some random cells."""

    proxy = "most-parameters"


class SynFlow(Scored):
    """Experts of the random cell with the most synaptic flow."""

    proxy = "synflow"


class NASWOT(Scored):
    """Experts of the random cell whose ReLUs distinguish images best."""

    proxy = "naswot"


class ZiCo(Scored):
    """Experts of the random cell whose gradients vary least between batches."""

    proxy = "zico"


class AZNAS(Scored):
    """Experts of the random cell with the best ranks by four scores."""

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
    """Experts of searched cells; each search starts from the operations of earlier experts' cells."""

    by_distance = False

    def plan(self, newcomer: Newcomer) -> str:
        """Search a cell, starting from the distribution of operations in existing cells."""
        known = [genotype(plan) for plan in newcomer.plans]
        start = (known_distribution([cell.normal for cell in known]), known_distribution([cell.reduce for cell in known]))
        return searched_cell(newcomer, start if known else None)


def known_distribution(cells: Sequence[CellPlan]) -> Distribution:
    """Return a distribution that prefers the operations of some cells: on each edge half uniform, half their frequencies.

    An edge that none of the cells has stays uniform.
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
    """Experts that are light ResNet-18s with `init_channels` channels instead of networks of cells."""

    by_distance = False

    def plan(self, newcomer: Newcomer) -> str:
        """Return the network's name."""
        return "light-resnet18"

    def build(self, plan: str, settings: PARSettings) -> nn.Module:
        """Build the network, which takes images of any size."""
        return LightResNet(settings.init_channels)
