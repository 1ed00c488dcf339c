"""The TOML form of a stream. Every error names the file, the task, the key and the value."""

import difflib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lifelong.data.task import NO_AUGMENTATION, Augmentation, Normalization
from lifelong.errors import LifelongError, near_miss
from lifelong.opening import read_toml
from lifelong.streams.spec import IMAGENET, SameAs, StreamSpec, TaskSpec
from lifelong.streams.transforms import COLOURS, Transform


def read_stream(path: Path) -> StreamSpec:
    """A stream from a TOML file; `docs/streams.md` lists the keys.

    Raises:
        LifelongError: the file cannot be read, is no TOML, or says something that makes no stream.
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


class _Table:
    """A TOML table whose keys are taken one by one; what is left at the end was never meant to be there."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise LifelongError(f"{where}: must be a table, not {values!r}")
        self._values = dict(values)
        self._known: list[str] = []
        self.where = where

    def take(self, key: str, parse: Callable[[Any], Any], default: Any = None) -> Any:
        """The parsed value of a key, or the default where it is absent; `parse` raises ValueError to say what it expected."""
        self._known.append(key)
        if key not in self._values:
            return default
        value = self._values.pop(key)
        try:
            return parse(value)
        except ValueError as error:
            raise LifelongError(f"{self._at()}{key} = {_shown(value)}: {error}") from error
        except LifelongError as error:  # of a table within this one
            raise LifelongError(f"{self._at()}{error}") from error

    def need(self, key: str, parse: Callable[[Any], Any]) -> Any:
        """As `take`, for a key that must be there."""
        if key not in self._values:
            close = difflib.get_close_matches(key, self._values, n=1)
            raise LifelongError(f"{self._at()}the key '{key}' is missing; " + (f"is '{close[0]}' meant to be it?" if close else "add it"))
        return self.take(key, parse)

    def done(self) -> None:
        """No key may be left."""
        for key in self._values:
            raise LifelongError(f"{self._at()}unknown key '{key}'{near_miss(key, self._known)}")

    def _at(self) -> str:
        return f"{self.where}, " if self.where else ""


def _stream(content: dict[str, Any], path: Path) -> StreamSpec:
    table = _Table(content, "")
    name = table.take("name", _text, path.stem)
    defaults = {
        "image_size": table.take("image_size", _whole(4, 1024), 32),
        "normalization": table.take("normalize", _normalization),
        "augmentation": table.take("augment", _augmentation),
    }
    tasks = table.take("task", _tables, [])
    table.done()
    return StreamSpec(name, tuple(_task(values, number, defaults) for number, values in enumerate(tasks, 1)), path.resolve().parent)


def _task(values: dict[str, Any], number: int, defaults: dict[str, Any]) -> TaskSpec:
    named = values.get("name")
    table = _Table(values, f"task '{named}'" if isinstance(named, str) else f"task {number}")
    spec = TaskSpec(
        name=table.need("name", _text),
        source=table.need("source", _text),
        classes=table.take("classes", _classes),
        train_per_class=table.take("train_per_class", _whole(1)),
        valid_per_class=table.take("valid_per_class", _whole(1)),
        valid_fraction=table.take("valid_fraction", _number(0.0, 1.0)),
        test_per_class=table.take("test_per_class", _whole(1)),
        overlap=table.take("overlap", _truth, False),
        transform=table.take("transform", _transform, Transform()),
        image_size=table.take("image_size", _whole(4, 1024), defaults["image_size"]),
        normalization=table.take("normalize", _normalization, defaults["normalization"]),
        augmentation=table.take("augment", _augmentation, defaults["augmentation"]),
    )
    table.done()
    return spec


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text in quotes, not empty")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _whole(low: int | None = None, high: int | None = None) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("must be a whole number")
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(f"must be at least {low}" if high is None else f"must lie between {low} and {high}")
        return value

    return parse


def _number(low: float = -math.inf, high: float = math.inf) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError("must be a number")
        if not low <= value <= high:
            raise ValueError(f"must lie between {low:g} and {high:g}")
        return float(value)

    return parse


def _tables(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("must be tables: write each task as [[task]]")
    return value


def _classes(value: Any) -> int | tuple[str | int, ...] | SameAs:
    if isinstance(value, dict):
        table = _Table(value, "classes")
        task = table.need("same_as", _text)
        table.done()
        return SameAs(task)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, list) and all(isinstance(item, (str, int)) and not isinstance(item, bool) for item in value):
        return tuple(value)
    raise ValueError('must be a list of names or ids, a number of classes to draw, or { same_as = "an earlier task" }')


def _triple(low: float, high: float) -> Callable[[Any], tuple[float, float, float]]:
    parse = _number(low, high)

    def parse_all(value: Any) -> tuple[float, float, float]:
        if not isinstance(value, list) or len(value) != 3:
            raise ValueError("must be three numbers, one for each of red, green and blue")
        red, green, blue = (parse(item) for item in value)
        return red, green, blue

    return parse_all


def _normalization(value: Any) -> Normalization | None:
    if value == "task":
        return None
    if value == "imagenet":
        return IMAGENET
    if not isinstance(value, dict):
        raise ValueError('must be "task", "imagenet" or { mean = [r, g, b], std = [r, g, b] }')
    table = _Table(value, "normalize")
    result = Normalization(table.need("mean", _triple(-10.0, 10.0)), table.need("std", _triple(1e-6, 10.0)))
    table.done()
    return result


def _augmentation(value: Any) -> Augmentation | None:
    if isinstance(value, bool):
        return None if value else NO_AUGMENTATION
    if not isinstance(value, dict):
        raise ValueError("must be true, false or { crop = 4, flip = true, brightness = 0.25 }")
    table = _Table(value, "augment")
    result = Augmentation(
        table.take("crop", _whole(0), 0), table.take("flip", _truth, False), table.take("brightness", _number(0.0, 1.0), 0.0)
    )
    table.done()
    return result


def _background(value: Any) -> tuple[float, float, float]:
    if isinstance(value, str):
        if value not in COLOURS:
            raise ValueError(f"unknown colour{near_miss(value, COLOURS)}")
        return COLOURS[value]
    return _triple(0.0, 1.0)(value)


def _transform(value: Any) -> Transform:
    table = _Table(value, "transform")
    result = Transform(
        rotate=table.take("rotate", _number(), 0.0),
        invert=table.take("invert", _truth, False),
        background=table.take("background", _background),
        shift_labels=table.take("shift_labels", _whole(), 0),
    )
    table.done()
    return result
