"""Plot AP against the number of parameters and against minutes, one point per method."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.report.canvas import FONT, LIGHT, Theme, axes, drawable, figure, finish
from lifelong.report.runs import Runs
from lifelong.report.wording import finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""

LABEL = 8.5
"""Size of a label's letters in points."""

MARKS = 7
"""So many methods have marks and colours of their own; of more only some are named (`labelled`)."""

MARK = 4.0
"""Points from the centre of a point to its edge."""


@dataclass(frozen=True)
class Point:
    """A method in one panel.

    Attributes:
        label: the method.
        x, y: means over its seeds.
        x_sd, y_sd: sample standard deviations; 0 for one seed.
        index: of the method in the comparison: its colour and mark are the same in both panels.
    """

    label: str
    x: float
    y: float
    x_sd: float
    y_sd: float
    index: int


def tradeoff(runs: Sequence[Runs], path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """AP against parameters and against minutes; bars are one standard deviation over seeds. Unfinished runs are left out.

    Args:
        runs: of one stream.
        path: where to write the PNG; None: nowhere.
        theme: the colours.

    Returns:
        The PNG.
    """
    drawing = figure(11.2, 4.6, theme)
    size, minutes = points(runs, "parameters", 1.0), points(runs, "seconds", 60.0)
    unit, name = (
        (1e6, "millions of parameters") if max((point.x for point in size), default=0.0) >= 1e6 else (1e3, "thousands of parameters")
    )
    size = [Point(point.label, point.x / unit, point.y, point.x_sd / unit, point.y_sd, point.index) for point in size]
    _panel(drawing, axes(drawing, (0.7, 0.6, 4.6, 3.4), theme), size, "AP and size", name, theme)
    _panel(drawing, axes(drawing, (6.2, 0.6, 4.6, 3.4), theme), minutes, "AP and time", "minutes", theme)
    return finish(drawing, path)


def points(runs: Sequence[Runs], across: str, unit: float) -> list[Point]:
    """Compute the points of a panel.

    Args:
        runs: of one stream.
        across: the entry of a summary that goes across.
        unit: what it is divided by.
    """
    found = []
    for index, one in enumerate(runs):
        both = [(finite(summary.get(across)), finite(summary.get("ap"))) for summary in one.summaries]
        known = [(x / unit, y) for x, y in both if x is not None and y is not None]
        if one.complete and known:
            (x, x_sd), (y, y_sd) = (_mean_and_sd([pair[part] for pair in known]) for part in (0, 1))
            found.append(Point(drawable(one.label, 30), x, y, x_sd, y_sd, index))
    return found


def _mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _panel(drawing: "Figure", frame: "Axes", shown: Sequence[Point], title: str, unit: str, theme: Theme) -> None:
    frame.set_title(title, loc="left", color=theme.ink, fontsize=11, fontfamily=FONT)
    frame.set_xlabel(unit, color=theme.muted, fontsize=9, fontfamily=FONT)
    frame.set_ylabel("AP", color=theme.muted, fontsize=9, fontfamily=FONT)
    frame.set_axisbelow(True)
    frame.grid(color=theme.faint, linewidth=0.6)
    if not shown:
        return
    low, high = min(point.x for point in shown), max(point.x for point in shown)
    if low > 0 and high > 10 * low:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        frame.set_xscale("log")
        frame.tick_params(which="minor", colors=theme.muted)
        frame.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        frame.xaxis.set_minor_formatter(NullFormatter())
    # Room for labels next to the outermost points.
    frame.margins(x=0.16, y=0.14)
    named = labelled(shown)
    for point in shown:
        apart, first = point in named, point.index == 0
        colour = theme.series[point.index % len(theme.series)] if len(named) == len(shown) else theme.none
        if apart and len(named) < len(shown):
            colour = theme.series[0] if first else theme.ink
        # A bar must not reach below zero, where a logarithm has no place for it.
        bar = [[min(point.x_sd, 0.999 * point.x)], [point.x_sd]]
        frame.errorbar(
            point.x,
            point.y,
            xerr=bar,
            yerr=point.y_sd,
            color=colour,
            marker="osD^vPX"[point.index % 7] if len(named) == len(shown) else "*" if first else "o",
            markersize=12 if first and len(named) < len(shown) else 6 if apart else 4,
            elinewidth=1 if apart else 0.5,
            linestyle="none",
            zorder=4 if first else 3 if apart else 2,
        )
    _label(drawing, frame, shown, named, theme)


def labelled(shown: Sequence[Point]) -> list[Point]:
    """Choose the points to label: all if few; else the first, those that no other beats in both, and the best and worst by AP."""
    if len(shown) <= MARKS:
        return list(shown)
    ranked = sorted(shown, key=lambda point: point.y)
    beaten = [any(other.y > point.y and other.x <= point.x for other in shown) for point in shown]
    front = [point for point, lost in zip(shown, beaten, strict=True) if not lost]
    ends = [ranked[0], *ranked[-3:]]
    return [point for point in shown if point.index == 0 or point in front or point in ends]


def _label(drawing: "Figure", frame: "Axes", shown: Sequence[Point], named: Sequence[Point], theme: Theme) -> None:
    """Write methods next to their points, connected by a thin line if they are farther away."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    to_points = 72 / drawing.dpi
    FigureCanvasAgg(drawing).draw()
    places = [tuple(value * to_points for value in frame.transData.transform((point.x, point.y))) for point in shown]
    box = frame.get_window_extent()
    inside = (box.x0 * to_points, box.y0 * to_points, box.x1 * to_points, box.y1 * to_points)
    order = [*named, *(point for point in shown if point not in named)]
    places = [places[shown.index(point)] for point in order]
    sizes = [(width_of(point.label), 1.25 * LABEL) for point in named]
    bars = [tuple(part * to_points for part in frame.transData.transform_bbox(_bars(point)).extents) for point in named]
    for point, (x, y), (left, bottom, right, top) in zip(named, places, place_labels(places, sizes, inside, bars), strict=False):
        near = max(left - x, x - right, bottom - y, y - top) < 2.5 * MARK
        frame.annotate(
            point.label,
            (point.x, point.y),
            xytext=((left + right) / 2 - x, (bottom + top) / 2 - y),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=LABEL,
            fontfamily=FONT,
            fontweight="bold" if point.index == 0 and len(named) < len(shown) else "normal",
            color=theme.ink,
            arrowprops=None if near else {"arrowstyle": "-", "color": theme.muted, "linewidth": 0.6, "shrinkA": 0, "shrinkB": MARK},
            zorder=4,
        )


def _bars(point: Point) -> "Bbox":
    """Return the line of a point's wider bar, which labels should not cover."""
    from matplotlib.transforms import Bbox

    return Bbox([[max(point.x - point.x_sd, 0.001 * point.x), point.y], [point.x + point.x_sd, point.y]])


def width_of(label: str) -> float:
    """Return the width of a label in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), label, size=LABEL, prop=FontProperties(family=FONT)).get_extents().width + 4


def place_labels(
    points: Sequence[Sequence[float]], sizes: Sequence[tuple[float, float]], inside: Box, bars: Sequence[Sequence[float]] = ()
) -> list[Box]:
    """Place labels as near to their points as possible without covering a point or each other.

    Args:
        points: x and y of each; those that get a label first, then others that are not to be covered.
        sizes: width and height of each label.
        inside: labels stay in it where they can.
        bars: left, bottom, right and top of lines that are not covered either.

    Returns:
        The box of each label. If there is no free place, the one that covers least.
    """
    marks: list[Box] = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in points]
    marks += [(left, bottom - 1, right, top + 1) for left, bottom, right, top in bars]
    taken: dict[int, Box] = {}
    # The most crowded points first: they have the fewest free places.
    crowd = [sum(math.dist(one, other) < 60 for other in points) for one in points]
    for index in sorted(range(len(sizes)), key=lambda number: -crowd[number]):
        best, least = None, math.inf
        for box in _around(points[index], sizes[index]):
            outside = sum(max(0.0, edge) for edge in (inside[0] - box[0], inside[1] - box[1], box[2] - inside[2], box[3] - inside[3]))
            covered = sum(_common(box, other) for other in (*marks, *taken.values())) + 100 * outside
            if covered < least:
                best, least = box, covered
            if covered == 0:
                break
        assert best is not None
        taken[index] = best
    return [taken[index] for index in range(len(sizes))]


def _around(point: Sequence[float], size: tuple[float, float]) -> Iterator[Box]:
    """Places for a label, the nearest first: right, left, above, below, then between, in growing circles."""
    width, height = size
    for step in range(40):
        distance = 1.6 * MARK + 5 * step
        for turn in (0, 8, 4, 12, 2, 6, 10, 14, 1, 3, 5, 7, 9, 11, 13, 15):
            across, up = math.cos(math.tau * turn / 16), math.sin(math.tau * turn / 16)
            x = point[0] + across * (distance + width / 2)
            y = point[1] + up * (distance + height / 2)
            yield x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _common(one: Box, other: Box) -> float:
    """Return the area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
