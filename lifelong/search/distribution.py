"""The arithmetic of multinomial distribution learning: sampling a cell, the update of its probabilities, the cell that comes out.

Source: Zheng et al., MdeNAS (ICCV 2019), Eq. 5-6; PAR's authors' code (mdenas_search.py:114-182).
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from lifelong.networks.genotype import EDGES, NODES, OPERATIONS, CellPlan

Table = Float64[Tensor, "edges operations"]


def _zeros() -> Tensor:
    return torch.zeros(len(EDGES), len(OPERATIONS), dtype=torch.float64)


def _uniform() -> Tensor:
    return torch.full((len(EDGES), len(OPERATIONS)), 1 / len(OPERATIONS), dtype=torch.float64)


@dataclass
class Distribution:
    """What a search knows of one kind of cell; each table has a row per edge and a column per operation.

    Attributes:
        probabilities: of the operations of each edge; rows sum to 1.
        trained: how often each operation was trained (H^e).
        accuracy: the accuracy in [0, 1] of the last network that had it; 0 for never (H^a).
    """

    probabilities: Table = field(default_factory=_uniform)
    trained: Table = field(default_factory=_zeros)
    accuracy: Table = field(default_factory=_zeros)

    def sample(self, generator: torch.Generator) -> tuple[int, ...]:
        """An operation for each edge, drawn by the probabilities."""
        return tuple(torch.multinomial(self.probabilities, 1, generator=generator).flatten().tolist())

    def learn(self, plan: tuple[int, ...], accuracy: float, step: float, projection: Literal["simplex", "softmax"]) -> None:
        """Take in the accuracy that a network with the operations of `plan` has reached, and update the probabilities.

        Args:
            plan: the operation of each edge.
            accuracy: on held-out images, in [0, 1].
            step: of the probabilities.
            projection: how a moved row becomes probabilities again.
        """
        rows = torch.arange(len(plan))
        self.trained[rows, list(plan)] += 1
        self.accuracy[rows, list(plan)] = accuracy
        self.probabilities = project(self.probabilities + step * votes(self.trained, self.accuracy).double(), projection)


def votes(trained: Table, accuracy: Table) -> Int64[Tensor, "edges operations"]:
    """For each operation: those of its edge that it beats, less those that beat it. Rows sum to zero.

    An operation beats another if it was trained less often and is yet more accurate.

    Args:
        trained: how often each was trained.
        accuracy: the last accuracy of each.
    """
    fewer = trained[:, :, None] < trained[:, None, :]
    better = accuracy[:, :, None] > accuracy[:, None, :]
    beats = fewer & better  # (edge, operation, the one it beats)
    return beats.sum(dim=2) - beats.sum(dim=1)


def project(table: Table, projection: Literal["simplex", "softmax"]) -> Table:
    """Rows that sum to 1 without a negative entry.

    Args:
        table: probabilities after a step.
        projection: "simplex": clamp at zero and divide by the sum. "softmax": the authors' code; it pulls every row towards uniform.
    """
    if projection == "softmax":
        return table.softmax(dim=1)
    clamped = table.clamp(min=0)
    return clamped / clamped.sum(dim=1, keepdim=True)


def derive(probabilities: Table) -> CellPlan:
    """The cell that a search has found: on each edge its most probable operation but `none`; into each node the two edges whose
    operations are the most probable. The first wins a tie; a node's two edges are listed by source.
    """
    best = []
    for (node, source), row in zip(EDGES, probabilities[:, 1:].tolist(), strict=True):
        chance = max(row)
        best.append((node, chance, OPERATIONS[1 + row.index(chance)], source))
    nodes = []
    for node in range(NODES):
        # `sorted` keeps the order of equal chances.
        top = sorted((edge for edge in best if edge[0] == node), key=lambda edge: -edge[1])[:2]
        nodes.append(tuple(sorted(((name, source) for _, _, name, source in top), key=lambda operation: operation[1])))
    return tuple(nodes)  # ty: ignore[invalid-explicit-return]
