"""Figures 3 and 4: PAR on CIFAR100-10 over α and over β."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lifelong.records.run import RunRecord
from lifelong.report.exports import comma_separated
from lifelong.report.page import Grid, Picture
from lifelong.report.thresholds import Curve, threshold_curves
from lifelong.report.wording import ABSENT, accuracy, duration, parameters, spread
from lifelong.reproduction.grids import MISSING
from lifelong.reproduction.plan import Choice, Job, check_names, job
from lifelong.reproduction.runs import Outcome
from lifelong.reproduction.table_values import learning_seconds, measured
from lifelong.reproduction.write import Part, heading_of

STREAM = "cifar100-10"


@dataclass(frozen=True)
class Sweep:
    """A figure over a threshold.

    Attributes:
        name: "figure3" or "figure4".
        setting: "alpha" or "beta".
        symbol: its letter.
        values: thresholds at which PAR runs; the paper's figure shows curves.
        title: what the figure shows.
    """

    name: str
    setting: str
    symbol: str
    values: tuple[float, ...]
    title: str


SWEEPS = {
    sweep.name: sweep
    for sweep in (
        Sweep("figure3", "alpha", "α", (0.0, 0.25, 0.5, 0.75, 0.9, 1.0), "PAR over α on CIFAR100-10 (β 0.75, or α where that is larger)"),
        Sweep("figure4", "beta", "β", (0.5, 0.625, 0.75, 0.875, 1.0), "PAR over β on CIFAR100-10 (α 0.5)"),
    )
}
"""A group's distance lies below 1 (Eq. 6): at α = 1 all tasks share one expert, at β = 1 no cell but the first is searched."""


def plan_sweep(sweep: Sweep, choice: Choice) -> list[Job]:
    """Return the runs of a figure, threshold by threshold."""
    check_names("methods", choice.methods, {"par"}, sweep.name)
    check_names("streams", choice.streams, {STREAM}, sweep.name)
    return [_job(sweep, value, seed, choice) for value in sweep.values for seed in choice.seeds]


def _job(sweep: Sweep, value: float, seed: int, choice: Choice) -> Job:
    thresholds = {"alpha": 0.5, "beta": 0.75} | {sweep.setting: value}
    thresholds["beta"] = max(thresholds.values())
    # The run at the paper's thresholds is that of the tables.
    row = "par" if thresholds == {"alpha": 0.5, "beta": 0.75} else f"par-{sweep.setting}{value:g}"
    return job(row, f"PAR, {sweep.symbol} {value:g}", "par", STREAM, seed, choice, thresholds)


def shown(sweep: Sweep, jobs: Sequence[Job], outcome: Outcome, folder: Path) -> Part:
    """Draw the figure, also as PNG in a folder, with its table.

    Args:
        sweep: the figure.
        jobs: its runs, at least one.
        outcome: what came of them.
        folder: for the PNG.
    """
    runs = [_finished_at(value, sweep, jobs, outcome) for value in sweep.values]
    picture = None
    if any(runs):
        curves, title = _curves(runs), f"{heading_of(sweep.name)}: {sweep.title}"
        picture = Picture.draw(
            folder / f"{sweep.name}.png", lambda path, theme: threshold_curves(sweep.symbol, sweep.values, curves, title, path, theme=theme)
        )
    rows = [[f"{value:g}", *_texts(summaries)] for value, summaries in zip(sweep.values, runs, strict=True)]
    grid = Grid([sweep.symbol, "seeds", "AP", "AF", "experts", "parameters", "learning time"], rows)
    return Part(jobs[0].config.stream, grid, picture, f"AP, parameters, experts and learning time over {sweep.symbol}")


def _finished_at(value: float, sweep: Sweep, jobs: Sequence[Job], outcome: Outcome) -> list[RunRecord]:
    there = [one for one in jobs if getattr(one.config.settings, sweep.setting) == value]
    return [outcome.summaries[one.folder] for one in there if one.folder in outcome.summaries]


def experts(summary: RunRecord) -> int:
    """How many experts a run of PAR ended with."""
    return len({task.expert for task in summary.tasks})


def _curves(runs: Sequence[Sequence[RunRecord]]) -> list[Curve]:
    return [
        Curve("AP", [[measured(summary, "ap") for summary in summaries] for summaries in runs]),
        Curve("parameters (thousands)", [[1e3 * measured(summary, "m") for summary in summaries] for summaries in runs]),
        Curve("experts", [[float(experts(summary)) for summary in summaries] for summaries in runs]),
        Curve("learning time (minutes)", [[learning_seconds(summary) / 60 for summary in summaries] for summaries in runs]),
    ]


def _texts(summaries: Sequence[RunRecord]) -> list[str]:
    if not summaries:
        return ["0", MISSING, *[ABSENT] * 4]
    number = f"{statistics.fmean(experts(summary) for summary in summaries):.1f}"
    return [
        str(len(summaries)),
        spread([summary.ap for summary in summaries], accuracy),
        spread([summary.af for summary in summaries], accuracy),
        number,
        spread([summary.parameters for summary in summaries], parameters),
        spread([learning_seconds(summary) for summary in summaries], duration),
    ]


def as_csv(jobs: Sequence[Job], outcome: Outcome, scale: str) -> str:
    """Return one row per run; numbers that are missing are empty."""
    headings = ("alpha", "beta", "seed", "stream", "scale", "ap", "af", "experts", "parameters", "learning_seconds")
    rows = []
    for one in jobs:
        settings = one.config.settings
        found = outcome.summaries.get(one.folder)
        numbers = (None,) * 5 if found is None else (found.ap, found.af, experts(found), found.parameters, learning_seconds(found))
        rows.append((settings.alpha, settings.beta, one.seed, one.config.stream, scale, *numbers))
    return comma_separated(headings, rows)
