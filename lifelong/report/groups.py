"""Which tasks share an expert (PAR's Fig. 5): a box for each expert, with its tasks in the order in which they joined."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.report.canvas import FEW, LIGHT, Theme
from lifelong.report.lettering import face
from lifelong.report.shapes import Box, Shape, Words, width, write_shapes
from lifelong.report.wording import kind, parameters

ACROSS = 10.4
"""Inches of the picture."""

GAP = 0.14
"""Inches between boxes, and from a box's edge to what is in it."""

CHIP = 0.27
"""Inches of a task's height."""

HEADER = 0.3
"""Inches of the line above an expert's tasks."""

NAME = 1.5
"""The most inches that a task's name takes."""

LETTERS = 9.0
"""Points of a task's letters."""

MEANINGS = {
    "search": "cell searched",
    "reuse-cell": "cell reused",
    "allocate": "expert allocated",
    "reuse-expert": "expert shared",
    "head": "head on frozen features",
    "adapter": "adapters trained",
    "side": "side network trained",
}
"""Each kind of decision in words: one of `lifelong.records.task.DECISION_KINDS` without words and a colour would not be told apart."""


def task_groups(summary: RunRecord, path: Path | None = None, *, theme: Theme = LIGHT) -> bytes:
    """Draw the experts with their tasks, coloured by decision, and with their parameters and cells.

    Args:
        summary: of one run, of a method that has experts.
        path: where to write the PNG, with the SVG next to it; None: nowhere.
        theme: the colours.

    Returns:
        The PNG.
    """
    shapes, down = group_shapes(summary.tasks, theme)
    return write_shapes(shapes, (ACROSS, down), theme, path)


def members(tasks: list[TaskRecord]) -> dict[int, list[int]]:
    """Return the positions of each expert's tasks, in the order in which they joined."""
    found: dict[int, list[int]] = {}
    for index, task in enumerate(tasks):
        if task.expert is not None:
            found.setdefault(task.expert, []).append(index)
    return dict(sorted(found.items()))


def cells(tasks: list[TaskRecord]) -> dict[str, list[int]]:
    """Return the distinct genotypes in order of appearance, each with the tasks whose experts have it."""
    found: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        if task.genotype:
            found.setdefault(task.genotype, []).append(index)
    return found


def group_shapes(tasks: list[TaskRecord], theme: Theme) -> tuple[list[Shape], float]:
    """Make the shapes, and return them with their height in inches."""
    numbers = {text: number for number, text in enumerate(cells(tasks), 1)}
    shapes: list[Shape] = [Words(GAP, 0.22, "Experts and their tasks", 11.0, theme.ink)]
    left, top, tallest = GAP, 0.45, 0.0
    for expert, group in members(tasks).items():
        box = _expert(expert, group, tasks, numbers, theme)
        across, down = box[0].width, box[0].height
        if left > GAP and left + across + GAP > ACROSS:
            left, top, tallest = GAP, top + tallest + GAP, 0.0
        shapes += [_moved(shape, left, top) for shape in box]
        left, tallest = left + across + GAP, max(tallest, down)
    top += tallest + GAP
    legend = _legend(tasks, theme)
    return [*shapes, *(_moved(shape, GAP, top) for shape in legend)], top + (CHIP + GAP if legend else 0.0)


def _expert(expert: int, group: list[int], tasks: list[TaskRecord], numbers: dict[str, int], theme: Theme) -> list[Any]:
    """Make the box of one expert, the frame first, from the origin."""
    added = parameters(sum(tasks[index].parameters_added or 0 for index in group))
    cell = numbers.get(tasks[group[0]].genotype or "")
    name, about = f"expert {expert}", f"{added}, cell {cell}" if cell else added
    chips, left, top = [], GAP, HEADER
    across = GAP + width(name, 10.0, "bold") + 0.08 + width(about, LETTERS) + GAP
    for index in group:
        words = _label(index, tasks)
        size = width(words, LETTERS) + 0.18
        if left > GAP and left + size + GAP > ACROSS - 2 * GAP:
            left, top = GAP, top + CHIP + 0.07
        edge = theme.decision(kind(tasks[index]))
        chips.append(Box(left + size / 2, top + CHIP / 2, size, CHIP, words, LETTERS, theme.ink, edge, theme.paper))
        left += size + 0.07
        across = max(across, left - 0.07 + GAP)
    down = top + CHIP + GAP
    frame = Box(across / 2, down / 2, across, down, "", LETTERS, theme.ink, theme.faint, theme.paper)
    title = Words(GAP, HEADER / 2, name, 10.0, theme.ink)
    more = Words(GAP + width(name, 10.0, "bold") + 0.08, HEADER / 2, about, LETTERS, theme.muted, "regular")
    return [frame, title, more, *chips]


def _label(index: int, tasks: list[TaskRecord]) -> str:
    """Return a task's number, with its name if there is room for all names."""
    if len(tasks) > FEW:
        return str(index + 1)
    return f"{index + 1}  {face(100).fit(tasks[index].name, round(NAME / (LETTERS / 72) * 100))}"


def _legend(tasks: list[TaskRecord], theme: Theme) -> list[Any]:
    """Make the legend of the colours in use, from the origin."""
    shapes, left = [], 0.0
    for decided, words in MEANINGS.items():
        if any(kind(task) == decided for task in tasks):
            size = width(words, LETTERS) + 0.18
            shapes.append(Box(left + size / 2, CHIP / 2, size, CHIP, words, LETTERS, theme.muted, theme.decision(decided), theme.paper))
            left += size + GAP
    return shapes


def _moved(shape: Any, right: float, down: float) -> Any:
    return replace(shape, x=shape.x + right, y=shape.y + down)
