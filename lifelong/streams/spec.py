"""Describe a stream as data: which images form which task, in which order. `reading.py` has its TOML form."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from annotated_types import Ge, Gt, Lt

from lifelong.data.address import parse_address
from lifelong.data.task import Augmentation, ImageSize, Normalization
from lifelong.errors import LifelongError, near_miss
from lifelong.settings.fields import expected
from lifelong.streams.selection import Selection, SourceLabels
from lifelong.streams.transforms import Transform

PerClass = Annotated[int, Ge(1)]
Fraction = Annotated[float, Gt(0), Lt(1)]

VALID_FRACTION = 0.1
"""The part of a class's training images that is held out where a stream does not say."""


@dataclass(frozen=True)
class SameAs:
    """The classes of an earlier task, in its label order."""

    task: str


@dataclass(frozen=True)
class TaskSpec:
    """What one task consists of.

    Attributes:
        name: unique within its stream.
        source: the name of an image source, or the address of the user's own (`folder:DIR`, `parquet:DIR`, ...).
        classes: names or ids in label order; a number k: k classes drawn by the stream's seed; None: all, in the source's order.
        train_per_class: training images per class; None: all that no other task of the stream requests.
        valid_per_class: validation images per class, disjoint from every task's training images; from the source's own validation
            split, where None means all that no other task requests, otherwise from its train split.
        valid_fraction: instead, the part of a class's training and validation images together that is for validation; only where
            the source has no validation split of its own.
        test_per_class: test images per class, fewer if fewer exist; None: all that no other task requests.
        overlap: whether other tasks may also draw its images; train, valid and test images stay disjoint in any case.
        transform: applied to every image.
        image_size: height and width in pixels.
        normalization: None: by the statistics of its own training images.
        augmentation: None: a crop with image_size / 8 pixels of padding, and a horizontal flip where that preserves the class.
        in_order: whether the splits of the source are taken as they are, with nothing dealt or shuffled.
    """

    name: str
    source: str
    classes: int | tuple[str | int, ...] | SameAs | None = None
    train_per_class: int | None = None
    valid_per_class: int | None = None
    valid_fraction: float | None = None
    test_per_class: int | None = None
    overlap: bool = False
    transform: Transform = field(default_factory=Transform)
    image_size: int = 32
    normalization: Normalization | None = None
    augmentation: Augmentation | None = None
    in_order: bool = False

    @property
    def drawn_by(self) -> str:
        """Return the name that, with the seed, decides which images are drawn: the source's, wherever its files are."""
        return parse_address(self.source).lasting

    def __post_init__(self) -> None:
        where = f"task '{self.name}'"
        for key in ("train_per_class", "valid_per_class", "test_per_class"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise LifelongError(f"{where}, {key} = {value}: expected {expected(PerClass)}")
        if self.valid_per_class is not None and self.valid_fraction is not None:
            raise LifelongError(f"{where}: valid_per_class and valid_fraction exclude each other; drop one")
        if self.valid_fraction is not None and not 0 < self.valid_fraction < 1:
            raise LifelongError(f"{where}, valid_fraction = {self.valid_fraction}: expected {expected(Fraction)}")
        if isinstance(self.classes, int) and self.classes < 2:
            raise LifelongError(f"{where}, classes = {self.classes}: a task needs at least 2 classes")
        if isinstance(self.classes, tuple):
            if len(self.classes) < 2:
                raise LifelongError(f"{where}, classes = {list(self.classes)}: a task needs at least 2 classes")
            if len(set(self.classes)) < len(self.classes):
                raise LifelongError(f"{where}, classes = {list(self.classes)}: a class is named twice")
        if not 4 <= self.image_size <= 1024:
            raise LifelongError(f"{where}, image_size = {self.image_size}: expected {expected(ImageSize)}")
        if self.augmentation is not None and self.augmentation.crop >= self.image_size:
            raise LifelongError(f"{where}, augment crop = {self.augmentation.crop}: must be smaller than the image size {self.image_size}")


@runtime_checkable
class Draw(Protocol):
    """A way to divide the images of one source among the tasks that ask for it."""

    def divide(self, tasks: Sequence[TaskSpec], ids: Sequence[tuple[int, ...]], held: SourceLabels, seed: int) -> list[Selection]:
        """Divide the images among the tasks; no task trains on an image that any task validates or tests on.

        Args:
            tasks: those tasks, in stream order.
            ids: for each of them the class ids it asks for.
            held: the labels of the source.
            seed: the stream's seed.

        Raises:
            LifelongError: tasks ask for more images than there are.
        """
        ...


@dataclass(frozen=True)
class StreamSpec:
    """A named list of tasks.

    Attributes:
        name: the stream's name.
        tasks: in the order in which they are learned.
        base: the folder that is searched for the relative path of a source after the data folder; None: the current one.
        draw: for a source, how its images are divided among the tasks; those of others are dealt (`lifelong.streams.deal`).
        drawn_from: the name that, with the seed, determines the tasks; None: the tasks are given in full.
    """

    name: str
    tasks: tuple[TaskSpec, ...]
    base: Path | None = None
    draw: Mapping[str, Draw] = field(default_factory=dict)
    drawn_from: str | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise LifelongError(f"stream '{self.name}' has no tasks; add at least one [[task]]")
        seen: list[str] = []
        for task in self.tasks:
            if task.name in seen:
                raise LifelongError(f"task '{task.name}': two tasks have this name; give each its own")
            if isinstance(task.classes, SameAs) and task.classes.task not in seen:
                wanted = task.classes.task
                raise LifelongError(f"task '{task.name}', same_as = '{wanted}': no earlier task has this name{near_miss(wanted, seen)}")
            seen.append(task.name)

    def definition(self) -> str:
        """Return a checksum over what defines the stream besides its images and its seed; it does not depend on where the files are."""
        if self.drawn_from is not None:
            what: Any = self.drawn_from
        else:
            # What is as by default is left out: a later version's new key changes no stream that does not have it.
            usual = TaskSpec("", "")
            said = [{each.name: getattr(task, each.name) for each in fields(task)} | {"source": task.drawn_by} for task in self.tasks]
            what = [{key: repr(value) for key, value in task.items() if value != getattr(usual, key)} for task in said]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
