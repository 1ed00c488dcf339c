"""The expert of PAR: a stem and a stack of searched cells of constant width.

Source: Wang et al., PAR (CVPR 2023), section 3.3, after DARTS; widths, stem and layout from the authors' code (par_model_v2.py).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.genotype import NODES, CellPlan, Genotype
from lifelong.networks.operations import Maps, operation, preprocess, stem_maps, total

STEM_MULTIPLIER = 3
"""The stem of an expert has this many times the channels of its cells."""


def reductions(cells: int) -> set[int]:
    """Return the indices of the cells that halve the resolution: at a third and at two thirds of the depth."""
    return {cells // 3, 2 * cells // 3}


class Cell(nn.Module):
    """One cell: two inputs, four nodes of two operations each, concatenated.

    Args:
        plan: the operations of its nodes.
        inputs: channels of the layer before the previous one, and of the previous layer.
        channels: channels C of each node.
        reduce: stride 2 on the edges from the inputs.
        halve: the previous layer has half the resolution of the one before.
        reduce_bn: apply the batch norm of factorized reductions.
    """

    def __init__(self, plan: CellPlan, inputs: tuple[int, int], channels: int, *, reduce: bool, halve: bool, reduce_bn: bool) -> None:
        super().__init__()
        self.preprocess0 = preprocess(inputs[0], channels, halve=halve, reduce_bn=reduce_bn)
        self.preprocess1 = preprocess(inputs[1], channels, halve=False, reduce_bn=reduce_bn)
        self.sources = [[source for _, source in node] for node in plan]
        self.nodes = nn.ModuleList(
            nn.ModuleList(operation(name, channels, 2 if reduce and source < 2 else 1, reduce_bn=reduce_bn) for name, source in node)
            for node in plan
        )

    def forward(self, before: Maps, previous: Maps) -> Maps:
        """Concatenate the four nodes: 4C channels."""
        states = [Maps(total(self.preprocess0.term(before))), Maps(total(self.preprocess1.term(previous)))]
        for operations, sources in zip(self.nodes, self.sources, strict=True):
            first, second = (run.term(states[source]) for run, source in zip(operations, sources, strict=True))  # ty: ignore[invalid-argument-type]
            states.append(Maps(total(first, second)))
        # The next cells begin with its ReLU; what follows the last cell reads the maps unchanged.
        return Maps(torch.cat([state.raw for state in states[2:]], dim=1), overwrite=True)


class CellNetwork(nn.Module):
    """Stem, cells, global average pooling; images to features. Heads are the methods'.

    Images of any size: a reduction halves it, rounded up.

    Args:
        genotype: the normal and the reduction cell.
        channels: channels C of every cell (constant through the depth).
        cells: cells in the stack; those at a third and at two thirds are reduction cells.
        reduce_bn: apply the batch norm of factorized reductions (the authors' code makes it, and does not).

    Attributes:
        feature_dim: 4C.
    """

    def __init__(self, genotype: Genotype, channels: int, cells: int = 4, *, reduce_bn: bool = True) -> None:
        super().__init__()
        width = STEM_MULTIPLIER * channels
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.cells = nn.ModuleList()
        inputs, halved = (width, width), False
        for index in range(cells):
            reduce = index in reductions(cells)
            plan = genotype.reduce if reduce else genotype.normal
            self.cells.append(Cell(plan, inputs, channels, reduce=reduce, halve=halved, reduce_bn=reduce_bn))
            inputs, halved = (inputs[1], NODES * channels), reduce
        self.feature_dim = NODES * channels

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Compute features of normalized images."""
        before = previous = stem_maps(self.stem, images)
        for cell in self.cells:
            before, previous = previous, cell(before, previous)
        return previous.raw.mean(dim=(2, 3))
