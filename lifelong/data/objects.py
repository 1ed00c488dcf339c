"""Make a task of Python objects: arrays, lists, data sets of other libraries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from lifelong.data.arrays import Squares
from lifelong.data.given_labels import read_class_names, read_labels
from lifelong.data.known_sources import KnownSource
from lifelong.data.labels import arrange
from lifelong.data.naming import class_name, shown
from lifelong.data.split_names import IN_WORDS, SPLITS, SplitName
from lifelong.data.task import NO_AUGMENTATION, Augmentation, Normalization, Split, Task
from lifelong.errors import LifelongError

UNNAMED = "task"
"""The name of a task that was given none; in a stream it is numbered."""


@dataclass(frozen=True)
class HeldSplit:
    """The images of one split, in memory.

    Attributes:
        images: RGB squares.
        labels: the class id of each.
        remarks: what images lost when read, by position.
    """

    images: UInt8[Tensor, "n 3 s s"]
    labels: Int64[Tensor, "n"]
    remarks: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HeldTask:
    """The images of a task, in memory, and how they are to be prepared.

    Attributes:
        name: of the task; None: it was given none.
        classes: class names in label order.
        splits: always `train`; without `valid` or `test`, a stream holds out some of the training images.
        numbers: the number by which each class was given.
        flip: whether a horizontal flip preserves the class.
        normalization, augmentation: see `Task`; without an augmentation a crop, and a flip if `flip`.
        in_order: whether the splits are taken as they are, with nothing drawn or shuffled.
        notes: things a person should know, one sentence each.
    """

    name: str | None
    classes: tuple[str, ...]
    splits: Mapping[SplitName, HeldSplit]
    numbers: tuple[int, ...]
    flip: bool = False
    normalization: Normalization | None = None
    augmentation: Augmentation | None = None
    in_order: bool = False
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Return the height and width of its images."""
        return self.splits["train"].images.shape[2]


# `Any`: whatever holds images and labels; what cannot be read is named.
Part = tuple[Any, Any]
"""The images and the labels of a split."""


def task_of(
    parts: Mapping[SplitName, Part],
    *,
    by: str,
    name: str | None,
    classes: Sequence[str] | None,
    size: int | None,
    flip: bool,
    normalization: Normalization | None,
    augmentation: Augmentation | None,
) -> Task:
    """Make a task of images and labels; see `Task.from_arrays`.

    Args:
        parts: the images and labels of each given split.
        by: the call, for error lines.
        name, classes, size, flip, normalization, augmentation: see `Task.from_arrays`.

    Raises:
        LifelongError: something of it cannot be used.
    """
    called = None if name is None else class_name(name)
    if name is not None and called is None:
        raise LifelongError(f"{by}: name = '{shown(name)}': cannot be printed; give another")
    where = by if called is None else f"{by}: task '{called}'"
    squares, read, labels = Squares(size), {}, {}
    for split, (images, given) in parts.items():
        pixels = squares.read(images, f"{where}: {IN_WORDS[split]} images")
        read[split] = pixels.images(), pixels.remarks
        labels[split] = read_labels(given, pixels.count, f"{where}: {split}")
    entry = KnownSource(called or UNNAMED, "", (), "your own data", flip, None)
    names = read_class_names(classes)
    arranged = arrange(entry, where, dict.fromkeys(parts, names), labels)
    _check_classes(where, arranged.classes)
    return task_of_held(
        HeldTask(
            called,
            arranged.classes,
            {split: HeldSplit(images, arranged.ids[split], remarks) for split, (images, remarks) in read.items()},
            arranged.numbers,
            flip,
            normalization,
            augmentation,
            notes=(*arranged.notes, *([squares.note] if squares.note else [])),
        )
    )


def _check_classes(where: str, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise LifelongError(f"{where}: all images are of one class, '{shown(classes[0])}'; a task needs at least 2")


def task_of_held(held: HeldTask) -> Task:
    """Return a task of images in memory, whose splits can be used at once if all three were given."""

    def load(split: SplitName) -> Split:
        missing = [IN_WORDS[each] for each in SPLITS if each not in held.splits]
        if missing:
            raise LifelongError(
                f"task '{held.name or UNNAMED}' was given no {' and no '.join(missing)} images: a stream holds them out, by its seed;"
                " use lifelong.open_stream([task], seed=0)[0]"
            )
        part = held.splits[split]
        return Split(part.images, part.labels)

    augmentation = Augmentation(held.size // 8, held.flip) if held.augmentation is None else held.augmentation
    task = Task(held.name or UNNAMED, held.classes, load, normalization=held.normalization, augmentation=augmentation)
    task.held = held
    return task


def held_of(task: Task) -> HeldTask:
    """Return what a task was made of; the splits of any other task are taken as they are.

    Raises:
        LifelongError: its images or labels cannot be used.
    """
    if task.held is not None:
        return task.held
    where = f"task '{shown(task.name)}'"
    splits: dict[SplitName, HeldSplit] = {}
    for split in SPLITS:
        part: Split = getattr(task, split)
        height, width = part.images.shape[2:]
        if not len(part):
            raise LifelongError(f"{where} has no {IN_WORDS[split]} images; give it some")
        if height != width or (splits and splits["train"].images.shape[2] != height):
            raise LifelongError(f"{where}: {split} images of {height}×{width} pixels; all images of a task are squares of one size")
        low, high = int(part.labels.min()), int(part.labels.max())
        if not 0 <= low <= high < len(task.classes):
            raise LifelongError(
                f"{where}: labels of {split} from {low} to {high}, and it has {len(task.classes)} classes: 0..{len(task.classes) - 1}"
            )
        splits[split] = HeldSplit(part.images.cpu().contiguous(), part.labels.cpu())
    _check_classes(where, task.classes)
    numbers = tuple(range(len(task.classes)))
    return HeldTask(task.name, task.classes, splits, numbers, False, task.given_normalization, task.augmentation, in_order=True)


def no_augmentation(augment: "bool | Augmentation | None") -> Augmentation | None:
    """Return what `augment` means: True or None is as usual, False is none."""
    if isinstance(augment, Augmentation):
        return augment
    return NO_AUGMENTATION if augment is False else None


def pair(value: Any, name: str, by: str) -> Part:
    """Check that a split was given as a pair of images and labels.

    Raises:
        LifelongError: it was not.
    """
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise LifelongError(f"{by}: {name} = a {type(value).__name__}: expected a pair, {name}=(images, labels)")
    return value[0], value[1]


def as_int64(values: np.ndarray) -> Int64[Tensor, "n"]:
    """Return 64-bit hashes as PyTorch can hold them."""
    return torch.from_numpy(values.view(np.int64).copy())
