"""An allocation of one's own: a new expert starts from the weights of the nearest one, rather than from random ones.

lifelong run --stream digits --preset quick --plugin examples/new_allocation.py --allocation warm-start
"""

import lifelong
from lifelong.methods.allocations import searched_cell
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import genotype


class WarmStart(lifelong.Allocation):
    """The nearest group's cell and weights; a searched cell for the first task."""

    def plan(self, newcomer):
        """Return the cell of the nearest expert, or search one."""
        return searched_cell(newcomer) if newcomer.nearest is None else newcomer.plans[newcomer.nearest]

    def build(self, plan, settings):
        """Build the network of a cell."""
        return CellNetwork(genotype(plan), settings.init_channels, settings.cells, reduce_bn=settings.reduce_bn)

    def start(self, expert, newcomer):
        """Copy the weights of the nearest expert."""
        if newcomer.nearest is not None:
            expert.load_state_dict(newcomer.experts[newcomer.nearest].state_dict())


lifelong.register_allocation("warm-start", WarmStart, summary="the nearest expert's cell and weights")
