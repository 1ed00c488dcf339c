"""What a stream holds, in words and as a table. Names from data are plain text there, never markup."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lifelong.report.wording import clean, short
from lifelong.words import counted

NAME = 28
"""The longest class name that is shown whole in a terminal."""

MOST_NAMES = 20
"""Classes of a task whose names are all printed; of more, the first `FIRST_NAMES`."""

FIRST_NAMES = 10

SPLITS = ("train", "valid", "test")


def sizes(*tasks: dict[str, Any]) -> str:
    """Sum the images of tasks in each split: ``4,000 train · 1,000 valid · 2,000 test``."""
    return " · ".join(f"{sum(task[split] for task in tasks):,} {split}" for split in SPLITS)


def headline(stream: dict[str, Any]) -> str:
    """Seed, tasks, classes (one that several tasks have counts once) and pixels of the whole stream."""
    tasks = stream["tasks"]
    classes = {(task["source"], name) for task in tasks for name in task["classes"]}
    sources = {task["source"] for task in tasks}
    known = counted(len(classes), "class") + (f" from {clean(*sources)}" if len(sources) == 1 else "")
    sides = sorted({task["image_size"] for task in tasks})
    pixels = f"{sides[0]}×{sides[0]}" + (f" to {sides[-1]}×{sides[-1]}" if len(sides) > 1 else "")
    return " · ".join([f"seed {stream['seed']}", counted(len(tasks), "task"), known, f"{pixels} pixels"])


def licences(stream: dict[str, Any]) -> list[str]:
    """Return one line per licence of the images, with its sources."""
    sources: dict[str, list[str]] = {}
    for source, licence in {task["source"]: task["licence"] for task in stream["tasks"]}.items():
        sources.setdefault(clean(licence), []).append(clean(source))
    return [f"licence of {_some(names, 'source')}: {licence}" for licence, names in sources.items()]


def class_names(classes: Sequence[str]) -> str:
    """Names in label order; of very many only the first, and how many follow."""
    shown = classes if len(classes) <= MOST_NAMES else classes[:FIRST_NAMES]
    more = len(classes) - len(shown)
    return ", ".join(short(name, NAME) for name in shown) + (f", … and {more} more" if more else "")


def stream_table(stream: dict[str, Any]) -> Table:
    """Make a table with one row per task; values that all tasks share are in the title instead of a column."""
    tasks = stream["tasks"]
    several = {key: len({task[key] for task in tasks}) > 1 for key in ("source", "image_size")}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_footer=len(tasks) > 1)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("task", footer="total", overflow="fold", min_width=8, max_width=24)
    if several["source"]:
        table.add_column("source", overflow="fold", min_width=8, max_width=24)
    for split in SPLITS:
        table.add_column(split, footer=f"{sum(task[split] for task in tasks):,}", justify="right", no_wrap=True)
    if several["image_size"]:
        table.add_column("pixels", justify="right", no_wrap=True)
    table.add_column("classes in label order", ratio=1, overflow="fold")
    for number, task in enumerate(tasks, 1):
        source = [Text(clean(task["source"]))] if several["source"] else []
        side = [str(task["image_size"])] if several["image_size"] else []
        names = Text(f"{len(task['classes'])}: ", style="dim").append(class_names(task["classes"]), style="not dim")
        if task["transform"]:
            names.append(f"\n{clean(task['transform'])}", style="not dim italic")
        counts = [f"{task[split]:,}" for split in SPLITS]
        table.add_row(str(number), Text(clean(task["name"])), *source, *counts, *side, names)
    return table


def notes(stream: dict[str, Any]) -> list[str]:
    """Return each note once, with the tasks that it applies to."""
    tasks: dict[str, list[str]] = {}
    for task in stream["tasks"]:
        for note in task["notes"]:
            tasks.setdefault(clean(note), []).append(short(task["name"], NAME))
    return [f"note on {_some(names, 'task')}: {note}" for note, names in tasks.items()]


def _some(names: list[str], thing: str) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:4])} and {counted(len(names) - 4, f'more {thing}')}"
