"""A stream made smaller: `cifar100-10?tasks=3&train_per_class=100&valid_per_class=20`, or `mine.toml?test_per_class=50`.

Its first `tasks` tasks, with at most so many images of a class in each. Classes and their order stay. Where images are limited they are
dealt as for a stream from a file, whatever the benchmark's own way of drawing is. Numbers from a reduced stream say so by its name.
"""

from dataclasses import replace

from lifelong.errors import LifelongError, near_miss
from lifelong.streams.spec import StreamSpec, TaskSpec

IMAGES = ("train_per_class", "valid_per_class", "test_per_class")
OPTIONS = ("tasks", *IMAGES)


def parse_reduction(name: str) -> tuple[str, dict[str, int]]:
    """The name of a stream without its options, and how many tasks it may have, and images of a class in each split.

    Raises:
        LifelongError: an option is unknown, given twice or no whole number above 0.
    """
    stream, mark, text = name.partition("?")
    amounts: dict[str, int] = {}
    for item in text.split("&") if mark else []:
        key, _, value = item.partition("=")
        where = f"stream '{name}', option '{key}'"
        if key not in OPTIONS:
            raise LifelongError(f"{where}: unknown{near_miss(key, OPTIONS)} (there are {', '.join(OPTIONS)})")
        if key in amounts:
            raise LifelongError(f"{where}: is given twice; keep one")
        if not (value.isascii() and value.isdigit() and int(value) > 0):
            raise LifelongError(f"{where}: '{value}' is no whole number above 0")
        amounts[key] = int(value)
    return stream, amounts


def reduced(spec: StreamSpec, name: str, amounts: dict[str, int]) -> StreamSpec:
    """The first tasks of a stream, with at most so many images of a class in each.

    Args:
        spec: the whole stream.
        name: what the reduced one is called.
        amounts: by option; what is not named is as the stream says.

    Raises:
        LifelongError: more tasks are wanted than there are.
    """
    tasks = spec.tasks[: amounts.get("tasks")]
    if len(tasks) < amounts.get("tasks", 0):
        raise LifelongError(f"stream '{name}', option 'tasks': it has {len(tasks)} tasks, not {amounts['tasks']}")
    images = {key: amount for key, amount in amounts.items() if key in IMAGES}
    if not images:
        return replace(spec, name=name, tasks=tasks)
    return replace(spec, name=name, tasks=tuple(_fewer(task, images) for task in tasks), draw={})


def _fewer(task: TaskSpec, amounts: dict[str, int]) -> TaskSpec:
    counts = {}
    for key, amount in amounts.items():
        asked = getattr(task, key)
        counts[key] = amount if asked is None else min(asked, amount)
    fraction = None if "valid_per_class" in amounts else task.valid_fraction
    return replace(task, **counts, valid_fraction=fraction)
