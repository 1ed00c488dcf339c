"""Streams of Python objects: tasks in memory, and streams that a program has.

What a stream consists of is kept in the cache by its content (`lifelong.data.kept`), and its address names it from then on: for the run
and its identity, for other processes, and when the same call continues it later.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lifelong.data.address import Address, object_address, parse_address
from lifelong.data.cache import Cache
from lifelong.data.kept import keep_record, keep_task, preparation, read_kept
from lifelong.data.naming import shown
from lifelong.data.objects import UNNAMED, held_of
from lifelong.data.sources import Sources
from lifelong.data.split_names import IN_WORDS, SPLITS, SplitName
from lifelong.data.task import Stream, Task
from lifelong.errors import LifelongError
from lifelong.streams.selection import Selection, SourceLabels
from lifelong.streams.spec import StreamSpec, TaskSpec
from lifelong.words import counted

_LONGEST = 24  # letters of a task's name in that of a stream without a name


def keep_stream(stream: Stream | Task | Sequence[Task], cache: Cache) -> str:
    """Keep the images of a stream in the cache, and return its address; of a lazy stream one task is in memory at a time.

    Args:
        stream: a stream, or tasks in the order in which they are learned. Tasks without a name are numbered.
        cache: where to.

    Raises:
        LifelongError: its images cannot be used, or the cache cannot be written.
    """
    tasks: Iterable[Task] = (stream,) if isinstance(stream, Task) else stream
    kept: list[list[str]] = []
    for number, task in enumerate(tasks, 1):
        held = held_of(task)
        name = held.name or f"{UNNAMED} {number}"
        if name in (other for other, _ in kept):
            raise LifelongError(f"task '{shown(name)}': two tasks have this name; give each its own")
        kept.append([name, keep_task(held, cache, name)])
    if not kept:
        raise LifelongError(f"stream '{stream_name(stream)}' has no tasks; give at least one")
    name = stream_name(stream) or _joined([name for name, _ in kept])
    return object_address(name, keep_record({"stream": name, "tasks": kept}, json.dumps([name, kept]), cache))


def stream_name(stream: Stream | Task | Sequence[Task]) -> str:
    """Return the name of a stream; empty for a list of tasks, which has none."""
    return "" if isinstance(stream, (Task, list, tuple)) else str(getattr(stream, "name", ""))


def _joined(names: Sequence[str]) -> str:
    first = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names[:3]]
    return " + ".join([*first, *(["..."] if len(names) > 3 else [])])


def object_stream(name: str, sources: Sources) -> StreamSpec:
    """Specify the stream of an address.

    Raises:
        LifelongError: what it names is not in the cache.
    """
    record = read_kept(parse_address(name), sources.cache)
    if "tasks" not in record:
        called = _called(parse_address(name))
        return StreamSpec(called, (object_task(called, name, sources),))
    return StreamSpec(record["stream"], tuple(object_task(task, source, sources) for task, source in record["tasks"]))


def object_task(name: str, source: str, sources: Sources, size: int | None = None) -> TaskSpec:
    """Specify a task of objects.

    Args:
        name: of the task.
        source: its address.
        sources: has the cache.
        size: height and width of its images; None: its own.

    Raises:
        LifelongError: what the address names is not in the cache.
    """
    record = read_kept(parse_address(source), sources.cache)
    normalization, augmentation = preparation(record)
    return TaskSpec(
        name,
        source,
        image_size=size or record["size"],
        normalization=normalization,
        augmentation=augmentation,
        in_order=record["in_order"],
    )


def _called(address: Address) -> str:
    return address.where.rpartition("@")[0]


class AsGiven:
    """Takes the splits of a source as they are."""

    def divide(self, tasks: Sequence[TaskSpec], ids: Sequence[tuple[int, ...]], held: SourceLabels, seed: int) -> list[Selection]:
        """Give every task all images of each split, in order."""
        labels: Mapping[SplitName, np.ndarray] = {split: held.labels[split] for split in SPLITS}
        return [Selection({split: np.arange(len(labels[split])) for split in SPLITS}, labels) for _ in tasks]


def differences(old: str, new: str, sources: Sources) -> str:
    """Say in which way the objects of one address differ from those of another.

    Returns:
        The first difference, in words; "other images" where the old ones are not known any more.
    """
    try:
        before, now = (read_kept(parse_address(name), sources.cache) for name in (old, new))
        if "tasks" not in before or "tasks" not in now:
            return "other images"
        for number, ((name, source), (wanted, other)) in enumerate(zip(before["tasks"], now["tasks"], strict=False), 1):
            if name != wanted:
                return f"task {number} is '{wanted}', not '{name}'"
            if source != other:
                return f"task '{name}' has " + _difference(*(read_kept(parse_address(each), sources.cache) for each in (source, other)))
        if len(before["tasks"]) != len(now["tasks"]):
            return f"{counted(len(now['tasks']), 'task')}, not {len(before['tasks'])}"
    except LifelongError:
        return "other images"
    return f"the stream is called '{now['stream']}', not '{before['stream']}'"


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in which way a task differs from what it was."""
    if before["classes"] != now["classes"]:
        return f"the classes {', '.join(now['classes'][:5])}, not {', '.join(before['classes'][:5])}"
    if before["size"] != now["size"]:
        return f"images of {now['size']}×{now['size']} pixels, not {before['size']}×{before['size']}"
    for split in SPLITS:
        one, other = before["splits"].get(split), now["splits"].get(split)
        words = f"{IN_WORDS[split]} images"
        if (one is None) != (other is None):
            return f"{words} of its own, which it had not" if one is None else f"no {words} of its own, which it had"
        if one is None or other is None:
            continue
        if len(one["labels"]) != len(other["labels"]):
            return f"{len(other['labels'])} {words}, not {len(one['labels'])}"
        changed = (one["contents"] != other["contents"]).nonzero().flatten().tolist()
        if changed:
            return f"{len(changed)} of {len(one['contents'])} {words} that are others, the first at position {changed[0]}"
        moved = (one["labels"] != other["labels"]).nonzero().flatten().tolist()
        if moved:
            return f"{len(moved)} of {len(one['labels'])} {words} with another label, the first at position {moved[0]}"
    for key, word in (("normalization", "normalization"), ("augmentation", "augmentation"), ("flip", "flip")):
        if before[key] != now[key]:
            return f"another {word}"
    return "another preparation of its images"
