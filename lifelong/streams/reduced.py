"""A named stream with fewer images, for a smaller machine: `cifar100-10?train_per_class=100&valid_per_class=20&test_per_class=50`.

Classes and their order stay; each task gets at most so many images of a class, dealt as for a stream from a file, whatever the
benchmark's own way of drawing is. Numbers from a reduced stream say so by its name.
"""

from dataclasses import replace

from lifelong.errors import LifelongError, near_miss
from lifelong.streams.spec import StreamSpec, TaskSpec

OPTIONS = ("train_per_class", "valid_per_class", "test_per_class")


def parse_reduction(name: str) -> tuple[str, dict[str, int]]:
    """The name of a stream without its options, and how many images of a class each split may have.

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
    """The stream with at most so many images of a class in each task.

    Args:
        spec: the whole stream.
        name: what the reduced one is called.
        amounts: by option; a split that is not named keeps what the stream says.
    """
    return replace(spec, name=name, tasks=tuple(_fewer(task, amounts) for task in spec.tasks), draw={})


def _fewer(task: TaskSpec, amounts: dict[str, int]) -> TaskSpec:
    counts = {}
    for key, amount in amounts.items():
        asked = getattr(task, key)
        counts[key] = amount if asked is None else min(asked, amount)
    fraction = None if "valid_per_class" in amounts else task.valid_fraction
    return replace(task, **counts, valid_fraction=fraction)
