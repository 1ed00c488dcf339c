"""A cell as data: which operation on which edge. It can be printed, stored, compared and pasted back; nothing here needs torch.

A cell is a graph of seven nodes: two inputs (the outputs of the two previous layers), four intermediate nodes and an output that
concatenates the four. Each intermediate node adds up two operations on earlier nodes.

Source: Liu et al., DARTS (ICLR 2019); the six operations of PAR's search space (authors' code, darts_genotypes.py).
"""

import ast
from dataclasses import dataclass

from lifelong.errors import LifelongError, near_miss

OPERATIONS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
"""The candidates of an edge, in the order of the columns of a search's probabilities. `none` is never in a finished cell."""

NODES = 4
"""Intermediate nodes of a cell."""

EDGES = tuple((node, source) for node in range(NODES) for source in range(2 + node))
"""All 14 (node, source) of a cell, in the order of the rows of a search's probabilities. Source 0 is the layer before the previous
one, 1 the previous layer, 2... the intermediate nodes."""

Operation = tuple[str, int]
"""The operation's name and its source."""

Node = tuple[Operation, Operation]
CellPlan = tuple[Node, Node, Node, Node]


@dataclass(frozen=True)
class Genotype:
    """The two cells of a network: one that keeps the resolution and one that halves it.

    Its printed form is Python and can be pasted back, into code or into `Genotype.parse`.

    Attributes:
        normal: for each intermediate node, two (operation, source).
        reduce: the same, for the cell with stride 2 on the edges from its inputs.

    Raises:
        LifelongError: not four nodes of two operations each, an unknown operation, or a source that does not come before its node.
    """

    normal: CellPlan
    reduce: CellPlan

    def __post_init__(self) -> None:
        object.__setattr__(self, "normal", _checked("normal", self.normal))
        object.__setattr__(self, "reduce", _checked("reduce", self.reduce))

    @classmethod
    def parse(cls, text: str) -> "Genotype":
        """Parse a printed genotype; nothing in the text is executed.

        Raises:
            LifelongError: the text is not a printed genotype.
        """
        wrong = LifelongError(f"not a genotype: {_short(text)}; paste one as it was printed: Genotype(normal=..., reduce=...)")
        try:
            call = ast.parse(text.strip(), mode="eval").body
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "Genotype" or call.args:
                raise wrong
            cells = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
            raise wrong from error
        if len(call.keywords) != 2 or set(cells) != {"normal", "reduce"}:
            raise wrong
        return cls(_checked("normal", cells["normal"]), _checked("reduce", cells["reduce"]))


def _checked(name: str, plan: object) -> CellPlan:
    """Check a plan, and return it as tuples."""
    where = f"in the {name} cell of a genotype"
    if not isinstance(plan, (tuple, list)) or len(plan) != NODES:
        raise LifelongError(f"{where}: {NODES} nodes are needed, got {_short(repr(plan))}")
    nodes = []
    for index, node in enumerate(plan):
        if not isinstance(node, (tuple, list)) or len(node) != 2:
            raise LifelongError(f"{where}, node {index + 1}: two (operation, source) are needed, got {_short(repr(node))}")
        nodes.append(tuple(_checked_operation(f"{where}, node {index + 1}", index, operation) for operation in node))
        if nodes[-1][0][1] == nodes[-1][1][1]:
            raise LifelongError(f"{where}, node {index + 1}: its two sources must differ, both are {nodes[-1][0][1]}")
    return tuple(nodes)  # ty: ignore[invalid-explicit-return]


def _checked_operation(where: str, node: int, operation: object) -> Operation:
    if not isinstance(operation, (tuple, list)) or len(operation) != 2:
        raise LifelongError(f"{where}: an (operation, source) is needed, got {_short(repr(operation))}")
    name, source = operation
    if not isinstance(name, str) or name not in OPERATIONS[1:]:
        raise LifelongError(f"{where}: unknown operation {_short(repr(name))}{near_miss(str(name), OPERATIONS[1:])}")
    if not isinstance(source, int) or isinstance(source, bool) or not 0 <= source < 2 + node:
        raise LifelongError(f"{where}: the source must be a whole number from 0 to {1 + node}, got {_short(repr(source))}")
    return name, source


def _short(text: str) -> str:
    """Shorten text to one line of at most 60 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def genotype(text: str) -> Genotype:
    """Return the genotype of a known name (`DARTS_V1`, `DARTS_V2`) or of a printed form.

    Raises:
        LifelongError: neither.
    """
    if "(" in text:
        return Genotype.parse(text)
    try:
        return NAMED[text.strip()]
    except KeyError:
        raise LifelongError(f"unknown cell {_short(repr(text))}{near_miss(text, NAMED)}; or paste a printed Genotype(...)") from None


DARTS_V1 = Genotype(
    normal=(
        (("sep_conv_3x3", 1), ("sep_conv_3x3", 0)),
        (("skip_connect", 0), ("sep_conv_3x3", 1)),
        (("skip_connect", 0), ("sep_conv_3x3", 1)),
        (("sep_conv_3x3", 0), ("skip_connect", 2)),
    ),
    reduce=(
        (("max_pool_3x3", 0), ("max_pool_3x3", 1)),
        (("skip_connect", 2), ("max_pool_3x3", 0)),
        (("max_pool_3x3", 0), ("skip_connect", 2)),
        (("skip_connect", 2), ("avg_pool_3x3", 0)),
    ),
)
"""The cell of DARTS's first version; the fixed cell of PAR's ablation (Table 5)."""

DARTS_V2 = Genotype(
    normal=(
        (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
        (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
        (("sep_conv_3x3", 1), ("skip_connect", 0)),
        (("skip_connect", 0), ("dil_conv_3x3", 2)),
    ),
    reduce=(
        (("max_pool_3x3", 0), ("max_pool_3x3", 1)),
        (("skip_connect", 2), ("max_pool_3x3", 1)),
        (("max_pool_3x3", 0), ("skip_connect", 2)),
        (("skip_connect", 2), ("max_pool_3x3", 1)),
    ),
)
"""The cell of DARTS's second version."""

NAMED = {"DARTS_V1": DARTS_V1, "DARTS_V2": DARTS_V2}
"""The cells that have a name."""
