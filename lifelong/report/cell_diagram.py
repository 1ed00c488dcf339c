"""The diagram of a searched cell: like a circuit, a rail for each source and a wire for each operation.

Every source (two inputs, four nodes) owns a horizontal rail, from itself to the right; a node taps the rails of its two sources by
vertical wires, each with its operation on a label directly above the node. Labels stand between two rails, where nothing else
is, so that no cell can make them overlap.
"""

from pathlib import Path

from lifelong.networks.genotype import CellPlan, Genotype
from lifelong.report.canvas import LIGHT, Theme
from lifelong.report.shapes import Box, Dot, Line, Shape, Words, width, write_shapes

INPUTS = ("layer before\nthe previous", "previous\nlayer")
COLUMN = 2.6
"""Inches from node to node, across."""

ROW = 0.62
"""Inches from rail to rail, down."""

DIAGRAM_DPI = 90
"""Less than other figures: a diagram is wide."""

TAP = 0.64
"""Inches from a node's middle to each of its two wires."""

LABEL = 9.0
"""Points of an operation's letters."""


def cell_diagram(genotype: Genotype | str, path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """Both cells of a genotype as graphs: inputs at the left, nodes 1 to 4, output at the right, an operation on each edge.

    Args:
        genotype: the cell, or its printed form.
        path: where to write the PNG, with the SVG next to it; None: nowhere.
        theme: the colours.

    Returns:
        The PNG.

    Raises:
        LifelongError: the text is not a genotype.
    """
    plan = Genotype.parse(genotype) if isinstance(genotype, str) else genotype
    height = 6 * ROW + 0.3
    size = (3.0 + 4 * COLUMN, 2 * height + 0.3)
    shapes = [*cell_shapes(plan.normal, "Normal cell", 0.0, theme), *cell_shapes(plan.reduce, "Reduction cell", height + 0.3, theme)]
    return write_shapes(shapes, size, theme, path, DIAGRAM_DPI)


def cell_shapes(cell: CellPlan, title: str, top: float, theme: Theme) -> list[Shape]:
    """Make the shapes of one cell, starting this many inches below the upper edge."""
    nodes, sources = len(cell), len(cell) + 2
    end = 1.5 + nodes * COLUMN
    rails = [top + 0.5 + source * ROW for source in range(sources)]
    middles = [0.75, 0.75, *(1.5 + (node + 0.5) * COLUMN for node in range(nodes))]
    shapes: list[Shape] = [Words(0.05, top + 0.13, title, 13.0, theme.ink), *_rails(cell, rails, middles, end, theme)]
    wires = [
        _wire(operation, middles[node + 2] + side * TAP, rails[source], rails[node + 2], theme)
        for node, operations in enumerate(cell)
        for (operation, source), side in zip(operations, (-1, 1), strict=True)
    ]
    shapes += [line for line, _ in wires]
    shapes += [label for _, label in wires]

    def box(x: float, y: float, w: float, h: float, words: str, points: float) -> Box:
        return Box(x, y, w, h, words, points, theme.ink, theme.ink, theme.paper)

    shapes += [box(middles[source], rails[source], 1.4, 0.44, name, 8.5) for source, name in enumerate(INPUTS)]
    shapes += [box(middles[node + 2], rails[node + 2], 2 * TAP + 0.5, 0.3, f"node {node + 1}", 11.0) for node in range(nodes)]
    outputs = (rails[2] + rails[-1]) / 2, rails[-1] - rails[2] + 0.3
    return [*shapes, box(end + 0.75, outputs[0], 1.3, outputs[1], "output:\nall nodes,\nconcatenated", 10.0)]


def _rails(cell: CellPlan, rails: list[float], middles: list[float], end: float, theme: Theme) -> list[Shape]:
    """Return where a rail ends: a node's at the output, an input's at the last wire that taps it."""
    lines: list[Shape] = []
    dots: list[Shape] = []
    for source, (height, middle) in enumerate(zip(rails, middles, strict=True)):
        taps = [
            middles[node + 2] + side * TAP
            for node, operations in enumerate(cell)
            for (_, used), side in zip(operations, (-1, 1), strict=True)
            if used == source
        ]
        reach = end + 0.1 if source >= 2 else max(taps, default=middle)
        lines.append(Line(middle, height, reach, height, theme.none, 1.6))
        dots += [Dot(tap, height, 0.037, theme.ink) for tap in taps]
    return [*lines, *dots]


def _wire(operation: str, x: float, top: float, bottom: float, theme: Theme) -> tuple[Line, Box]:
    """Draw an operation's edge, down from its source's rail to its node."""
    colour = theme.expert if "conv" in operation else theme.cell if "pool" in operation else theme.none
    words = operation.replace("_", " ").replace("3x3", "3×3").replace("skip connect", "skip")
    label = Box(x, bottom - 0.39, width(words, LABEL) + 0.12, 0.22, words, LABEL, theme.ink, colour, theme.paper)
    return Line(x, top, x, bottom - 0.15, theme.ink, arrow=True), label
