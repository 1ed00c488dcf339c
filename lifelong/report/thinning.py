"""Long runs in a report: figures of some tasks, evenly spaced, and details of the last ones, so that the page opens at once."""

from collections.abc import Sequence
from typing import Any, TypeVar

from lifelong.records.run import RunRecord

T = TypeVar("T")

MOST_DRAWN = 100
"""Tasks in a figure, at most."""

MOST_TOLD = 50
"""Tasks of a longer run whose details are shown: the last ones."""

MOST_CELLS = 12
"""Cells of a longer run that are drawn: those of the most experts."""


def places(count: int) -> list[int]:
    """Return the positions of the tasks that figures show, the first and the last among them."""
    return list(range(count)) if count <= MOST_DRAWN else [round(step * (count - 1) / (MOST_DRAWN - 1)) for step in range(MOST_DRAWN)]


def thinned(summary: RunRecord) -> RunRecord:
    """Return the summary of the tasks that figures show; itself for a run of few."""
    wanted = places(len(summary.tasks))
    if len(wanted) == len(summary.tasks):
        return summary
    tasks = []
    for at, place in enumerate(wanted):
        task, earlier = summary.tasks[place], wanted[:at]
        lists = {key: _of(getattr(task, key), earlier) for key in ("divergences", "task_distances")}
        tasks.append(task.model_copy(update={key: value for key, value in lists.items() if key in task}))
    accuracy = [[summary.accuracy[place][other] for other in wanted[: at + 1]] for at, place in enumerate(wanted)]
    return summary.model_copy(update={"tasks": tasks, "accuracy": accuracy})


# `Any`: the lines of curves.jsonl, as they were read.
def thinned_curves(epochs: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return the epochs of the tasks that figures show, numbered as in `thinned`."""
    numbers = {place: at for at, place in enumerate(places(count))}
    if len(numbers) == count:
        return list(epochs)
    return [{**epoch, "task": numbers[epoch["task"]]} for epoch in epochs if epoch["task"] in numbers]


def _of(values: Sequence[T] | None, wanted: Sequence[int]) -> list[T] | None:
    return None if values is None else [values[place] for place in wanted if place < len(values)]


def note_of(count: int) -> list[str]:
    """Return what a reader of a long run's page should know; nothing for a run of few tasks."""
    if count <= MOST_DRAWN:
        return []
    return [
        f"a long run: figures show {MOST_DRAWN} of its {count} tasks, evenly spaced; details are of the last {MOST_TOLD}."
        " results.jsonl has those of all"
    ]
