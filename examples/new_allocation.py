"""An allocation of one's own: a new expert starts from the nearest one's weights, shrunk and perturbed (Ash & Adams, NeurIPS 2020).

lifelong run --stream digits --preset quick --plugin examples/new_allocation.py --allocation shrink-perturb
"""

import torch

import lifelong
from lifelong.methods.allocations import searched_cell
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import genotype


class ShrinkPerturb(lifelong.Allocation):
    """The nearest group's cell, and half of its weights; a searched cell for the first task."""

    def plan(self, newcomer):
        """Return the cell of the nearest expert, or search one."""
        return searched_cell(newcomer) if newcomer.nearest is None else newcomer.plans[newcomer.nearest]

    def build(self, plan, settings):
        """Build the network of a cell."""
        return CellNetwork(genotype(plan), settings.init_channels, settings.cells, reduce_bn=settings.reduce_bn)

    def start(self, expert, newcomer):
        """Mix the random weights with those of the nearest expert."""
        if newcomer.nearest is not None:
            with torch.no_grad():
                for own, learned in zip(expert.parameters(), newcomer.experts[newcomer.nearest].parameters(), strict=True):
                    own.mul_(0.1).add_(learned, alpha=0.5)


lifelong.register_allocation("shrink-perturb", ShrinkPerturb, summary="half of the nearest expert's weights, and noise")
