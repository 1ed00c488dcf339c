"""Curves, bars and points: accuracy over the stream, cost task by task, methods side by side."""

import math
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.report.canvas import FEW, FONT, LIGHT, Theme, axes, drawable, figure, finish, task_ticks
from lifelong.report.runs import Runs
from lifelong.report.wording import curve, finite, learned_and_now

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = 6
"""Phases that get a colour of their own in the bars of time; the shorter ones are added up."""


def accuracy_curve(summary: RunRecord, path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """Every task's accuracy, and their mean, after each task of the stream.

    Args:
        summary: of one run.
        path: where to write the PNG; None: nowhere.
        theme: the colours.

    Returns:
        The PNG.
    """
    rows = summary.accuracy
    count = len(rows)
    drawing = figure(8.0, 3.6, theme)
    frame = axes(drawing, (0.7, 0.6, 6.9, 2.6), theme)
    faint: dict[str, Any] = {"alpha": 0.75, "marker": "o", "markersize": 2.5} if count <= FEW else {"alpha": 0.3}
    for task in range(count):
        label = "one task" if task == 0 else None
        values = [math.nan if (value := finite(row[task])) is None else value for row in rows[task:]]
        frame.plot(range(task + 1, count + 1), values, color=theme.none, linewidth=1, label=label, **faint)
    frame.plot(
        range(1, count + 1),
        curve(rows),
        color=theme.expert,
        linewidth=2.4,
        marker="o",
        markersize=5 if count <= FEW else 0,
        label="mean of tasks so far (AP)",
    )
    _task_axis(frame, count, "tasks learned", theme)
    frame.set_ylim(-0.02, 1.02)
    _headings(frame, "Accuracy over the stream", "accuracy", theme)
    _legend(frame, theme)
    return finish(drawing, path)


def cost(summary: RunRecord, path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """Draw the cost of each task: parameters, earlier and added, coloured by the decision; and seconds by phase.

    Args:
        summary: of one run.
        path: where to write the PNG; None: nowhere.
        theme: the colours.

    Returns:
        The PNG.
    """
    drawing = figure(8.0, 6.4, theme)
    _parameters(axes(drawing, (0.7, 3.85, 5.2, 2.2), theme), summary.tasks, theme)
    _seconds(axes(drawing, (0.7, 0.6, 5.2, 2.2), theme), summary.tasks, theme)
    return finish(drawing, path)


def _parameters(frame: "Axes", tasks: list[TaskRecord], theme: Theme) -> None:
    seen = set()
    scale, unit = (1e6, "millions") if sum(finite(task.parameters_added) or 0.0 for task in tasks) >= 1e6 else (1e3, "thousands")
    added = [(finite(task.parameters_added) or 0.0) / scale for task in tasks]
    held = list(accumulate(added, initial=0.0))[:-1]
    places = range(1, len(tasks) + 1)
    if len(tasks) > 1:
        _bars(frame, held, [0.0] * len(tasks), theme.faint, "held before")
    for place, below, more, task in zip(places, held, added, tasks, strict=True):
        decided = task.decision
        label = None if decided in seen else f"added: {drawable(decided)}" if decided else "added"
        frame.bar(place, more, bottom=below, color=theme.decision(decided), width=_bar_width(len(tasks)), label=label)
        seen.add(decided)
    _task_axis(frame, len(tasks), "task", theme)
    _headings(frame, "Parameters", unit, theme)
    _legend(frame, theme, outside=True)


def _seconds(frame: "Axes", tasks: list[TaskRecord], theme: Theme) -> None:
    phases: dict[str, float] = {}
    for task in tasks:
        for name, seconds in (task.seconds_by_phase or {}).items():
            phases[name] = phases.get(name, 0.0) + (finite(seconds) or 0.0)
    shown = sorted(phases, key=lambda name: -phases[name])
    shown, rest = shown[:PHASES], set(shown[PHASES:])
    bottoms = [0.0] * len(tasks)
    for name, colour in zip([*shown, None], theme.series, strict=False):
        members = rest if name is None else {name}
        if not members:
            continue
        times = [(task.seconds_by_phase or {}).items() for task in tasks]
        heights = [math.fsum(finite(part) or 0.0 for phase, part in items if phase in members) for items in times]
        _bars(frame, heights, bottoms, colour, drawable(name or "the rest"))
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    _task_axis(frame, len(tasks), "task", theme)
    _headings(frame, "Time", "seconds", theme)
    _legend(frame, theme, outside=True)


def compare_curves(runs: list[Runs], path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """Draw the mean accuracy over the tasks so far, one line per method; the band is the range over seeds."""
    longest = max((len(summary.accuracy) for one in runs for summary in one.summaries), default=0)

    def draw(frame: "Axes", one: Runs, colour: str, index: int) -> None:
        curves = [curve(summary.accuracy) for summary in one.summaries]
        length = min(map(len, curves))
        steps = range(1, length + 1)
        values = [[line[step] for line in curves if math.isfinite(line[step])] or [math.nan] for step in range(length)]
        means = [sum(part) / len(part) for part in values]
        frame.plot(steps, means, color=colour, linewidth=2, marker=_marker(index), markersize=5, label=drawable(one.label, 34))
        if len(curves) > 1:
            frame.fill_between(steps, [min(part) for part in values], [max(part) for part in values], color=colour, alpha=0.18, linewidth=0)

    return _compare(runs, path, theme, longest, draw, "Mean accuracy of the tasks so far", "AP", "tasks learned", (-0.02, 1.02))


def compare_tasks(runs: list[Runs], path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """Draw the final accuracy on each task, one mark per method (mean over seeds)."""
    return _points(runs, path, theme, lambda learned, now: now, "Accuracy at the end, by task", "accuracy", (-0.02, 1.02))


def compare_forgetting(runs: list[Runs], path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """Draw the change of each task's accuracy since it was learned, one mark per method; below zero is forgetting."""
    return _points(
        runs, path, theme, lambda learned, now: now - learned, "Accuracy at the end less accuracy when learned, by task", "change", None
    )


def per_task(one: Runs, of: Callable[[float, float], float]) -> list[float | None]:
    """Return a quantity of each task, averaged over the seeds that have it.

    Args:
        one: runs of one configuration.
        of: the quantity from (accuracy when learned, accuracy now).
    """
    both = [zip(*learned_and_now(summary.accuracy), strict=True) for summary in one.summaries]
    values = [[None if first is None or last is None else of(first, last) for first, last in pairs] for pairs in both]
    columns = [[row[task] for row in values if task < len(row)] for task in range(max(map(len, values), default=0))]
    known = [[value for value in column if value is not None] for column in columns]
    return [sum(column) / len(column) if column else None for column in known]


def _points(
    runs: list[Runs],
    path: Path | None,
    theme: Theme,
    of: Callable[[float, float], float],
    title: str,
    unit: str,
    limits: tuple[float, float] | None,
) -> bytes:
    every = [per_task(one, of) for one in runs]
    longest = max(map(len, every), default=0)

    def draw(frame: "Axes", one: Runs, colour: str, index: int) -> None:
        # Side by side within a task, so that equal values do not hide one another.
        shift = (index - (len(runs) - 1) / 2) * 0.6 / max(len(runs), 1)
        points = [(task + 1 + shift, value) for task, value in enumerate(every[index]) if value is not None]
        places, values = [place for place, _ in points], [value for _, value in points]
        size = 42 if longest <= FEW else 12
        frame.vlines(places, 0, values, color=colour, alpha=0.45, linewidth=2 if longest <= FEW else 0.8)
        frame.scatter(places, values, color=colour, s=size, marker=_marker(index), label=drawable(one.label, 34), linewidths=0, zorder=3)

    return _compare(runs, path, theme, longest, draw, title, unit, "task", limits)


def _compare(
    runs: list[Runs],
    path: Path | None,
    theme: Theme,
    longest: int,
    draw: Callable[["Axes", Runs, str, int], None],
    title: str,
    unit: str,
    across: str,
    limits: tuple[float, float] | None,
) -> bytes:
    """Draw a chart with one colour and mark per method."""
    drawing = figure(9.4, 3.8, theme)
    frame = axes(drawing, (0.7, 0.6, 6.0, 2.8), theme)
    frame.axhline(0, color=theme.faint, linewidth=1)
    for index, one in enumerate(runs):
        draw(frame, one, theme.series[index % len(theme.series)], index)
    _task_axis(frame, longest, across, theme)
    if limits is not None:
        frame.set_ylim(*limits)
    _headings(frame, title, unit, theme)
    _legend(frame, theme, outside=True)
    return finish(drawing, path)


def _bars(frame: "Axes", heights: list[float], bottoms: list[float], colour: str, label: str) -> None:
    """Draw one bar per task, or, for so many tasks that bars would touch, one area with the same outline."""
    count = len(heights)
    if count <= FEW:
        frame.bar(range(1, count + 1), heights, bottom=bottoms, color=colour, width=_bar_width(count), label=label)
        return
    tops = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    edges = [0.5, *range(1, count + 1), count + 0.5]
    low, high = ([values[0], *values, values[-1]] for values in (bottoms, tops))
    frame.fill_between(edges, low, high, color=colour, step="mid", linewidth=0, label=label)


def _bar_width(count: int) -> float:
    """No gaps between very many bars: they would flicker."""
    return 0.8 if count <= FEW else 1.0


def _marker(index: int) -> str:
    return "osD^vPX"[index % 7]


def _task_axis(frame: "Axes", count: int, label: str, theme: Theme) -> None:
    ticks = task_ticks(count)
    frame.set_xticks([index + 1 for index in ticks], [str(index + 1) for index in ticks])
    frame.set_xlim(0.4, max(count, 1) + 0.6)
    frame.set_xlabel(label, color=theme.muted, fontsize=9, fontfamily=FONT)
    frame.set_axisbelow(True)
    frame.grid(axis="y", color=theme.faint, linewidth=0.6)


def _headings(frame: "Axes", title: str, unit: str, theme: Theme) -> None:
    frame.set_title(title, loc="left", color=theme.ink, fontsize=11, fontfamily=FONT)
    frame.set_ylabel(unit, color=theme.muted, fontsize=9, fontfamily=FONT)


def _legend(frame: "Axes", theme: Theme, *, outside: bool = False) -> None:
    if not frame.get_legend_handles_labels()[1]:
        return
    place: dict[str, Any] = (
        {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0)} if outside else {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
    )
    columns = 1 if outside else 2
    frame.legend(frameon=False, prop={"family": FONT, "size": 9}, labelcolor=theme.ink, ncols=columns, borderaxespad=0.2, **place)
