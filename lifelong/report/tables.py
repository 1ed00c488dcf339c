"""Results as tables for a terminal. Names from data are plain text there, never markup."""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lifelong.records.distances import DistancesRecord
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.report.page import Grid
from lifelong.report.runs import group, on_pretrained
from lifelong.report.tuning import chosen_rows
from lifelong.report.wording import (
    ABSENT,
    accuracy,
    against_thresholds,
    by_measure,
    clean,
    decision,
    duration,
    kind,
    learned_and_now,
    parameters,
    short,
    size,
    spread,
    three_digits,
    threshold_words,
)

NAME = 28
"""The longest name that is shown whole in a terminal."""

MATRIX = 10
"""The most tasks whose divergences are printed as a matrix; beyond, each task's nearest ones."""


def task_table(summary: RunRecord, label: str | None = None) -> Table:
    """One row a task: what was decided, against which thresholds, what it cost, how well it was and is known.

    Args:
        summary: of the run.
        label: the method and what tells the run from others; None: the method.
    """
    tasks = summary.tasks
    learned, now = learned_and_now(summary.accuracy)
    decides = any(kind(task) for task in tasks)
    table = _table(f"{summary.stream}, {label or summary.method}, seed {summary.seed}{_thresholds(tasks)}")
    table.add_column("", justify="right")
    table.add_column("task", overflow="fold")
    if decides:
        table.add_column("decision → expert")
        table.add_column("nearest", no_wrap=True)
    for heading in ("time", "added", "learned", "now"):
        table.add_column(heading, justify="right", no_wrap=True)
    for index, task in enumerate(tasks):
        decided = [Text(decision(task).replace("→ expert", "→")), against_thresholds(task, values=False)] if decides else []
        cost = [duration(task.seconds), parameters(task.parameters_added)]
        table.add_row(str(index + 1), _name(task.name), *decided, *cost, accuracy(learned[index]), accuracy(now[index]))
    return table


def result_table(summary: RunRecord) -> Table:
    """Make a one-row table of a run's result."""
    return comparison_table([summary], title=None if summary.complete else "unfinished")


def comparison_table(summaries: list[RunRecord], *, title: str | None = None) -> Table:
    """One row for each method (mean ± standard deviation over its seeds): AP, AF, parameters, memory, time.

    Beside a pretrained network also the parameters without it, and the bytes of everything.
    """
    runs = group(summaries)
    table = _table(title)
    table.add_column("method", overflow="fold")
    if any(len(one.summaries) > 1 for one in runs):
        table.add_column("seeds", justify="right")
    pretrained = on_pretrained(runs)
    for heading in ("AP", "AF", "parameters", *(("trained",) if pretrained else ()), "memory", *(("bytes",) if pretrained else ()), "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in runs:
        name = one.label if one.complete else f"{one.label}, unfinished"
        seeds = [str(len(one.summaries))] if any(len(other.summaries) > 1 for other in runs) else []
        table.add_row(
            Text(name),
            *seeds,
            spread(one.values(lambda summary: summary.ap), accuracy),
            spread(one.values(lambda summary: summary.af), accuracy),
            spread(one.values(lambda summary: summary.parameters), parameters),
            *([spread(one.trained(), parameters)] if pretrained else []),
            spread(one.memory(), size),
            *([spread(one.values(lambda summary: summary.bytes), size)] if pretrained else []),
            spread(one.values(lambda summary: summary.seconds), duration),
        )
    return table


def tuning_table(summary: RunRecord) -> Table:
    """Make a table of what was chosen for each task of a tuned run."""
    headings, rows = chosen_rows(summary)
    table = _table("chosen by validation")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def grid_table(title: str, grid: Grid) -> Table:
    """Convert a table of a page for a terminal."""
    table = _table(title)
    for index, heading in enumerate(grid.headings):
        words = not index or heading in grid.words
        table.add_column(Text(heading), justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table


def divergence_table(result: DistancesRecord | RunRecord, label: str | None = None) -> Table:
    """Make a table of the divergences of each task from every earlier one.

    Args:
        result: of `lifelong.distances`, or of a run.
        label: the method and what tells the run from others, where there are others.
    """
    if isinstance(result, RunRecord):
        names = [task.name for task in result.tasks]
        rows = [task.divergences or [None] * index for index, task in enumerate(result.tasks)]
    else:
        names, rows = result.tasks, result.divergences
    few = len(names) <= MATRIX
    measure = f" {by_measure(result)}" if by_measure(result) != "Eq. 4" else ""
    whose = f"{label}, seed {result.seed}" if label else f"seed {result.seed}"
    table = _table(f"{result.stream}, {whose}, extractor {result.extractor or ABSENT}: divergences{measure}")
    table.add_column("", justify="right")
    table.add_column("task", overflow="fold")
    if few:
        for index in range(len(names) - 1):
            table.add_column(f"to {index + 1}", justify="right", no_wrap=True)
    else:
        table.add_column("nearest tasks", overflow="fold")
    for index, name in enumerate(names):
        row = list(rows[index][:index])
        cells = [three_digits(value) for value in row] if few else [_nearest_tasks(row)]
        cells += [""] * (len(names) - 1 - len(cells)) if few else []
        table.add_row(str(index + 1), _name(name), *cells)
    return table


def decision_table(result: DistancesRecord) -> Table:
    """Make a table of the decisions: for each task the nearest group, the threshold compared with, and the decision.

    Args:
        result: of `lifelong.experiment.distances`.
    """
    table = _table("decisions")
    table.add_column("", justify="right")
    table.add_column("task", overflow="fold")
    table.add_column("nearest group", no_wrap=True)
    table.add_column("decision")
    for index, (name, record) in enumerate(zip(result.tasks, result.decisions, strict=True)):
        table.add_row(str(index + 1), _name(name), against_thresholds(record), Text(decision(record)))
    return table


def _thresholds(tasks: list[TaskRecord]) -> str:
    """Describe the thresholds, if any task has some."""
    values = {"α": [task.alpha for task in tasks], "β": [task.beta for task in tasks]}
    held = {name: [value for value in found if value is not None] for name, found in values.items()}
    words = ", ".join(f"{name} {threshold_words(found)}" for name, found in held.items() if found)
    return f" ({words})" if words else ""


def _nearest_tasks(row: list[Any]) -> str:
    near = sorted((value, index) for index, value in enumerate(row) if value is not None)[:3]
    return ", ".join(f"{index + 1}: {three_digits(value)}" for value, index in near)


def _name(name: str) -> Text:
    return Text(short(name, NAME))


def _table(title: str | None) -> Table:
    heading = None if title is None else Text(clean(title), style="bold")
    return Table(title=heading, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
