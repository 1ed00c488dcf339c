"""The figures of a run's report: one list, which users can extend.

A figure has a name, which is also that of its PNG and SVG in `figures/`, a part of the page, and a description of what it shows. A figure
of your own is a function from a run's summary to a figure of matplotlib:

    def draw(summary):
        figure = matplotlib.figure.Figure()
        ...
        return figure                               # None: this run has nothing to show

    lifelong.register_figure("mine", draw, "what it shows")
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError, require
from lifelong.registry import Entry, Registry
from lifelong.report import figures
from lifelong.report.canvas import LIGHT, Theme, finish
from lifelong.report.groups import members
from lifelong.report.page import Picture
from lifelong.settings.arguments import checked

Summary = dict[str, Any]
Epochs = list[dict[str, Any]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report.

    Attributes:
        part: of the page: "accuracy", "distances", "groups", "curves", "cost" or "more".
        words: what it shows, for screen readers.
        fits: whether a run has what it shows.
        draw: from a summary and the lines of curves.jsonl to a PNG; if a path is given, it is written there, with an SVG next to it.
        wide: whether it may scroll sideways.
    """

    part: str
    words: str
    fits: Callable[[Summary, Epochs], bool]
    draw: Callable[[Summary, Epochs, Path | None, Theme], bytes | None]
    wide: bool = True


@dataclass(frozen=True)
class Shown:
    """A figure as it stands on the page.

    Attributes:
        picture: that was drawn.
        words, wide: see `ReportFigure`.
    """

    picture: Picture
    words: str
    wide: bool


def _learned(summary: Summary, epochs: Epochs) -> bool:
    return bool(summary["accuracy"])


FIGURES: Registry[ReportFigure] = Registry(
    "figure",
    Entry("accuracy", "lifelong.report.gallery:ACCURACY", "the accuracies as a heat map", ""),
    Entry("stream", "lifelong.report.gallery:STREAM", "the accuracy over the stream", ""),
    Entry("distances", "lifelong.report.gallery:DISTANCES", "the distances between tasks", ""),
    Entry("groups", "lifelong.report.gallery:GROUPS", "experts with their tasks", ""),
    Entry("curves", "lifelong.report.gallery:CURVES", "training curves", ""),
    Entry("cost", "lifelong.report.gallery:COST", "parameters and seconds of each task", ""),
)

ACCURACY = ReportFigure(
    "accuracy",
    "heat map of the accuracy: one row after each task learned, one column per task evaluated; the last row equals the column 'now' of the"
    " table above",
    _learned,
    lambda summary, epochs, path, theme: figures.accuracy_matrix(summary, path, theme=theme),
    wide=False,
)
STREAM = ReportFigure(
    "accuracy",
    "accuracy over the stream: each task's, and their mean, after each task learned",
    _learned,
    lambda summary, epochs, path, theme: figures.accuracy_curve(summary, path, theme=theme),
)
DISTANCES = ReportFigure(
    "distances",
    "heat map of the distances from each task to each earlier one, coloured by the thresholds, with each task's decision next to its row",
    lambda summary, epochs: any(task.get("distances") for task in summary["tasks"]),
    lambda summary, epochs, path, theme: figures.distance_heatmap(summary, path, theme=theme),
)
GROUPS = ReportFigure(
    "groups",
    "experts with their tasks, as listed above",
    lambda summary, epochs: bool(members(summary["tasks"])),
    lambda summary, epochs, path, theme: figures.task_groups(summary, path, theme=theme),
)
CURVES = ReportFigure(
    "curves",
    "loss and validation accuracy by epoch, a row for each stage, a line for each task; the numbers are in curves.jsonl",
    lambda summary, epochs: bool(epochs),
    lambda summary, epochs, path, theme: figures.training_curves(epochs, summary["tasks"], path, theme=theme),
)
COST = ReportFigure(
    "cost",
    "parameters held and added, and seconds by phase, of each task",
    _learned,
    lambda summary, epochs, path, theme: figures.cost(summary, path, theme=theme),
)


def draw_figures(folder: Path, summary: Summary, epochs: Epochs) -> dict[str, list[Shown]]:
    """Draw every registered figure that a run has something for, into a folder, by parts of the page.

    A user's figure that fails is left out with a warning, so that the report is still written.
    """
    shown: dict[str, list[Shown]] = {part: [] for part in ("accuracy", "distances", "groups", "curves", "cost", "more")}
    for name, one in FIGURES.items():
        try:
            if one.fits(summary, epochs):
                picture = Picture.draw(folder / f"{name}.png", lambda path, theme, one=one: one.draw(summary, epochs, path, theme) or b"")
                shown[one.part].append(Shown(picture, one.words, one.wide))
        except Exception as error:  # a user's code may fail in any way
            if FIGURES.built_in(name):
                raise
            log.warning("the figure '%s' cannot be drawn: %s", name, " ".join(str(error).split()))
    return shown


@checked
def register_figure(name: str, draw: Callable[..., Any], words: str) -> None:
    """Add a figure of your own to every report.

    Args:
        name: letters, digits, dashes and underscores; of its files, too.
        draw: from a run's summary to a `matplotlib.figure.Figure`; None if there is nothing to show.
        words: what it shows, for screen readers.

    Raises:
        LifelongError: the name is taken or invalid.
    """
    drawn: dict[int, Any] = {}

    def fits(summary: Summary, epochs: Epochs) -> bool:
        drawn.clear()
        drawn[id(summary)] = draw(summary)
        return drawn[id(summary)] is not None

    def finished(summary: Summary, epochs: Epochs, path: Path | None, theme: Theme) -> bytes:
        return finish(drawn.pop(id(summary)), path)

    FIGURES.register(name, ReportFigure("more", words, fits, finished), summary=words)


@checked
def check_figure(name: str) -> None:
    """Try a registered figure on a small made run.

    Checked: it draws a figure of matplotlib or says that there is nothing; the same run gives the same bytes; the summary stays as it is.

    Raises:
        ConformanceError: what is broken.
        LifelongError: there is no such figure.
    """
    from copy import deepcopy

    summary, one = made_summary(), FIGURES[name]
    before = deepcopy(summary)
    pictures = []
    for _ in range(2):
        try:
            fits = one.fits(summary, [])
            pictures.append(one.draw(summary, [], None, LIGHT) if fits else None)
        except LifelongError:
            raise
        except Exception as error:
            require(False, f"figure '{name}': {type(error).__name__}: {error}")
    require(summary == before, f"figure '{name}' changes the summary that it is given")
    require(pictures[0] == pictures[1], f"figure '{name}': the same run gives another picture")


def made_summary() -> Summary:
    """Make the summary of an invented run of three tasks."""
    tasks = [
        {
            "name": f"task {index}",
            "classes": ["one", "two"],
            "seconds": 2.0 + index,
            "seconds_by_phase": {"train": 2.0 + index},
            "parameters_added": 100 * index,
            "decision": "search" if index == 0 else "reuse-expert",
            "expert": 0,
            "distances": [0.1] * index,
            "group_distances": [0.1] if index else [],
            "alpha": 0.5,
            "beta": 0.75,
        }
        for index in range(3)
    ]
    accuracy = [[0.9, None, None], [0.8, 0.9, None], [0.8, 0.9, 0.7]]
    return {
        "stream": "made",
        "method": "par",
        "seed": 0,
        "tasks": tasks,
        "accuracy": accuracy,
        "ap": 0.8,
        "af": -0.03,
        "parameters": 500,
        "parameters_over_time": [300, 400, 500],
        "seconds": 9.0,
        "seconds_by_phase": {"train": 9.0},
    }
