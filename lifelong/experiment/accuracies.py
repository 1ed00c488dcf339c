"""The accuracies of a run: a row for each task, stored as what changed from row to row.

Row i has the accuracies on tasks 0..i after task i was learned; a row that differs from the one before it in nothing but the new task
costs one number, not i + 1.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from lifelong.errors import DamagedError
from lifelong.trees import Fixed


class Rows(list[list[float]]):
    """Rows that were made from their changes, and have their lengths and kinds from there.

    Attributes:
        steps: the changes; none for rows that were copied from others, whose changes are found anew.
    """

    steps: Sequence[Fixed] = ()


def changes(before: Sequence[float], row: Sequence[float]) -> Fixed:
    """Return in what a row differs from the one before it: "tasks", and the "accuracy" of each."""
    tasks = [task for task, value in enumerate(row) if task >= len(before) or not same(before[task], value)]
    return Fixed(tasks=tasks, accuracy=[row[task] for task in tasks])


def rows_of(steps: Sequence[Mapping[str, Any]]) -> Rows:
    """Return the rows of which these are the changes.

    Raises:
        DamagedError: they are none.
    """
    rows, row = Rows(), []
    for place, step in enumerate(steps):
        row = [*row, math.nan]
        try:
            for task, value in zip(step["tasks"], step["accuracy"], strict=True):
                if type(value) is not float or value < 0 or value > 1 or type(task) is not int or task < 0:
                    raise ValueError("outside 0 to 1")
                row[task] = value
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DamagedError(f"the run's state: changes/{place}: {error}; restore a copy of the run, or learn it again") from error
        rows.append(row)
    rows.steps = [Fixed(step) for step in steps]
    return rows


def steps_of(rows: Sequence[Sequence[float]]) -> list[Fixed]:
    """Return the changes from row to row."""
    if isinstance(rows, Rows) and len(rows.steps) == len(rows):
        return list(rows.steps)
    return [changes(*pair) for pair in pairwise([[], *rows])]


def best_before(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return for each task but the last the best known accuracy before the last task was learned; NaN if none is known."""
    best = [math.nan] * (len(rows) - 1)
    for step in steps_of(rows)[:-1]:
        for task, value in zip(step["tasks"], step["accuracy"], strict=True):
            if not math.isnan(value) and not best[task] >= value:
                best[task] = value
    return best


# `Any`: a state is a tree of tensors and plain values.
def merged(state: Any) -> Any:
    """Return a state with its "accuracy" as rows, and how each task is answered in its entry, as earlier versions stored them.

    Raises:
        DamagedError: it is not of its form.
    """
    if not isinstance(state, dict) or "changes" not in state:
        return state
    steps, judged, entries = state["changes"], state.get("judged"), state.get("entries")
    lists = all(isinstance(each, list) for each in (steps, judged, entries))
    if not lists or len(judged) != len(entries) or not all(isinstance(each, dict) for each in entries):
        raise DamagedError(
            "the run's state: its changes, entries and judged do not fit each other; restore a copy of the run, or learn it again"
        )
    whole = [entry if how is None else entry | {"judged": how} for entry, how in zip(entries, judged, strict=True)]
    found = {"accuracy" if key == "changes" else key: value for key, value in state.items() if key != "judged"}
    return found | {"accuracy": rows_of(steps), "entries": whole}


def same(left: float, right: float) -> bool:
    """Tell whether two accuracies are equal, or both not known."""
    return left == right or (math.isnan(left) and math.isnan(right))
