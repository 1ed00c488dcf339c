"""Training curves: loss and validation accuracy by epoch, of each task in each stage."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.digests import run_digest
from lifelong.errors import LifelongError
from lifelong.json_files import read_lines, read_record
from lifelong.report.canvas import FEW, FONT, LIGHT, Theme, axes, drawable, figure, finish
from lifelong.report.wording import finite
from lifelong.storage import Seal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGES = 6
"""The most stages that are drawn; those that took the most epochs."""

POINTS = 240
"""The most epochs of a line that are drawn; of many tasks a twelfth of it."""

MOST = 10**6
"""Tasks, candidates and epochs: more has no run."""

HEIGHT = 2.7
"""Inches from one stage's charts to the next one's."""

KEYS = {"task", "stage", "epoch", "loss", "accuracy"}

_VARIANT = re.compile(r"-(wd[\d.e+-]+|\d+)$")
"""What tells the stages of a grid or of several candidates apart: ``train-wd0.003``, ``path-4``."""


def read_curves(out: Path) -> list[dict[str, Any]]:
    """Read the epochs of a run from its `curves.jsonl`; none if the file does not exist.

    Raises:
        LifelongError: the file cannot be read, or is not a file of curves.
    """
    file = Path(out) / "curves.jsonl"
    lines = read_lines(file, _seal(Path(out))).found
    for number, line in enumerate(lines, 1):
        if not _is_epoch(line):
            raise LifelongError(f"{file}: line {number} is not an epoch of a run; delete the file to get the report without it")
    return lines


def _is_epoch(line: Any) -> bool:
    """Tell whether a line is a valid epoch, with values of the right types."""
    if not isinstance(line, dict) or not line.keys() >= KEYS:
        return False
    counts = [line["epoch"], line["task"], line.get("candidate") or 0]
    numbers = [line["loss"], line["accuracy"]]
    return (
        isinstance(line["stage"], str)
        and all(type(count) is int and 0 <= count < MOST for count in counts)
        and all(number is None or type(number) in (int, float) for number in numbers)
    )


def _seal(out: Path) -> Seal | None:
    """Return what binds each line to its run; None where that is not known."""
    try:
        identity, required = read_record(out / "checkpoint" / "identity.json")
    except (OSError, LifelongError):
        return None
    return Seal(run_digest(identity), required=required)


def training_curves(epochs: list[dict[str, Any]], tasks: list[dict[str, Any]], path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """Draw one row per stage with its loss and validation accuracy: one line per task and per candidate of a task.

    Args:
        epochs: of `read_curves`, at least one.
        tasks: records of the tasks, for their names; one that is being learned has none yet.
        path: where to write the PNG, with the SVG next to it; None: nowhere.
        theme: the colours.

    Returns:
        The PNG.
    """
    stages = by_stage(epochs)
    count = max(line["task"] for line in epochs) + 1
    drawing = figure(10.2, HEIGHT * len(stages) + 0.3, theme)
    for row, (stage, lines) in enumerate(stages.items()):
        bottom = HEIGHT * (len(stages) - row - 1) + 0.7
        losses = axes(drawing, (0.7, bottom, 3.4, HEIGHT - 0.8), theme)
        scores = axes(drawing, (4.8, bottom, 3.4, HEIGHT - 0.8), theme)
        for frame, key in ((losses, "loss"), (scores, "accuracy")):
            _lines(frame, lines, key, count)
        _finish_axes(losses, f"{drawable(stage)}: loss", theme)
        _finish_axes(scores, f"{drawable(stage)}: accuracy on validation images", theme)
        losses.set_ylim(bottom=min(0.0, losses.get_ylim()[0]))
        scores.set_ylim(-0.02, 1.02)
    _name_tasks(drawing, tasks, count, theme)
    return finish(drawing, path)


def by_stage(epochs: list[dict[str, Any]]) -> dict[str, dict[tuple[Any, ...], list[dict[str, Any]]]]:
    """Group the lines of each stage in order of appearance, each with its epochs; variants of a stage are merged."""
    found: dict[str, dict[tuple[Any, ...], list[dict[str, Any]]]] = {}
    for line in epochs:
        stage = _VARIANT.sub("", line["stage"])
        found.setdefault(stage, {}).setdefault((line["task"], line.get("candidate"), line["stage"]), []).append(line)
    longest = sorted(found, key=lambda stage: -sum(map(len, found[stage].values())))[:STAGES]
    return {stage: lines for stage, lines in found.items() if stage in longest}


def _thinned(points: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Every so many epochs, and the last."""
    step = math.ceil(len(points) / most)
    return [*points[:-1:step], points[-1]]


def _lines(frame: "Axes", lines: dict[tuple[Any, ...], list[dict[str, Any]]], key: str, count: int) -> None:
    """Draw one line per task and candidate; all at once, since there may be hundreds."""
    from matplotlib.collections import LineCollection

    most = POINTS if count <= FEW else POINTS // 12
    drawn = [
        [(point["epoch"], math.nan if (value := finite(point[key])) is None else value) for point in _thinned(points, most)]
        for points in lines.values()
    ]
    colours = [_colour(task, count) for task, *_ in lines]
    frame.add_collection(LineCollection(drawn, colors=colours, linewidths=1.3))
    # A line of one point would be invisible.
    alone = [(points[0], colour) for points, colour in zip(drawn, colours, strict=True) if len(points) == 1]
    if alone:
        frame.scatter(*zip(*(place for place, _ in alone), strict=True), s=16, color=[colour for _, colour in alone], linewidths=0)
    frame.autoscale_view()


def _colour(task: int, count: int) -> Any:
    """Return colours from dark to light in task order, without the ends, which would vanish on a dark or light page."""
    from matplotlib import colormaps

    return colormaps["plasma"](0.25 + 0.55 * task / max(count - 1, 1))


def _finish_axes(frame: "Axes", title: str, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    frame.set_title(title, loc="left", color=theme.ink, fontsize=10, fontfamily=FONT)
    frame.set_xlabel("epoch", color=theme.muted, fontsize=9, fontfamily=FONT)
    frame.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    frame.set_axisbelow(True)
    frame.grid(axis="y", color=theme.faint, linewidth=0.6)


def _name_tasks(drawing: "Figure", tasks: list[dict[str, Any]], count: int, theme: Theme) -> None:
    """Every task's colour; of very many, some."""
    from matplotlib.lines import Line2D

    shown = range(count) if count <= FEW else sorted({round(step * (count - 1) / 9) for step in range(10)})
    names = [f"{index + 1}  {drawable(tasks[index]['name'], 18) if index < len(tasks) else 'under way'}" for index in shown]
    handles = [Line2D([], [], color=_colour(index, count), linewidth=2) for index in shown]
    height = drawing.get_size_inches()[1]
    drawing.legend(
        handles,
        names,
        title="task",
        loc="upper left",
        bbox_to_anchor=(8.35 / 10.2, 1 - 0.2 / height),
        frameon=False,
        prop={"family": FONT, "size": 8.5},
        title_fontproperties={"family": FONT, "size": 9},
        labelcolor=theme.ink,
        alignment="left",
    ).get_title().set_color(theme.muted)
