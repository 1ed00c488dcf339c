"""The arithmetic of multinomial distribution learning: sampling a cell, updating its probabilities, deriving the final cell.

Source: Zheng et al., MdeNAS (ICCV 2019), Eq. 5-6; PAR's authors' code (mdenas_search.py:114-182).
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from lifelong.networks.genotype import EDGES, NODES, OPERATIONS, CellPlan

Table = Float64[Tensor, "edges operations"]

FEWEST_ROUNDS = 3
"""Sampled networks before any edge can be decided: an operation beats another if it was trained less often, yet at least once, and
is more accurate. With one or two networks no edge has two such operations."""

ENOUGH_ROUNDS = 20
"""Networks that are sampled until an edge in a hundred is undecided: in 40 simulated searches, of the 16 edges of both cells 16
after 2 rounds, 11 to 13 after 3, 7.5 after 4, 5 after 5, 2 after 8, 1 to 2 after 10, 0.2 after 20 and none after 40."""

ROUNDING = 1e-12
"""Probabilities that differ by less are equal: a vote moves one by `search_step`."""


def _zeros() -> Tensor:
    return torch.zeros(len(EDGES), len(OPERATIONS), dtype=torch.float64)


def _uniform() -> Tensor:
    return torch.full((len(EDGES), len(OPERATIONS)), 1 / len(OPERATIONS), dtype=torch.float64)


@dataclass
class Distribution:
    """The distribution over one kind of cell; each table has a row per edge and a column per operation.

    Attributes:
        probabilities: of the operations of each edge; rows sum to 1.
        trained: how often each operation was trained (H^e).
        accuracy: the accuracy in [0, 1] of the last network with the operation; 0 if never trained (H^a).
    """

    probabilities: Table = field(default_factory=_uniform)
    trained: Table = field(default_factory=_zeros)
    accuracy: Table = field(default_factory=_zeros)

    def sample(self, generator: torch.Generator) -> tuple[int, ...]:
        """Sample an operation for each edge."""
        return tuple(torch.multinomial(self.probabilities, 1, generator=generator).flatten().tolist())

    def learn(self, plan: tuple[int, ...], accuracy: float, step: float, projection: Literal["simplex", "softmax"]) -> None:
        """Record the accuracy of a network with the operations of `plan`, and update the probabilities.

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
    """Count for each operation the ones of its edge that it beats, minus those that beat it. Rows sum to zero.

    An operation beats another if it was trained less often but is more accurate.

    Args:
        trained: how often each was trained.
        accuracy: the last accuracy of each.
    """
    fewer = trained[:, :, None] < trained[:, None, :]
    better = accuracy[:, :, None] > accuracy[:, None, :]
    beats = fewer & better  # (edge, operation, the one it beats)
    return beats.sum(dim=2) - beats.sum(dim=1)


def project(table: Table, projection: Literal["simplex", "softmax"]) -> Table:
    """Project rows so that they sum to 1 without a negative entry.

    Args:
        table: probabilities after a step.
        projection: "simplex": clamp at zero and divide by the sum. "softmax": the authors' code; it pulls every row towards uniform.
    """
    if projection == "softmax":
        return table.softmax(dim=1)
    clamped = table.clamp(min=0)
    return clamped / clamped.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Derived:
    """The cell found by a search.

    Attributes:
        plan: the cell.
        undecided: edges of it that the search has not decided: their operation, or their place among the edges of the node, was one of
            several that were equally probable.
    """

    plan: CellPlan
    undecided: int


def derive(probabilities: Table, ties: torch.Generator | None) -> Derived:
    """Derive the cell: on each edge its most probable operation except `none`; into each node the two edges whose operations are the
    most probable. A node's two edges are listed by source.

    Args:
        probabilities: at the end of the search.
        ties: breaks ties at random; None: take the first. So does the authors' code for operations; for edges it takes those that
            `torch.topk` names, which are not always the first.
    """
    best = []
    for (node, source), row in zip(EDGES, probabilities[:, 1:].tolist(), strict=True):
        equals = [index for index, chance in enumerate(row) if chance >= max(row) - ROUNDING]
        best.append(_Best(node, source, OPERATIONS[1 + equals[_pick(len(equals), ties)]], max(row), len(equals) > 1))
    nodes, undecided = [], 0
    for node in range(NODES):
        chosen, drawn = _best_two([edge for edge in best if edge.node == node], ties)
        nodes.append(tuple((edge.operation, edge.source) for edge in sorted(chosen, key=lambda edge: edge.source)))
        undecided += sum(edge.tied or edge in drawn for edge in chosen)
    return Derived(tuple(nodes), undecided)


class _Best(NamedTuple):
    """The most probable operation of an edge, and whether others are as probable."""

    node: int
    source: int
    operation: str
    chance: float
    tied: bool


def _best_two(edges: list[_Best], ties: torch.Generator | None) -> tuple[list[_Best], list[_Best]]:
    """Select the two edges of a node with the most probable operations; return also those chosen among ties."""
    cut = sorted((edge.chance for edge in edges), reverse=True)[1]
    sure = [edge for edge in edges if edge.chance > cut + ROUNDING]
    equals = [edge for edge in edges if abs(edge.chance - cut) <= ROUNDING]
    drawn = []
    while len(sure) + len(drawn) < 2:
        drawn.append(equals.pop(_pick(len(equals), ties)))
    return sure + drawn, drawn if equals else []


def _pick(count: int, ties: torch.Generator | None) -> int:
    """Pick an index below `count` at random; the first without a generator, which is not used for a single choice."""
    return 0 if ties is None or count == 1 else int(torch.randint(count, (), generator=ties))
