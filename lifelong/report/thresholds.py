"""Curves over a threshold: what α and β do to accuracy, size, experts and time (Fig. 3 and 4 of the paper)."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.report.canvas import FONT, LIGHT, Theme, axes, drawable, figure, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Curve:
    """A quantity over a threshold.

    Attributes:
        title: what it is, with its unit.
        values: for each threshold, one for each run.
    """

    title: str
    values: Sequence[Sequence[float]]


def threshold_curves(
    name: str, thresholds: Sequence[float], curves: Sequence[Curve], title: str, path: Path | None = None, *, theme: Theme = LIGHT
) -> bytes:
    """Draw one panel per quantity, side by side: means over the runs, with bars of one standard deviation.

    Args:
        name: of the threshold, such as "α".
        thresholds: where there are runs.
        curves: up to four.
        title: over all panels.
        path: where to write the PNG; None: nowhere.
        theme: the colours.

    Returns:
        The PNG.
    """
    wide, gap = 2.15, 0.75
    drawing = figure(gap + len(curves) * (wide + gap), 3.1, theme)
    for index, curve in enumerate(curves):
        frame = axes(drawing, (gap + index * (wide + gap), 0.6, wide, 1.8), theme)
        _panel(frame, name, thresholds, curve, theme.series[index % len(theme.series)], theme)
    drawing.text(0.05, 0.95, drawable(title, 120), color=theme.ink, fontsize=11, fontfamily=FONT, va="top")
    return finish(drawing, path)


def _panel(frame: "Axes", name: str, thresholds: Sequence[float], curve: Curve, colour: str, theme: Theme) -> None:
    known = [(threshold, values) for threshold, values in zip(thresholds, curve.values, strict=True) if values]
    places, means = [threshold for threshold, _ in known], [statistics.fmean(values) for _, values in known]
    bars = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in known]
    frame.errorbar(places, means, yerr=bars, color=colour, linewidth=2, marker="o", markersize=5, capsize=3, elinewidth=1.2)
    frame.set_title(curve.title, loc="left", color=theme.ink, fontsize=10, fontfamily=FONT)
    frame.set_xlabel(name, color=theme.muted, fontsize=9, fontfamily=FONT)
    frame.set_xticks(list(thresholds), [f"{threshold:g}" for threshold in thresholds], fontsize=8)
    frame.set_axisbelow(True)
    frame.grid(axis="y", color=theme.faint, linewidth=0.6)
    low, high = frame.get_ylim()
    if low >= 0:
        # From zero: a curve that hardly changes must look so.
        frame.set_ylim(0, high * 1.05 if high else 1.0)
