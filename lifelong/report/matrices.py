"""Heat maps: accuracies r_ij, and distances with the decisions that follow from them."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.records.distances import Decided, DistancesRecord
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.report.canvas import FEW, FONT, LIGHT, Theme, axes, drawable, figure, finish, readable_on, task_ticks
from lifelong.report.wording import by_measure, decision, finite, kind, threshold_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = tuple[float, float, float, float]
Rows = list[list[float | None]]

NAME_WIDTH = 0.075
"""Inches that a character of a task's name takes."""

DEFAULT_THRESHOLDS = (0.5, 0.75)

SHADES = 24
"""Of a band: more cannot be told apart, and make the picture of a hundred tasks twice as large."""

FARTHEST = 100.0
"""From this Eq. 4 on the colour does not deepen."""


def accuracy_matrix(summary: RunRecord, path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """Draw the accuracies r_ij as a heat map: one row per task learned, one column per task evaluated.

    Args:
        summary: of one run.
        path: where to write the PNG; None: nowhere.
        theme: the colours.

    Returns:
        The PNG.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    rows = [[finite(value) for value in row] for row in summary.accuracy]
    digits = 3 if len(rows) <= 12 else 2
    drawing, frame, right = _square([task.name for task in summary.tasks], theme)
    _draw(frame, rows, lambda row, column, value: colormaps["cividis"](value), lambda value: f"{value:.{digits}f}", theme)
    frame.set_xlabel("accuracy on task", color=theme.muted, fontsize=9, fontfamily=FONT)
    frame.set_title("Accuracy after each task", loc="left", color=theme.ink, fontsize=11, fontfamily=FONT)
    width, height = drawing.get_size_inches()
    bar = drawing.add_axes((right / width, frame.get_position().y0, 0.14 / width, min(2.0 / height, frame.get_position().height)))
    scale = drawing.colorbar(ScalarMappable(cmap=colormaps["cividis"]), cax=bar)
    scale.outline.set_visible(False)
    bar.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=8, labelfontfamily=FONT)
    return finish(drawing, path)


def divergence_heatmap(result: DistancesRecord | RunRecord, path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """Draw the divergences of each task from every earlier one, coloured by threshold, next to the decisions.

    Args:
        result: of `lifelong.distances`, or of one run.
        path: where to write the PNG; None: nowhere.
        theme: the colours.

    Returns:
        The PNG.
    """
    names, decided, rows, thresholds = _divergences(result)
    mapped = [_mapped_rows(each, row) for each, row in zip(decided, rows, strict=True)]
    drawing, frame, _ = _square(names, theme)
    # Colours by the distances, which the thresholds are held against; the numbers are divergences, which say more of far tasks.
    _draw(frame, rows, lambda row, column, value: _shade(value, *thresholds[row], mapped[row][column]), _compact, theme)
    numbers = f" (numbers: {drawable(by_measure(result), 36)})" if len(names) <= FEW else ""
    frame.set_xlabel(f"divergence from task{numbers}", color=theme.muted, fontsize=9, fontfamily=FONT)
    frame.set_title("Divergences and decisions", loc="left", color=theme.ink, fontsize=11, fontfamily=FONT)
    _decisions(frame, decided, theme)
    _band_legend(drawing, frame, thresholds, theme, allocated=any(kind(task) == "allocate" for task in decided))
    return finish(drawing, path)


def pair_heatmaps(
    names: list[str], gains: Rows, distances: Rows, words: tuple[str, str], path: Path | None = None, *, theme: Theme = LIGHT
) -> bytes:
    """Draw what targets gain by sources beside the distances of targets from sources: two heat maps with a row for each target.

    Args:
        names: of the tasks.
        gains: row j, column i: of target j by source i; None on the diagonal.
        distances: the same, in [0, 1].
        words: titles of the two.
        path: where to write the PNG; None: nowhere.
        theme: the colours.

    Returns:
        The PNG.
    """
    drawing, frame, right = _square(names, theme)
    height = drawing.get_size_inches()[1]
    side = frame.get_position().height * height
    width = right + side + 0.2
    drawing.set_size_inches(width, height)
    frame.set_position(((right - 0.2 - side) / width, 0.9 / height, side / width, side / height))
    largest = max([0.01, *(abs(value) for row in gains for value in row if value is not None)])
    _draw(
        frame,
        gains,
        lambda row, column, value: _gain_shade(value / largest),
        lambda value: f"{value:+.2f}".replace("-0.00", "+0.00"),
        theme,
    )
    beside = _beside(drawing, frame, (right, 0.9, side, side), theme)
    _draw(beside, distances, lambda row, column, value: _near_shade(value), lambda value: f"{value:.2f}", theme)
    for part, title in zip((frame, beside), words, strict=True):
        part.set_title(drawable(title, 48), loc="left", color=theme.ink, fontsize=10, fontfamily=FONT)
        part.set_xlabel("source", color=theme.muted, fontsize=9, fontfamily=FONT)
    return finish(drawing, path)


def _beside(drawing: "Figure", frame: "Axes", box: tuple[float, float, float, float], theme: Theme) -> "Axes":
    """Make axes like others, without the names of the rows."""
    part = axes(drawing, box, theme)
    part.set_xlim(frame.get_xlim())
    part.set_ylim(frame.get_ylim())
    part.set_xticks(frame.get_xticks(), [label.get_text() for label in frame.get_xticklabels()])
    part.set_yticks([])
    for spine in part.spines.values():
        spine.set_visible(False)
    return part


def _gain_shade(share: float) -> Colour:
    """Blue for a gain, orange for a loss, paler the smaller; grey for none.

    Args:
        share: of the largest gain or loss, in [-1, 1].
    """
    return _between("#e8eaed", "#00507f" if share > 0 else "#b54708", abs(share))


def _near_shade(distance: float) -> Colour:
    """Blue for a near task, pale for a far one.

    Args:
        distance: in [0, 1].
    """
    return _between("#00507f", "#e8eaed", distance)


def _between(near: str, far: str, share: float) -> Colour:
    from matplotlib.colors import to_rgb

    share = round(SHADES * min(max(share, 0.0), 1.0)) / SHADES
    red, green, blue = (a + (b - a) * share for a, b in zip(to_rgb(near), to_rgb(far), strict=True))
    return red, green, blue, 1.0


def _divergences(result: DistancesRecord | RunRecord) -> tuple[list[str], list[Decided], Rows, list[tuple[float, float]]]:
    """Extract names, decisions, the lower triangle of divergences, and each task's thresholds."""
    decided: list[Decided] = []
    if isinstance(result, RunRecord):
        names, last = [task.name for task in result.tasks], DEFAULT_THRESHOLDS
        rows = [list(task.divergences or []) for task in result.tasks]
        decided += result.tasks
    else:
        names, last = result.tasks, _threshold_pair(result.alpha, result.beta, DEFAULT_THRESHOLDS)
        rows = [list(row[:index]) for index, row in enumerate(result.divergences)]
        decided += result.decisions
    return names, decided, [[finite(value) for value in row] for row in rows], _thresholds(decided, last)


def _thresholds(records: list[Decided], last: tuple[float, float]) -> list[tuple[float, float]]:
    """Return the thresholds of each task: a tuned run may choose them per task. A task without thresholds gets the next one's.

    Args:
        records: of the tasks.
        last: of those behind which no task has any.
    """
    found: list[tuple[float, float]] = []
    for record in reversed(records):
        last = _threshold_pair(record.alpha, record.beta, last)
        found.append(last)
    return found[::-1]


def _threshold_pair(alpha: float | None, beta: float | None, usual: tuple[float, float]) -> tuple[float, float]:
    """Return the thresholds, the usual ones where there is none; without cells to reuse there is no beta, and nothing lies between."""
    known = (finite(alpha), finite(alpha) if finite(beta) is None else finite(beta))
    low, high = (value if own is None else own for own, value in zip(known, usual, strict=True))
    return low, max(low, high)


def _mapped_rows(record: Decided, divergences: Sequence[float | None]) -> list[float | None]:
    """Return the distances of a task's divergences: as recorded, or else by Eq. 6, the only map of runs that did not record them."""
    recorded = record.task_distances if isinstance(record, TaskRecord) else record.distances
    known = [finite(value) for value in recorded or []]
    if len(known) >= len(divergences):
        return known
    return [None if value is None else _mapped(value) for value in divergences]


def _mapped(value: float) -> float:
    """Eq. 6, kept in [0, 1]."""
    return min(max(min(value, 1 - math.exp(-2 * max(value, 0.0))), 0.0), 1.0)


def _unmapped(value: float) -> float:
    """Return the value of Eq. 4 that Eq. 6 maps to a threshold, which may be 1 or above."""
    return value if _mapped(value) >= value else -math.log(max(1 - value, 1e-9)) / 2


def _shade(value: float, alpha: float, beta: float, distance: float | None = None) -> Colour:
    """Blue up to alpha, orange up to beta, each fading with the distance; beyond, purple that deepens with the divergence's logarithm.

    Args:
        value: the divergence.
        alpha, beta: the thresholds for its distance.
        distance: None: by Eq. 6.
    """
    mapped = _mapped(value) if distance is None else distance
    if mapped > beta:
        # Eq. 6 is 1 for all that is far: only Eq. 4 tells 2 from 60. A divergence of 0 may be far, too, in the authors' code.
        start = _unmapped(beta)
        near, far, share = "#f5eaf0", "#7a2b5c", math.log(max(value, start) / start) / math.log(FARTHEST / start)
    elif mapped > alpha:
        near, far, share = "#d98f00", "#f6cf74", (mapped - alpha) / max(beta - alpha, 1e-9)
    else:
        near, far, share = "#00507f", "#5aa9d6", mapped / max(alpha, 1e-9)
    return _between(near, far, share)


def _square(tasks: list[str], theme: Theme) -> "tuple[Figure, Axes, float]":
    """Make a figure with square cells, task by task, and return the x in inches where its right margin starts."""
    count = max(len(tasks), 1)
    names = [_label(index, name) for index, name in enumerate(tasks)] if count <= FEW else [str(index + 1) for index in range(count)]
    left = 0.3 + NAME_WIDTH * max(map(len, names), default=0)
    side = count * (0.52 if count <= 12 else 0.4) if count <= FEW else 7.0
    drawing = figure(left + side + 2.4, side + 1.6, theme)
    frame = axes(drawing, (left, 0.9, side, side), theme)
    frame.set_xlim(-0.5, count - 0.5)
    frame.set_ylim(count - 0.5, -0.5)
    ticks = task_ticks(len(tasks))
    frame.set_xticks(ticks, [str(index + 1) for index in ticks])
    frame.set_yticks(ticks, [names[index] for index in ticks])
    for spine in frame.spines.values():
        spine.set_visible(False)
    return drawing, frame, left + side + 0.2


def _label(index: int, name: str) -> str:
    return f"{drawable(name)}  {index + 1}"


def _draw(frame: "Axes", rows: Rows, colour: Callable[[int, int, float], Colour], form: Callable[[float], str], theme: Theme) -> None:
    """Draw a lower triangle of coloured cells, with numbers if they are legible."""
    import numpy as np

    count = max(len(rows), 1)
    picture = np.zeros((count, count, 4))
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            if value is None:
                continue
            shade = colour(row, column, value)
            picture[row, column] = shade
            if count <= FEW:
                size = 8.5 if count <= 12 else 7
                ink = readable_on(shade)
                frame.text(column, row, form(value), ha="center", va="center", fontsize=size, color=ink, fontfamily=FONT)
    frame.imshow(picture, interpolation="nearest", aspect="auto", extent=(-0.5, count - 0.5, count - 0.5, -0.5))
    if count <= FEW:
        for edge in range(1, count):
            frame.axhline(edge - 0.5, color=theme.paper, linewidth=1.2)
            frame.axvline(edge - 0.5, color=theme.paper, linewidth=1.2)


def _compact(value: float) -> str:
    """Write a divergence in about four characters."""
    magnitude = abs(value)
    return (
        f"{value:.2f}"
        if magnitude < 9.995
        else f"{value:.1f}"
        if magnitude < 99.95
        else f"{value:.0f}"
        if magnitude < 9999.5
        else f"{value:.0e}"
    )


def _decisions(frame: "Axes", tasks: list[Decided], theme: Theme) -> None:
    """Draw a coloured mark for each row's decision, with words if there is room."""
    from matplotlib.patches import Rectangle

    count = len(tasks)
    gap = count * 0.03
    for row, task in enumerate(tasks):
        if kind(task) is None:
            continue
        width, margin = (0.26, 0.13) if count <= FEW else (count * 0.025, 0.0)
        place = (count - 0.5 + gap, row - 0.5 + margin)
        frame.add_patch(Rectangle(place, width, 1 - 2 * margin, facecolor=theme.decision(kind(task)), edgecolor="none", clip_on=False))
        if count <= FEW:
            frame.text(
                place[0] + width + 0.18, row, drawable(decision(task), 36), va="center", fontsize=8.5, color=theme.ink, fontfamily=FONT
            )


def _band_legend(drawing: "Figure", frame: "Axes", thresholds: list[tuple[float, float]], theme: Theme, *, allocated: bool) -> None:
    """Draw the bands with their thresholds by name, in the colours of the first task's; `allocated`: without a rule for cells."""
    from matplotlib.patches import Patch

    alpha, beta = thresholds[0] if thresholds else DEFAULT_THRESHOLDS
    alphas, betas = (threshold_words(each) for each in zip(*(thresholds or [DEFAULT_THRESHOLDS]), strict=True))
    without_cells = all(alpha == beta for alpha, beta in thresholds or [DEFAULT_THRESHOLDS])
    if without_cells:
        further, far = "", "> α: far, an expert of its own"
    elif allocated:
        further, far = "related, a new expert is allocated", "> β: far, a new expert is allocated"
    else:
        further, far = "related, reuses its cell", "> β: far, a cell is searched"
    bands = [
        Patch(facecolor=_shade(alpha / 2, alpha, beta), label=f"≤ α = {alphas}: near, shares an expert"),
        Patch(facecolor=_shade((alpha + beta) / 2, alpha, beta), label=f"≤ β = {betas}: {further}"),
        Patch(facecolor=_shade(math.sqrt(_unmapped(beta) * FARTHEST), alpha, beta), label=f"{far} (darker: farther)"),
    ]
    if without_cells:
        del bands[1]
    height = drawing.get_size_inches()[1]
    box = frame.get_position()
    drawing.legend(
        handles=bands,
        loc="upper left",
        bbox_to_anchor=(box.x0, box.y0 - 0.56 / height),
        frameon=False,
        prop={"family": FONT, "size": 8.5},
        labelcolor=theme.ink,
        borderaxespad=0,
        borderpad=0,
    )
