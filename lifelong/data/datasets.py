"""Read data sets of other libraries: PyTorch's and torchvision's, Hugging Face's, or any iterable of pairs.

None of these libraries is imported: a data set is told by what it can do.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from lifelong.data.naming import shown
from lifelong.data.split_names import SplitName, usual_splits
from lifelong.errors import LifelongError

IMAGES = ("image", "img")
LABELS = ("label", "labels")
"""The usual names of the two columns."""


@dataclass
class Dataset:
    """A data set that is read once.

    Attributes:
        images: its images; labels are collected while these are read.
        labels: the labels of the images that were read.
        classes: the names of its classes, if it knows them.
    """

    images: Iterable[Any]
    labels: list[Any]
    classes: tuple[str, ...] | None


# `Any`: a data set of any library.
def splits_of(dataset: Any, by: str) -> dict[SplitName, Any]:
    """Return the splits of a data set that has several, such as a `DatasetDict`; else the data set itself as `train`.

    Raises:
        LifelongError: it has no train split, or two for one.
    """
    if not isinstance(dataset, Mapping):
        return {"train": dataset}
    named = usual_splits(f"{by}: the data set", [str(name) for name in dataset])
    if "train" not in named:
        raise LifelongError(
            f"{by}: a data set with the splits {', '.join(map(shown, map(str, dataset)))}; give one of them: dataset['NAME']"
        )
    return {split: dataset[name] for split, name in named.items()}


def read_dataset(dataset: Any, image: str | None, label: str | None, what: str) -> Dataset:
    """Read a data set.

    Args:
        dataset: items are pairs of an image and a label, or dicts with a column for each.
        image, label: names of the columns; None: the usual ones.
        what: names it in error lines.

    Raises:
        LifelongError: it is no data set, or its items are not as described; some of this is only found when images are read.
    """
    kind = type(dataset).__name__
    _refuse_others(dataset, kind, what)
    labels: list[Any] = []
    if hasattr(dataset, "features") and hasattr(dataset, "column_names"):
        return _of_columns(dataset, image, label, what)
    if _is_map(dataset):
        _check_repeatable(dataset, image, label, what)
        items: Iterable[Any] = _items(dataset, what)
    elif isinstance(dataset, Iterable):
        items = _guarded(iter(dataset), what)
    else:
        raise LifelongError(f"{what}: a {kind} is no data set: give one whose items are pairs of an image and a label")
    return Dataset(_images(items, labels, image, label, what), labels, _class_names(dataset))


def _refuse_others(dataset: Any, kind: str, what: str) -> None:
    if hasattr(dataset, "dataset") and hasattr(dataset, "batch_size"):
        raise LifelongError(f"{what}: a {kind} gives batches, in an order of its own; give its data set: loader.dataset")
    arrays = (np.ndarray, Tensor)
    pair_of_arrays = isinstance(dataset, (tuple, list)) and len(dataset) == 2 and all(isinstance(one, (*arrays, list)) for one in dataset)
    if isinstance(dataset, arrays) or pair_of_arrays:
        raise LifelongError(f"{what}: arrays are given with lifelong.Task.from_arrays(images, labels)")
    if isinstance(dataset, (str, bytes)) or hasattr(dataset, "__fspath__"):
        raise LifelongError(f"{what}: a name, not a data set; open it first, or name it as an address: lifelong.run('folder:PATH?tasks=2')")


def _is_map(dataset: Any) -> bool:
    """Tell whether items can be asked for by their number."""
    endless = any(base.__name__ == "IterableDataset" for base in type(dataset).__mro__)
    return not endless and hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def _of_columns(dataset: Any, image: str | None, label: str | None, what: str) -> Dataset:
    """Read a data set with columns, as Hugging Face's are."""
    features = dataset.features or {}
    columns = list(dataset.column_names or features)
    chosen = [
        _column(columns, asked, usual, [name for name in features if type(features[name]).__name__ == kind], word, what)
        for asked, usual, kind, word in ((image, IMAGES, "Image", "image"), (label, LABELS, "ClassLabel", "label"))
    ]
    names = getattr(features.get(chosen[1]), "names", None)
    rows = dataset.select_columns(chosen) if hasattr(dataset, "select_columns") else dataset
    labels: list[Any] = []
    return Dataset(_images(_guarded(iter(rows), what), labels, *chosen, what), labels, tuple(map(str, names)) if names else None)


