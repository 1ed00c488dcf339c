"""Read a stream from TOML. Every error names the file, the task, the key and the value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from annotated_types import Ge, Le, Predicate

from lifelong.data.task import IMAGENET, NO_AUGMENTATION, Augmentation, Normalization
from lifelong.errors import LifelongError
from lifelong.opening import read_toml
from lifelong.settings.fields import Words
from lifelong.settings.tables import read_table
from lifelong.streams.spec import Fraction, ImageSize, PerClass, SameAs, StreamSpec, TaskSpec
from lifelong.streams.transforms import COLOURS, Transform

Text = Annotated[str, Predicate(lambda text: bool(text.strip())), Words("a text that is not empty")]
T = TypeVar("T")
Channels = tuple[T, T, T]
"""One value for each of red, green and blue."""


@dataclass(frozen=True)
class _SameAs:
    same_as: Text


@dataclass(frozen=True)
class _Normalize:
    mean: Channels[Annotated[float, Ge(-10), Le(10)]]
    std: Channels[Annotated[float, Ge(1e-6), Le(10)]]


@dataclass(frozen=True)
class _Augment:
    crop: Annotated[int, Ge(0)] = 0
    flip: bool = False
    brightness: Annotated[float, Ge(0), Le(1)] = 0.0


@dataclass(frozen=True)
class _Transform:
    rotate: float = 0.0
    invert: bool = False
    background: Literal["red", "green", "blue"] | Channels[Annotated[float, Ge(0), Le(1)]] | None = None
    shift_labels: int = 0


Classes = Annotated[
    int | tuple[str | int, ...] | _SameAs,
    Words('a list of names or ids, a number of classes to draw, or { same_as = "an earlier task" }'),
]
NormalizeKey = Literal["task", "imagenet"] | _Normalize
AugmentKey = bool | _Augment


@dataclass(frozen=True)
class _Task:
    name: Text
    source: Text
    classes: Classes | None = None
    train_per_class: PerClass | None = None
    valid_per_class: PerClass | None = None
    valid_fraction: Fraction | None = None
    test_per_class: PerClass | None = None
    overlap: bool = False
    transform: _Transform = _Transform()
    image_size: ImageSize | None = None
    normalize: NormalizeKey | None = None
    augment: AugmentKey | None = None


@dataclass(frozen=True)
class _File:
    name: Text | None = None
    image_size: ImageSize = 32
    normalize: NormalizeKey = "task"
    augment: AugmentKey = True
    task: Annotated[tuple[dict[str, object], ...], Words("tables: write each task as [[task]]")] = ()


def read_stream(path: Path) -> StreamSpec:
    """Read a stream from a TOML file; `docs/streams.md` lists the keys.

    Raises:
        LifelongError: the file cannot be read, is not TOML, or does not define a stream.
    """
    path = Path(path)
    try:
        content = read_toml(path)
    except FileNotFoundError as error:
        raise LifelongError(f"no stream file {path}; check the path") from error
    except OSError as error:
        raise LifelongError(f"cannot read stream file {path}: {error.strerror}") from error
    except ValueError as error:
        raise LifelongError(f"{path}: not valid TOML: {error}") from error
    try:
        return _stream(content, path)
    except LifelongError as error:
        raise LifelongError(f"{path}: {error}") from error


def _stream(content: dict[str, object], path: Path) -> StreamSpec:
    file = read_table(_File, content)
    tasks = tuple(_task(values, number, file) for number, values in enumerate(file.task, 1))
    return StreamSpec(path.stem if file.name is None else file.name, tasks, path.resolve().parent)


def _task(values: dict[str, object], number: int, file: _File) -> TaskSpec:
    named = values.get("name")
    task = read_table(_Task, values, f"task '{named}'" if isinstance(named, str) else f"task {number}")
    return TaskSpec(
        name=task.name,
        source=task.source,
        classes=SameAs(task.classes.same_as) if isinstance(task.classes, _SameAs) else task.classes,
        train_per_class=task.train_per_class,
        valid_per_class=task.valid_per_class,
        valid_fraction=task.valid_fraction,
        test_per_class=task.test_per_class,
        overlap=task.overlap,
        transform=_transform(task.transform),
        image_size=file.image_size if task.image_size is None else task.image_size,
        normalization=_normalization(file.normalize if task.normalize is None else task.normalize),
        augmentation=_augmentation(file.augment if task.augment is None else task.augment),
    )


def _normalization(key: NormalizeKey) -> Normalization | None:
    if isinstance(key, _Normalize):
        return Normalization(key.mean, key.std)
    return IMAGENET if key == "imagenet" else None


def _augmentation(key: AugmentKey) -> Augmentation | None:
    if isinstance(key, _Augment):
        return Augmentation(key.crop, key.flip, key.brightness)
    return None if key else NO_AUGMENTATION


def _transform(table: _Transform) -> Transform:
    background = COLOURS[table.background] if isinstance(table.background, str) else table.background
    return Transform(table.rotate, table.invert, background, table.shift_labels)
