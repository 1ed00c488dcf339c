"""The network of a cell search: every operation on every edge, of which one path is computed at a time.

Source: Zheng et al., MdeNAS (ICCV 2019); PAR's authors' code (par_basicmodel.py): a stem of C channels, batch norm without weights,
also after the pools.

Batch norm uses the statistics of its batch, including during evaluation, unless running ones are asked for, as in the authors' code.
Those help if an operation sees many batches in a row; here it is sampled rarely, after layers that have changed since, so that its accuracy
would depend on when it was last sampled, which the search should not compare.
"""

from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.cells import reductions
from lifelong.networks.depthwise import dense_gradient
from lifelong.networks.fused import can_fuse, statistics
from lifelong.networks.fused.normed import Normed
from lifelong.networks.genotype import EDGES, NODES, OPERATIONS
from lifelong.networks.layout import layout
from lifelong.networks.operations import MakeBatchNorm, Maps, OnMaps, operation, preprocess, stem_maps, total

Plan = tuple[int, ...]
"""For each of the 14 edges of a cell the index of its operation in `OPERATIONS`; 0 for none."""

SampledPath = tuple[Plan, Plan]
"""The operations of the normal and of the reduction cells."""


class Edge(nn.ModuleList):
    """The operations of one edge. An identity stands for `none`, so that indices are those of `OPERATIONS`."""

    def __init__(self, channels: int, stride: int, batch_norm: MakeBatchNorm, reduce_bn: bool) -> None:
        super().__init__([nn.Identity()])
        for name in OPERATIONS[1:]:
            module = operation(name, channels, stride, batch_norm, reduce_bn=reduce_bn)
            self.append(nn.Sequential(module, batch_norm(channels)) if "pool" in name else module)


class SearchCell(nn.Module):
    """One cell with all 14 edges.

    Args:
        inputs: channels of the layer before the previous one, and of the previous layer.
        channels: channels C of each node.
        reduce: stride 2 on the edges from the inputs.
        halve: the previous layer has half the resolution of the one before.
        batch_norm: makes a batch norm for a number of channels.
        reduce_bn: apply the batch norm of factorized reductions.
    """

    def __init__(
        self, inputs: tuple[int, int], channels: int, *, reduce: bool, halve: bool, batch_norm: MakeBatchNorm, reduce_bn: bool
    ) -> None:
        super().__init__()
        self.preprocess0 = preprocess(inputs[0], channels, batch_norm, halve=halve, reduce_bn=reduce_bn)
        self.preprocess1 = preprocess(inputs[1], channels, batch_norm, halve=False, reduce_bn=reduce_bn)
        self.reduce = reduce
        self.edges = nn.ModuleList(Edge(channels, 2 if reduce and source < 2 else 1, batch_norm, reduce_bn) for _, source in EDGES)

    def forward(self, before: Maps, previous: Maps, plan: Plan) -> Maps:
        """Concatenate the four nodes: 4C channels. A node without an operation is zero."""
        states = [Maps(total(self.preprocess0.term(before))), Maps(total(self.preprocess1.term(previous)))]
        edges = [(*where, edge, choice) for where, edge, choice in zip(EDGES, self.edges, plan, strict=True) if choice]
        for node in range(NODES):
            terms = (_term(edge[choice], states[source]) for to, source, edge, choice in edges if to == node)  # ty: ignore[not-subscriptable]
            node_sum = _sum(terms)
            states.append(Maps(self._zeros(states[0].raw) if node_sum is None else dense_gradient(node_sum)))
        return Maps(torch.cat([state.raw for state in states[2:]], dim=1), overwrite=True)  # as in `Cell`

    def _zeros(self, x: Tensor) -> Tensor:
        """Make zeros of a node's size from an input of the cell."""
        return torch.zeros_like(x[:, :, ::2, ::2] if self.reduce else x, memory_format=layout(x))


def _term(operation: nn.Module, maps: Maps) -> Tensor | Normed:
    """Apply an operation of an edge; where kernels are fused, whoever adds up the terms applies its last batch norm."""
    if isinstance(operation, OnMaps):
        return operation.term(maps)
    if can_fuse(maps.raw) and isinstance(operation, nn.Sequential):
        pool, batch_norm = operation
        return statistics(pool(maps), batch_norm) or operation(maps)
    return operation(maps)


def _sum(terms: Iterator[Tensor | Normed]) -> Tensor | None:
    """Sum maps that are computed one at a time and freed once added; None if there are none."""
    held = next(terms, None)
    if held is None:
        return None
    for number, term in enumerate(terms):
        if isinstance(held, Normed) or isinstance(term, Normed):
            held = total(held, term)
        elif number:
            # No backward pass reads the sum of two, and nobody else does.
            held = held.add_(term)
        else:
            held = held + term  # The first may be a state that others read.
    return total(held) if isinstance(held, Normed) else held


class SuperNetwork(nn.Module):
    """Stem, cells with every operation, global average pooling and a linear head.

    Args:
        classes: classes of the task.
        channels: channels C of every cell, and of the stem.
        cells: cells in the stack.
        reduce_bn: apply the batch norm of factorized reductions.
        running_bn: keep running statistics, by which batch norm works in evaluation mode.
    """

    def __init__(self, classes: int, channels: int, cells: int = 4, *, reduce_bn: bool = True, running_bn: bool = False) -> None:
        super().__init__()
        batch_norm = partial(nn.BatchNorm2d, affine=False, track_running_stats=running_bn)
        stem_bn = nn.BatchNorm2d(channels, track_running_stats=running_bn)
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), stem_bn)
        self.cells = nn.ModuleList()
        inputs, halved = (channels, channels), False
        for index in range(cells):
            reduce = index in reductions(cells)
            cell = SearchCell(inputs, channels, reduce=reduce, halve=halved, batch_norm=batch_norm, reduce_bn=reduce_bn)
            self.cells.append(cell)
            inputs, halved = (inputs[1], NODES * channels), reduce
        self.head = nn.Linear(NODES * channels, classes)

    def forward(self, images: Float[Tensor, "n 3 h w"], path: SampledPath) -> Float[Tensor, "n classes"]:
        """Compute logits of the network with only the operations of `path`; nothing else is computed."""
        normal, reduce = path
        before = previous = stem_maps(self.stem, images)
        for cell in self.cells:
            before, previous = previous, cell(before, previous, reduce if cell.reduce else normal)
        return self.head(previous.raw.mean(dim=(2, 3)))