def _column(columns: Sequence[str], asked: str | None, usual: Sequence[str], typed: Sequence[str], word: str, what: str) -> str:
    """Choose a column: the one asked for, the usual one, or the only one of the right type."""
    there = ", ".join(map(shown, columns))
    if asked is not None:
        if asked not in columns:
            raise LifelongError(f"{what}: no column '{asked}' for the {word}s; its columns: {there}")
        return asked
    found = next((name for name in usual if name in columns), typed[0] if len(typed) == 1 else None)
    if found is None:
        raise LifelongError(f"{what}: which column holds the {word}s? name it: {word}='COLUMN'; its columns: {there}")
    return found


def _items(dataset: Any, what: str) -> Iterator[Any]:
    for number in range(len(dataset)):
        yield _item(dataset, number, what)


def _item(dataset: Any, number: int, what: str) -> Any:
    try:
        return dataset[number]
    except Exception as error:  # the code of another: whatever it raises, here is where
        raise _failed(error, number, what) from error


def _guarded(items: Iterator[Any], what: str) -> Iterator[Any]:
    number = 0
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:  # the code of another
            raise _failed(error, number, what) from error
        yield item
        number += 1


def _failed(error: Exception, number: int, what: str) -> LifelongError:
    return LifelongError(f"{what}: item {number} cannot be read: {type(error).__name__}: {' '.join(str(error).split())}")


def _images(items: Iterable[Any], labels: list[Any], image: str | None, label: str | None, what: str) -> Iterator[Any]:
    """Yield images, and collect their labels."""
    for number, item in enumerate(items):
        picture, name = _parts(item, image, label, f"{what}, item {number}")
        labels.append(name)
        yield picture


def _parts(item: Any, image: str | None, label: str | None, what: str) -> tuple[Any, Any]:
    """Split an item into image and label."""
    if isinstance(item, Mapping):
        keys = [str(key) for key in item]
        return item[_column(keys, image, IMAGES, (), "image", what)], item[_column(keys, label, LABELS, (), "label", what)]
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    how = f"a tuple of {len(item)}" if isinstance(item, (tuple, list)) else f"a {type(item).__name__}"
    raise LifelongError(f"{what} is {how}: expected a pair of an image and a label, or a dict with both")


def _check_repeatable(dataset: Any, image: str | None, label: str | None, what: str) -> None:
    """Check that an item is the same when it is asked for again: random changes would make another data set of every reading."""
    for number in dict.fromkeys((0, len(dataset) - 1)) if len(dataset) else ():
        one, other = (_parts(_item(dataset, number, what), image, label, f"{what}, item {number}")[0] for _ in range(2))
        if not _same(one, other):
            raise LifelongError(
                f"{what}: item {number} is another image when it is read again; leave out its random transforms:"
                " lifelong varies training images itself (augment=...)"
            )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Image.Image):
        return one.size == other.size and one.tobytes() == other.tobytes()
    if hasattr(one, "__array__"):
        first, second = (np.asarray(each.detach().cpu() if isinstance(each, Tensor) else each) for each in (one, other))
        return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    return True


def _class_names(dataset: Any) -> tuple[str, ...] | None:
    """Return the names of classes as torchvision's data sets know them, also those inside of a `Subset` or a `ConcatDataset`."""
    for _ in range(10):
        names = getattr(dataset, "classes", None)
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
        inner = getattr(dataset, "dataset", None)
        within = getattr(dataset, "datasets", None)
        dataset = inner if inner is not None else within[0] if isinstance(within, (list, tuple)) and within else None
        if dataset is None:
            return None
    return None
