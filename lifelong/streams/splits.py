"""The classical benchmarks: one source cut into tasks by its classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lifelong.data.known_sources import CIFAR10, MINI_IMAGENET
from lifelong.data.split_names import SPLITS, SplitName
from lifelong.data.task import IMAGENET, NO_AUGMENTATION, Augmentation, Normalization
from lifelong.errors import LifelongError
from lifelong.streams.selection import Rows, Selection, SourceLabels
from lifelong.streams.spec import StreamSpec, TaskSpec

CIFAR100_NORMALIZATION = Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
CIFAR100_AUGMENTATION = Augmentation(crop=4, flip=True, brightness=63 / 255)

HAT_NORMALIZATION = Normalization((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255))
"""Of 32x32 images in the code of HAT's line: CAT, and PAR's older benchmarks."""

SUPERCLASSES = {
    "vehicles 1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles 2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
    "aquatic mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit and vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household electrical devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large man-made outdoor things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large natural outdoor scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large omnivores and herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium-sized mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
}
"""CIFAR-100's twenty superclasses with their classes, in the order of PAR's tasks."""


@dataclass(frozen=True)
class Shuffled:
    """Use the first part of a shuffle of a task's training images for validation, whatever their classes and the numbers asked for.

    The shuffle is that of the authors' code: equal seeds hold out equal images wherever the source's files keep its original order.

    Attributes:
        part: the share for validation if the source has no validation split of its own.

    Source: the data loaders of HAT's line: ZixuanKe/CAT, mixceleba.py, and WenjinW/PAR, cifar10.py.
    """

    part: float = 0.1

    def divide(self, tasks: Sequence[TaskSpec], ids: Sequence[tuple[int, ...]], held: SourceLabels, seed: int) -> list[Selection]:
        """Give each task all images of its classes; see `Draw`."""
        _check_apart(tasks, ids, held)
        if not held.has("test"):
            raise LifelongError(f"task '{tasks[0].name}': source '{held.name}' has no test split; add its test-*.parquet")
        return [self._one(task, wanted, held, seed) for task, wanted in zip(tasks, ids, strict=True)]

    def _one(self, task: TaskSpec, wanted: tuple[int, ...], held: SourceLabels, seed: int) -> Selection:
        rows: dict[SplitName, Rows] = {pool: np.flatnonzero(np.isin(labels, wanted)) for pool, labels in held.labels.items()}
        if not held.has("valid"):
            rows["valid"], rows["train"] = hold_out(rows["train"], self.part, seed)
        _check_some(task, rows, f"source '{held.name}'")
        labels = {split: held.labels[split if held.has(split) else "train"][rows[split]] for split in SPLITS}
        return Selection(rows, labels)


@dataclass(frozen=True)
class InOrder:
    """Cut each class in the order of the source's files into train, validation and test, whatever the numbers asked for.

    Attributes:
        train, valid, test: the relative sizes of the parts. A split that the source has itself is not cut off.
    """

    train: int = 8
    valid: int = 1
    test: int = 1

    def divide(self, tasks: Sequence[TaskSpec], ids: Sequence[tuple[int, ...]], held: SourceLabels, seed: int) -> list[Selection]:
        """Give each task all images of its classes; the seed has no effect; see `Draw`."""
        _check_apart(tasks, ids, held)
        return [self._one(task, wanted, held) for task, wanted in zip(tasks, ids, strict=True)]

    def _one(self, task: TaskSpec, wanted: tuple[int, ...], held: SourceLabels) -> Selection:
        parts = [self._class(task, number, held) for number in wanted]
        rows = {split: np.concatenate([part[split] for part in parts]) for split in SPLITS}
        return Selection(rows, {split: np.repeat(wanted, [len(part[split]) for part in parts]) for split in SPLITS})

    def _class(self, task: TaskSpec, number: int, held: SourceLabels) -> dict[SplitName, Rows]:
        own = [pool for pool in SPLITS[1:] if held.has(pool)]
        cut = [split for split in SPLITS if split not in own]
        pool = held.rows("train", number)
        ends = np.cumsum([0, *(getattr(self, split) for split in cut)])
        places = [round(len(pool) * int(end) / int(ends[-1])) for end in ends]
        rows: dict[SplitName, Rows] = {split: pool[low:high] for split, (low, high) in zip(cut, pairwise(places), strict=True)}
        rows |= {split: held.rows(split, number) for split in own}
        _check_some(task, rows, f"class '{held.classes[number]}' of source '{held.name}'")
        return rows


def hold_out(rows: Rows, part: float, seed: int) -> tuple[Rows, Rows]:
    """Split rows into the first part of a shuffle by `np.random.RandomState(seed)`, rounded down, and the rest."""
    order = np.arange(len(rows))
    np.random.RandomState(seed).shuffle(order)
    count = int(part * len(rows))
    return rows[order[:count]], rows[order[count:]]


def _check_apart(tasks: Sequence[TaskSpec], ids: Sequence[tuple[int, ...]], held: SourceLabels) -> None:
    """Check that no class is asked for twice: all its images go to one task."""
    owner: dict[int, str] = {}
    for task, wanted in zip(tasks, ids, strict=True):
        for number in wanted:
            if number in owner:
                word = held.classes[number]
                raise LifelongError(f"task '{task.name}': class '{word}' of source '{held.name}' is already used by task '{owner[number]}'")
            owner[number] = task.name


def _check_some(task: TaskSpec, rows: dict[SplitName, Rows], what: str) -> None:
    for split in SPLITS:
        if not len(rows[split]):
            total = sum(map(len, rows.values()))
            raise LifelongError(f"task '{task.name}': {what} has too few images ({total}) to give any to {split}; give the whole data set")


def cifar100_order(seed: int) -> list[int]:
    """Return the order of the 100 classes in PAR's runs with a seed.

    Source: WenjinW/PAR, dataloaders/cifar100.py: the global generator deals a permutation of the 50,000 training images first,
    then shuffles the classes.
    """
    chance = np.random.RandomState(seed)
    chance.permutation(50_000)
    return _shuffled(chance, 100)


def cifar10_order(seed: int) -> list[int]:
    """Return the order of the five pairs of classes in PAR's runs with a seed.

    Source: WenjinW/PAR, dataloaders/cifar10.py: scikit-learn's `shuffle`, which is a shuffle of the positions.
    """
    return _shuffled(np.random.RandomState(seed), 5)


def miniimagenet_order(seed: int) -> list[int]:
    """Return the order of the 100 classes in PAR's runs with a seed, as positions in `MINI_IMAGENET`.

    Source: WenjinW/PAR, dataloaders/miniimagenet.py.
    """
    return _shuffled(np.random.RandomState(seed), 100)


def _shuffled(chance: np.random.RandomState, count: int) -> list[int]:
    order = list(range(count))
    chance.shuffle(order)
    return order


def cifar100_10(seed: int) -> StreamSpec:
    """Specify CIFAR100-10: ten tasks of ten classes; a tenth of each class's training images is for validation.

    Args:
        seed: decides the order of the classes.

    Source: PAR, section 4.1, and its public code.
    """
    return _cifar100_blocks("cifar100-10", 10, seed)


def cifar100_20(seed: int) -> StreamSpec:
    """Specify CIFAR100-20: twenty tasks of five classes, in the same order of classes as `cifar100_10`, and prepared like it.

    Args:
        seed: decides the order of the classes.

    Source: PAR's public code.
    """
    return _cifar100_blocks("cifar100-20", 5, seed)


def cifar100_coarse(seed: int) -> StreamSpec:
    """Specify CIFAR100-coarse: one task for each of CIFAR-100's twenty superclasses, with its five classes in alphabetical order.

    Args:
        seed: not used here; it decides which images are held out for validation.

    Source: PAR's public code.
    """
    return StreamSpec("cifar100-coarse", tuple(_cifar100_task(name.replace(" ", "-"), classes) for name, classes in SUPERCLASSES.items()))


def _cifar100_blocks(name: str, size: int, seed: int) -> StreamSpec:
    order = cifar100_order(seed)
    blocks = (tuple(order[first : first + size]) for first in range(0, 100, size))
    return StreamSpec(name, tuple(_cifar100_task(f"cifar100-{number}", block) for number, block in enumerate(blocks)))


def _cifar100_task(name: str, classes: tuple[str | int, ...]) -> TaskSpec:
    return TaskSpec(
        name=name,
        source="cifar100",
        classes=classes,
        valid_fraction=0.1,
        image_size=32,
        normalization=CIFAR100_NORMALIZATION,
        augmentation=CIFAR100_AUGMENTATION,
    )


def cifar10_5(seed: int) -> StreamSpec:
    """Specify CIFAR10-5: five tasks of two classes; a tenth of each task's training images is for validation; no augmentation.

    Args:
        seed: decides the order of the tasks and which images are held out.

    Source: PAR's public code, after that of HAT.
    """
    tasks = (
        TaskSpec(
            name=f"{CIFAR10[2 * pair]}-{CIFAR10[2 * pair + 1]}",
            source="cifar10",
            classes=CIFAR10[2 * pair : 2 * pair + 2],
            image_size=32,
            normalization=HAT_NORMALIZATION,
            augmentation=NO_AUGMENTATION,
        )
        for pair in cifar10_order(seed)
    )
    return StreamSpec("cifar10-5", tuple(tasks), draw={"cifar10": Shuffled()})


def miniimagenet_20(seed: int) -> StreamSpec:
    """Specify MiniImageNet-20: twenty tasks of five classes, 84x84, no augmentation; 480, 60 and 60 images per class in file order.

    Args:
        seed: decides the order of the classes.

    Source: PAR, section 4.1, and its public code.
    """
    order = miniimagenet_order(seed)
    tasks = (
        TaskSpec(
            name=f"miniimagenet-{number}",
            source="mini_imagenet",
            classes=tuple(MINI_IMAGENET[position] for position in order[5 * number : 5 * number + 5]),
            image_size=84,
            normalization=IMAGENET,
            augmentation=NO_AUGMENTATION,
        )
        for number in range(20)
    )
    return StreamSpec("miniimagenet-20", tuple(tasks), draw={"mini_imagenet": InOrder()})
