"""Define a task's images, and a lazy sequence of tasks."""

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

import torch
from annotated_types import Ge, Le
from jaxtyping import Int64, UInt8
from torch import Tensor

from lifelong.data.split_names import SplitName
from lifelong.errors import LifelongError
from lifelong.settings.arguments import checked

if TYPE_CHECKING:
    from lifelong.data.objects import HeldTask

ImageSize = Annotated[int, Ge(4), Le(1024)]
"""Height and width of a task's images, in pixels."""


@dataclass(frozen=True)
class Split:
    """Labelled images, whole in memory.

    Attributes:
        images: uint8 RGB of shape (N, 3, H, W).
        labels: class ids in 0..C-1, of shape (N,).
    """

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int64[Tensor, "n"]

    def __post_init__(self) -> None:
        for name, value, dtype, fits in (
            ("images", self.images, torch.uint8, lambda shape: len(shape) == 4 and shape[1] == 3),
            ("labels", self.labels, torch.int64, lambda shape: shape == self.images.shape[:1]),
        ):
            if not isinstance(value, Tensor) or value.dtype != dtype or not fits(value.shape):
                given = f"shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
                raise LifelongError(f"Split: {name} ({given}): expected uint8 images (N, 3, H, W) and int64 labels (N,)")

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """Return the same split with its tensors on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation of images scaled to [0, 1], applied as (x - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The statistics of ImageNet's training images, as torchvision's pretrained networks expect them."""


@dataclass(frozen=True)
class Augmentation:
    """The random changes of each training image.

    Attributes:
        crop: pixels of zero padding on each side before a random crop back to the image's size; 0: no crop.
        flip: mirror left-right with probability 1/2.
        brightness: a factor drawn uniformly from [1 - brightness, 1 + brightness]; 0: none.
    """

    crop: int = 0
    flip: bool = False
    brightness: float = 0.0

    def __bool__(self) -> bool:
        """Return whether it changes anything."""
        return self.crop > 0 or self.flip or self.brightness > 0


NO_AUGMENTATION = Augmentation()


class Task:
    """One classification task: three splits that are loaded when first asked for, and how its images are to be prepared.

    `Task.from_arrays` and `Task.from_dataset` make one of images in memory.

    Args:
        name: unique within its stream.
        classes: class names in label order.
        load: gives a split by its name; called at most once for each.
        normalization: the normalization of its images, or None: per-channel statistics of the training images.
        augmentation: of training images.
    """

    @checked
    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        load: Callable[[SplitName], Split],
        *,
        normalization: Normalization | None = None,
        augmentation: Augmentation = NO_AUGMENTATION,
    ) -> None:
        self.name = name
        self.classes = tuple(classes)
        self.augmentation = augmentation
        self._load = load
        self._normalization = normalization
        self._splits: dict[SplitName, Split] = {}
        self.held: "HeldTask | None" = None

    # `Any`: whatever holds images and labels; what cannot be read is named.
    @classmethod
    @checked
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        *,
        classes: Sequence[str] | None = None,
        name: str | None = None,
        test: Any = None,
        valid: Any = None,
        size: ImageSize | None = None,
        flip: bool = False,
        augment: bool | Augmentation = True,
        normalization: Normalization | None = None,
    ) -> "Task":
        """Make a task of images and labels in memory.

        Of each class a stream holds out a fifth for tests and a tenth of the rest for validation, by its seed, as it does with a folder of
        the task's name, unless `test` and `valid` are given.

        Args:
            images: an array or a tensor of shape (N, H, W), (N, H, W, C) or (N, C, H, W), with 1, 3 or 4 channels: uint8, truth values, or
                floats of 0..1 or 0..255; or a list of PIL images, arrays, tensors, encoded bytes or paths, of any size.
            labels: one for each image: integers, names or truth values, in an array, a tensor, a list or a series.
            classes: names of the classes 0, 1, ...; None: the labels themselves.
            name: of the task, unique in its stream; None: its number there.
            test, valid: pairs of images and labels.
            size: height and width to which images are center-cropped and resized; None: those of the first image if it is square, with up
                to 256 pixels a side, else 64.
            flip: whether a horizontal flip preserves the class.
            augment: whether training images are varied, by crops and, with `flip`, flips; or how.
            normalization: see `Task`.

        Raises:
            LifelongError: images or labels cannot be used; the message says which, and how to fix it.
        """
        from lifelong.data.objects import no_augmentation, pair, task_of

        by = "Task.from_arrays"
        parts: dict[SplitName, tuple[Any, Any]] = {"train": (images, labels)}
        if valid is not None:
            parts["valid"] = pair(valid, "valid", by)
        if test is not None:
            parts["test"] = pair(test, "test", by)
        own = {"classes": classes, "size": size, "flip": flip, "normalization": normalization, "augmentation": no_augmentation(augment)}
        return task_of(parts, by=by, name=name, **own)

    # `Any`: a data set of any library.
    @classmethod
    @checked
    def from_dataset(
        cls,
        dataset: Any,
        *,
        classes: Sequence[str] | None = None,
        name: str | None = None,
        test: Any = None,
        valid: Any = None,
        image: str | None = None,
        label: str | None = None,
        size: ImageSize | None = None,
        flip: bool = False,
        augment: bool | Augmentation = True,
        normalization: Normalization | None = None,
    ) -> "Task":
        """Make a task of a data set: of PyTorch (a `Subset`, one of torchvision, ...), of Hugging Face, or any iterable of pairs.

        It is read once, completely. Leave out random transforms and normalization, which a run has of its own.

        Args:
            dataset: items are pairs of an image and a label, or dicts with a column for each; a `DatasetDict` gives its splits `train`,
                `validation` and `test`.
            classes: names of the classes 0, 1, ...; None: those that the data set knows, else the labels themselves.
            test, valid: data sets of these splits.
            image, label: names of the columns; None: the usual ones.
            name, size, flip, augment, normalization: see `from_arrays`.

        Raises:
            LifelongError: the data set cannot be used; the message says why, and how to fix it.
        """
        from lifelong.data.datasets import read_dataset, splits_of
        from lifelong.data.objects import no_augmentation, task_of

        by = "Task.from_dataset"
        parts = splits_of(dataset, by)
        more: dict[SplitName, Any] = {"valid": valid, "test": test}
        for split, given in more.items():
            if given is None:
                continue
            if split in parts:
                raise LifelongError(f"{by}: {split} is given, and the data set has a {split} split; give one of them")
            parts[split] = given
        read = {split: read_dataset(given, image, label, f"{by}: {split}") for split, given in parts.items()}
        named = classes if classes is not None else next((each.classes for each in read.values() if each.classes), None)
        own = {"size": size, "flip": flip, "normalization": normalization, "augmentation": no_augmentation(augment)}
        return task_of({split: (each.images, each.labels) for split, each in read.items()}, by=by, name=name, classes=named, **own)

    @property
    def given_normalization(self) -> Normalization | None:
        """Return the normalization that was given; None: it is computed from the training images."""
        return self._normalization

    @property
    def train(self) -> Split:
        """Return the images to learn from."""
        return self._split("train")

    @property
    def valid(self) -> Split:
        """Return the images for model selection; disjoint from train."""
        return self._split("valid")

    @property
    def test(self) -> Split:
        """Return the images for evaluation; disjoint from train and valid."""
        return self._split("test")

    @property
    def normalization(self) -> Normalization:
        """Return the normalization of its images; computed from the training images if none was given."""
        if self._normalization is None:
            self._normalization = statistics(self.train.images)
        return self._normalization

    def to(self, device: torch.device | str) -> "Task":
        """Return the same task with splits on `device`."""
        return Task(
            self.name,
            self.classes,
            lambda split: self._split(split).to(device),
            normalization=self._normalization,
            augmentation=self.augmentation,
        )

    def retire(self) -> list[weakref.ref[Tensor]]:
        """Release the images; any later access raises `RetiredTaskError`. The runner calls this when a task has been learned.

        Returns:
            Weak references to the images that were loaded: dead unless something still references them (see `alive`).
        """
        references = [weakref.ref(split.images) for split in self._splits.values()]
        self._splits.clear()
        self._load = self._gone
        return references

    def _gone(self, name: SplitName) -> Split:
        raise RetiredTaskError(f"task '{self.name}' is over: its {name} images may not be used any more")

    def _split(self, name: SplitName) -> Split:
        if name not in self._splits:
            self._splits[name] = self._load(name)
        return self._splits[name]


