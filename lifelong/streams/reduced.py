"""Make a stream smaller: `cifar100-10?tasks=3&train_per_class=100&valid_per_class=20`, or `mine.toml?test_per_class=50`.

Keep the first `tasks` tasks, with at most the given number of images per class. Classes and their order stay. Where images are limited,
they are dealt as for a stream from a file, however the benchmark itself draws them. `ctrl-s-minus?without=dtd+svhn` skips the tasks of
these sources, for example if you do not have them. The stream's name shows that it is reduced.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lifelong.data.known_sources import KNOWN_SOURCES
from lifelong.errors import LifelongError, near_miss
from lifelong.streams.spec import StreamSpec, TaskSpec

IMAGES = ("train_per_class", "valid_per_class", "test_per_class")
OPTIONS = ("tasks", *IMAGES, "without")


@dataclass(frozen=True)
class Reduction:
    """What to keep of a stream.

    Attributes:
        amounts: of "tasks", and of images per class in each split; the stream decides what is not named.
        without: sources whose tasks are left out, before tasks are counted.
    """

    amounts: Mapping[str, int]
    without: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.amounts or self.without)


def parse_reduction(name: str) -> tuple[str, Reduction]:
    """Split the name of a stream into the name without its options and the reduction they describe.

    Raises:
        LifelongError: an option is unknown, given twice or not an integer >= 1.
    """
    stream, mark, text = name.partition("?")
    values: dict[str, str] = {}
    for item in text.split("&") if mark else []:
        key, _, value = item.partition("=")
        where = f"stream '{name}', option '{key}'"
        if key not in OPTIONS:
            raise LifelongError(f"{where}: unknown{near_miss(key, OPTIONS)} (there are {', '.join(OPTIONS)})")
        if key in values:
            raise LifelongError(f"{where}: is given twice; keep one")
        if key != "without" and not (value.isascii() and value.isdigit() and int(value) > 0):
            raise LifelongError(f"{where} = '{value}': expected an integer >= 1")
        values[key] = value
    without = tuple(values.pop("without").split("+")) if "without" in values else ()
    return stream, Reduction({key: int(value) for key, value in values.items()}, without)


def reduced(spec: StreamSpec, name: str, reduction: Reduction) -> StreamSpec:
    """Keep the first tasks of a stream, with at most the given number of images per class.

    Args:
        spec: the whole stream.
        name: of the reduced stream.
        reduction: what to keep.

    Raises:
        LifelongError: more tasks are wanted than there are, none is left, or a source to leave out is unknown.
    """
    tasks = _without(spec, name, reduction.without)
    wanted = reduction.amounts.get("tasks", len(tasks))
    if wanted > len(tasks):
        raise LifelongError(f"stream '{name}', option 'tasks': it has {len(tasks)} tasks, not {wanted}")
    tasks = tasks[:wanted]
    images = {key: amount for key, amount in reduction.amounts.items() if key in IMAGES}
    if not images:
        return replace(spec, name=name, tasks=tasks)
    return replace(spec, name=name, tasks=tuple(_fewer(task, images) for task in tasks), draw={})


def _without(spec: StreamSpec, name: str, sources: tuple[str, ...]) -> tuple[TaskSpec, ...]:
    """Skip the tasks of these sources. A source that the stream does not use is accepted; an unknown one is an error."""
    known = {*KNOWN_SOURCES, *(task.source for task in spec.tasks)}
    for source in sources:
        if source not in known:
            raise LifelongError(f"stream '{name}', option 'without': unknown source '{source}'{near_miss(source, known)}")
    tasks = tuple(task for task in spec.tasks if task.source not in sources)
    if not tasks:
        raise LifelongError(f"stream '{name}', option 'without': no task is left")
    return tasks


def _fewer(task: TaskSpec, amounts: dict[str, int]) -> TaskSpec:
    counts = {}
    for key, amount in amounts.items():
        asked = getattr(task, key)
        counts[key] = amount if asked is None else min(asked, amount)
    fraction = None if "valid_per_class" in amounts else task.valid_fraction
    return replace(task, **counts, valid_fraction=fraction)
