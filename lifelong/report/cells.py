"""The diagram of a searched cell: like a circuit, a rail for each source and a wire for each operation.

Every source (two inputs, four nodes) owns a horizontal rail, from itself to the right; a node taps the rails of its two sources by
vertical wires, each with its operation on a label directly above the node. Labels stand between two rails, where nothing else
is, so that no cell can make them overlap.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.networks.genotype import CellPlan, Genotype
from lifelong.report.canvas import FONT, LIGHT, Theme, axes, figure, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INPUTS = ("layer before\nthe previous", "previous\nlayer")
COLUMN = 2.6
"""Inches from node to node, across."""

ROW = 0.62
"""Inches from rail to rail, down."""

DIAGRAM_DPI = 110
"""Less than other figures: a diagram is wide."""

TAP = 0.64
"""Inches from a node's middle to each of its two wires."""


def cell_diagram(genotype: Genotype | str, path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """Both cells of a genotype as graphs: inputs at the left, nodes 1 to 4, output at the right, an operation on each edge.

    Args:
        genotype: the cell, or its printed form.
        path: where to write the PNG; None: nowhere.
        theme: the colours.

    Returns:
        The PNG.

    Raises:
        LifelongError: the text is not a genotype.
    """
    plan = Genotype.parse(genotype) if isinstance(genotype, str) else genotype
    width, height = 1.5 + 4 * COLUMN + 1.5, 6 * ROW + 0.35
    drawing = figure(width, 2 * height + 0.3, theme)
    for cell, title, bottom in ((plan.normal, "Normal cell", height + 0.3), (plan.reduce, "Reduction cell", 0.0)):
        _cell(axes(drawing, (0.0, bottom, width, height), theme), cell, title, theme)
    return finish(drawing, path, dpi=DIAGRAM_DPI)


def _cell(frame: "Axes", cell: CellPlan, title: str, theme: Theme) -> None:
    from matplotlib.patches import FancyBboxPatch

    nodes, sources = len(cell), len(cell) + 2
    end = 1.5 + nodes * COLUMN
    frame.set_xlim(0, end + 1.5)
    frame.set_ylim(-0.25, sources * ROW + 0.1)
    frame.set_axis_off()
    frame.text(0.05, sources * ROW - 0.12, title, fontsize=13, color=theme.ink, fontfamily=FONT, fontweight="bold", va="center")

    rails = [(sources - 1 - source) * ROW for source in range(sources)]
    middles = [0.75, 0.75, *(1.5 + (node + 0.5) * COLUMN for node in range(nodes))]
    _rails(frame, cell, rails, middles, end, theme)
    for node, operations in enumerate(cell):
        for (operation, source), side in zip(operations, (-1, 1), strict=True):
            _wire(frame, operation, middles[node + 2] + side * TAP, rails[source], rails[node + 2], theme)

    def box(x: float, y: float, w: float, h: float, text: str, size: float) -> None:
        shape = FancyBboxPatch(
            (x - w / 2, y - h / 2), w, h, boxstyle="round,pad=0,rounding_size=0.08", facecolor=theme.paper, edgecolor=theme.ink
        )
        shape.set_zorder(5)
        frame.add_patch(shape)
        frame.text(x, y, text, ha="center", va="center", fontsize=size, color=theme.ink, fontfamily=FONT, zorder=6, linespacing=0.95)

    for source, name in enumerate(INPUTS):
        box(middles[source], rails[source], 1.4, 0.44, name, 8.5)
    for node in range(nodes):
        box(middles[node + 2], rails[node + 2], 2 * TAP + 0.5, 0.3, f"node {node + 1}", 11.0)
    box(end + 0.75, (rails[2] + rails[-1]) / 2, 1.3, rails[2] - rails[-1] + 0.3, "output:\nall nodes,\nconcatenated", 10.0)


def _rails(frame: "Axes", cell: CellPlan, rails: list[float], middles: list[float], end: float, theme: Theme) -> None:
    """A node's rail runs to the output, an input's to the last wire that taps it."""
    for source, (height, middle) in enumerate(zip(rails, middles, strict=True)):
        taps = [
            middles[node + 2] + side * TAP
            for node, operations in enumerate(cell)
            for (_, used), side in zip(operations, (-1, 1), strict=True)
            if used == source
        ]
        reach = end + 0.1 if source >= 2 else max(taps, default=middle)
        frame.plot([middle, reach], [height, height], color=theme.none, linewidth=1.6, solid_capstyle="butt", zorder=1)
        frame.scatter(taps, [height] * len(taps), s=26, color=theme.ink, zorder=3, linewidths=0)


def _wire(frame: "Axes", operation: str, x: float, top: float, bottom: float, theme: Theme) -> None:
    """An operation's edge: down from its source's rail to its node."""
    frame.annotate(
        "", xy=(x, bottom + 0.14), xytext=(x, top), arrowprops={"arrowstyle": "-|>", "color": theme.ink, "linewidth": 1.2}, zorder=2
    )
    colour = theme.expert if "conv" in operation else theme.cell if "pool" in operation else theme.none
    words = operation.replace("_", " ").replace("3x3", "3×3").replace("skip connect", "skip")
    label = {"boxstyle": "round,pad=0.22", "facecolor": theme.paper, "edgecolor": colour, "linewidth": 1.4}
    frame.text(x, bottom + 0.39, words, ha="center", va="center", fontsize=9, color=theme.ink, fontfamily=FONT, bbox=label, zorder=4)