def alive(references: Sequence[weakref.ref[Tensor]]) -> bool:
    """Return whether weak references still point to something. Objects that only reference each other do not count."""
    if all(reference() is None for reference in references):
        return False  # nearly always; to look for such circles among all objects of the process takes a tenth of a second
    gc.collect()
    return any(reference() is not None for reference in references)


class RetiredTaskError(RuntimeError):
    """A method touched the data of an earlier task: a breach of the lifelong-learning setting, and a bug of that method."""


class AbsentTaskError(Exception):
    """The images of a task that was learned are not here any more."""


def statistics(images: UInt8[Tensor, "n 3 h w"]) -> Normalization:
    """Compute mean and standard deviation per channel over all pixels, scaled to [0, 1]; a constant channel gets std 1.

    Source: CTrL's `Task.compute_statistics`.
    """
    if not len(images):
        return Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    # From how often each value occurs: sums of integers are exact, whatever the order in which a device adds them, and the images
    # are not copied in wider numbers, which would be eight times their size.
    pixels = images.numel() // 3
    counts = torch.stack([torch.bincount(images[:, channel].flatten(), minlength=256) for channel in range(3)]).cpu()
    values = torch.arange(256)
    totals = (counts * values).sum(dim=1).tolist()
    squares = (counts * values.square()).sum(dim=1).tolist()
    mean = tuple(total / pixels / 255 for total in totals)
    variance = [max(square / pixels / 255**2 - m**2, 0.0) for square, m in zip(squares, mean, strict=True)]
    std = tuple(v**0.5 if v > 1e-12 else 1.0 for v in variance)
    return Normalization(mean, std)  # ty: ignore


@dataclass(frozen=True)
class TaskDescription:
    """What is known of a task before any image is loaded.

    Attributes:
        name: the task's name.
        source: where its images come from.
        classes: class names in label order.
        train, valid, test: images per split.
        image_size: height and width in pixels.
        transform: the transform of every image, in words; empty if there is none.
        notes: things a person should know, one sentence each (fewer test images than asked for, ...).
        licence: under which terms the images are given.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: int
    valid: int
    test: int
    image_size: int
    transform: str = ""
    notes: tuple[str, ...] = ()
    licence: str = ""


@runtime_checkable
class Stream(Protocol):
    """A named, lazy sequence of tasks: indexing builds a new `Task`, and nothing of it stays behind when it is let go."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Task: ...

    def __iter__(self) -> Iterator[Task]: ...

    def describe(self) -> list[TaskDescription]:
        """Describe what each task holds, without decoding an image."""
        ...

    def prepare(self) -> None:
        """Do once what reading images needs; problems with them are found here, not when a task is learned."""
        ...

    def fingerprint(self) -> str:
        """Return a checksum over everything that determines which images with which labels form which task."""
        ...
