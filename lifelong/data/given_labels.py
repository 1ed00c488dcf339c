"""Read labels in any form that a program may have: numbers, names, truth values; in lists, arrays, tensors or series."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lifelong.data.naming import class_name, shown
from lifelong.errors import LifelongError


# `Any`: whatever holds labels; what cannot be read is named.
def read_labels(labels: Any, count: int, what: str) -> np.ndarray:
    """Read the labels of images.

    Args:
        labels: one for each image.
        count: how many images there are.
        what: names the split in error lines.

    Returns:
        int64, or names (dtype object), of shape (count,); truth values become the names "False" and "True".

    Raises:
        LifelongError: labels are missing, or are not integers, names or truth values.
    """
    values = _values(labels, what)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        more = ": one row for each image; give class numbers: labels.argmax(1)" if values.ndim == 2 and len(values) == count else ""
        raise LifelongError(f"{what}: labels of shape {values.shape}{more or ': expected one label for each image'}")
    if len(values) != count:
        raise LifelongError(f"{what}: {count} images and {len(values)} labels; give one label for each image")
    if values.dtype.kind == "O":
        values = _of_objects(values, what)
    if values.dtype.kind == "b":
        return np.array([str(bool(value)) for value in values], dtype=object)
    if values.dtype.kind == "f":
        return _whole(values, what)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind in "US":
        return np.array([_name(value, place, what) for place, value in enumerate(values.tolist())], dtype=object)
    raise LifelongError(f"{what}: labels of type {values.dtype}: classes are integers, names or truth values")


def read_class_names(classes: Any) -> tuple[str, ...] | None:
    """Read the names of classes; None if none are given.

    Raises:
        LifelongError: they are no names.
    """
    if classes is None:
        return None
    if isinstance(classes, (str, bytes, Mapping)) or not isinstance(classes, Iterable):
        raise LifelongError(f"classes = {shown(repr(classes))[:60]}: expected a list of names, in the order of the labels 0, 1, ...")
    names = [_name(value, place, "classes") for place, value in enumerate(classes)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise LifelongError(f"classes: '{shown(twice)}' is named twice; give each class its own name")
    return tuple(names)


def _values(labels: Any, what: str) -> np.ndarray:
    """Return labels as an array."""
    if isinstance(labels, Tensor):
        return labels.detach().cpu().float().numpy() if labels.is_floating_point() else labels.detach().cpu().numpy()
    if labels is None or isinstance(labels, (str, bytes, Mapping)) or not (isinstance(labels, Iterable) or hasattr(labels, "__array__")):
        raise LifelongError(f"{what}: a {type(labels).__name__} where labels are expected: one for each image, in a list or an array")
    if hasattr(labels, "__array__"):
        return np.asarray(labels)
    values = [_plain(value) for value in labels]
    kinds = {bool if isinstance(value, bool) else str if isinstance(value, str) else object for value in values}
    try:
        # Of numbers and names together NumPy would make names.
        return np.asarray(values) if len(kinds) == 1 else np.array([*values, None], dtype=object)[:-1]
    except ValueError as error:
        raise LifelongError(f"{what}: labels of different shapes; give one number or name for each image") from error


def _plain(value: Any) -> Any:
    """Return what a tensor or an array of one element holds."""
    single = isinstance(value, Tensor) and value.numel() == 1
    return value.item() if single or (isinstance(value, (np.generic, np.ndarray)) and value.size == 1) else value


def _of_objects(values: np.ndarray, what: str) -> np.ndarray:
    """Return an array of one kind."""
    items: Sequence[Any] = values.tolist()
    for place, value in enumerate(items):
        if value is None or value != value or type(value).__name__ in ("NAType", "NaTType"):  # NaN differs from itself
            raise LifelongError(f"{what}: label {place} is missing ({value}); leave it out, with its image")
    kinds = {type(value) for value in items}
    if all(issubclass(kind, str) for kind in kinds) or len(kinds) == 1:
        plain = np.asarray(items)
        if plain.dtype.kind in "USbiuf":
            return plain
    if all(issubclass(kind, (int, np.integer)) and kind is not bool for kind in kinds):
        return np.asarray([int(value) for value in items])
    named = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise LifelongError(f"{what}: labels of several kinds ({named}); give integers, or names")


def _whole(values: np.ndarray, what: str) -> np.ndarray:
    """Return floats that are whole numbers as integers."""
    wrong = np.flatnonzero(~(np.isfinite(values) & (values == np.rint(values))))
    if len(wrong):
        place = int(wrong[0])
        missing = "is missing (nan); leave it out, with its image" if np.isnan(values[place]) else "is no class: give integers or names"
        raise LifelongError(f"{what}: label {place} = {values[place]:g} {missing}")
    return values.astype(np.int64)


def _name(value: Any, place: int, what: str) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    name = class_name(text)
    if name is None:
        raise LifelongError(f"{what}: name {place} is empty or cannot be printed ('{shown(text)}'); give another")
    return name
