"""CIFAR100-10 mixed with F-CelebA: ten tasks of objects, and ten of small groups of faces that smile or do not."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lifelong.data.known_sources import CIFAR100
from lifelong.data.split_names import SPLITS, SplitName
from lifelong.data.task import NO_AUGMENTATION
from lifelong.errors import LifelongError
from lifelong.opening import read_text
from lifelong.streams.selection import Rows, Selection, SourceLabels, generator
from lifelong.streams.spec import StreamSpec, TaskSpec
from lifelong.streams.splits import HAT_NORMALIZATION, Shuffled, hold_out

ORDERS = (
    "c7 f1 f4 c2 c4 c8 c0 c9 f6 f5 f7 c6 c3 c5 f0 f2 f8 f3 c1 f9",
    "f3 f1 f5 c5 f2 c9 c6 c4 f4 c8 f0 f6 c7 c3 c1 c2 c0 f8 f7 f9",
    "c0 f1 f6 f2 c7 f0 c5 f8 c6 c8 f3 f4 c3 c2 c4 f9 f7 c9 f5 c1",
    "f9 c7 c1 c5 c3 c9 f0 f3 c8 c6 c0 f2 f6 f4 c4 f1 c2 f5 f8 f7",
    "c7 f0 c5 c0 c4 c2 f9 c6 f4 f8 c9 f2 f7 c3 c1 f6 f3 f1 c8 f5",
)
"""The published orders of seeds 0 to 4: c for ten classes of CIFAR-100, f for a group of faces.

Source: ZixuanKe/CAT, the file mixceleba_random_20.
"""

SIZES: dict[SplitName, int] = {"train": 87, "valid": 9, "test": 11}
"""Images of one F-CelebA task; together 107."""

VALID_PART = 0.1
"""The part of a listed task's training images that is for validation."""

LIST_FILE = "fceleba_10tasks.csv"
"""The list of the authors' own images, expected next to those of CelebA."""

COLUMNS = ("task", "split", "celeba_file", "smiling")
"""The columns of the list that are read."""

ALL_IMAGES = 202_599
"""The images of CelebA."""


def cifar100_fceleba(seed: int) -> StreamSpec:
    """Mix ten CIFAR-100 tasks of ten classes in their natural order with ten F-CelebA tasks of two; 32x32, no augmentation.

    Args:
        seed: 0 to 4: the published orders of the tasks; any other: a shuffle. It also decides which images are held out.

    Source: Ke, Liu and Huang, "Continual Learning of a Mixed Sequence of Similar and Dissimilar Tasks" (NeurIPS 2020), and its code.
    """
    return StreamSpec(
        "cifar100-fceleba", tuple(_task(word) for word in task_order(seed)), draw={"cifar100": Shuffled(), "celeba": FederatedFaces()}
    )


def task_order(seed: int) -> list[str]:
    """Return the order of the twenty tasks, as in `ORDERS`: the published one for seeds 0 to 4, else a shuffle."""
    if 0 <= seed < len(ORDERS):
        return [*ORDERS[seed].split()]
    words = [f"{kind}{number}" for kind in "cf" for number in range(10)]
    return [words[place] for place in generator(seed, "cifar100-fceleba", "order").permutation(len(words))]


def _task(word: str) -> TaskSpec:
    number = int(word[1:])
    things = word.startswith("c")
    return TaskSpec(
        name=f"cifar100-{number}" if things else f"celeba-{number}",
        source="cifar100" if things else "celeba",
        classes=CIFAR100[10 * number : 10 * number + 10] if things else ("not smiling", "smiling"),
        image_size=32,
        normalization=HAT_NORMALIZATION,
        augmentation=NO_AUGMENTATION,
    )


@dataclass(frozen=True)
class FederatedFaces:
    """F-CelebA: each task is 107 faces drawn without regard to class, none of them in two tasks. It ignores the numbers that tasks ask for.

    The authors' own images are taken if their list is next to the source's files and fits them; else the seed draws.

    Source: the federated CelebA of LEAF in its iid form, as CAT uses it: a task is a simulated user, not a celebrity.
    """

    def divide(self, tasks: Sequence[TaskSpec], ids: Sequence[tuple[int, ...]], held: SourceLabels, seed: int) -> list[Selection]:
        """Divide the images among the tasks; see `Draw`."""
        listed = read_list(held.folder / LIST_FILE) if held.folder is not None and (held.folder / LIST_FILE).is_file() else None
        if listed is None:
            return draw_groups(tasks, held, seed, f"there is no {LIST_FILE} next to the images of '{held.name}'")
        problem = misfit(listed, held)
        if problem:
            return draw_groups(tasks, held, seed, f"{LIST_FILE} does not fit '{held.name}': {problem}")
        return take_listed(tasks, held, listed, seed)


def draw_groups(tasks: Sequence[TaskSpec], held: SourceLabels, seed: int, why: str) -> list[Selection]:
    """Give each task the next images of one shuffle; validation and test images come from the source's own splits if it has them.

    Args:
        why: why the authors' images are not used.

    Raises:
        LifelongError: the source has too few images.
    """
    pools = {split: split if held.has(split) else "train" for split in SPLITS}
    orders = {}
    for pool, labels in held.labels.items():
        need = len(tasks) * sum(count for split, count in SIZES.items() if pools[split] == pool)
        if len(labels) < need:
            raise LifelongError(
                f"source '{held.name}' has {len(labels)} images in its {pool} split, but {len(tasks)} F-CelebA tasks need {need};"
                " give the whole data set"
            )
        orders[pool] = generator(seed, held.name, "faces", pool).permutation(len(labels))
    result = []
    for number in range(len(tasks)):
        rows: dict[SplitName, Rows] = {}
        used = {pool: number * sum(count for split, count in SIZES.items() if pools[split] == pool) for pool in orders}
        for split, count in SIZES.items():
            pool = pools[split]
            rows[split] = orders[pool][used[pool] : used[pool] + count]
            used[pool] += count
        result.append(_taken(rows, held, f"Images drawn by the seed, not those of the authors: {why}." if number == 0 else ""))
    return result


@dataclass(frozen=True)
class ListedTask:
    """The images of one task in the authors' list.

    Attributes:
        train, test: numbers of CelebA's files, from 1.
        smiling: whether the person smiles, by number.
    """

    train: Rows
    test: Rows
    smiling: dict[int, bool]


def read_list(path: Path) -> dict[str, ListedTask]:
    """Read the authors' list: for each image its task (`celeba-0`), split (train or test), file (`000001.jpg`) and 0 or 1.

    Raises:
        LifelongError: it cannot be read; the message names the line in the file.
    """
    groups: dict[str, dict[str, list[int]]] = {}
    smiling: dict[int, bool] = {}
    try:
        with io.StringIO(read_text(path), newline="") as opened:
            reader = csv.DictReader(opened)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise LifelongError(f"{path}: the column '{missing[0]}' is missing; its header must name {', '.join(COLUMNS)}")
            for row in reader:
                task, split, file, smiles = (row[column] or "" for column in COLUMNS)
                name = file.removesuffix(".jpg")
                number = int(name) if name.isascii() and name.isdigit() else 0
                if split not in ("train", "test") or smiles not in ("0", "1") or not 1 <= number <= ALL_IMAGES or number in smiling:
                    what = "an image is listed twice" if number in smiling else "a row must be like celeba-0,train,000001.jpg,0"
                    raise LifelongError(f"{path}, line {reader.line_num}: {what}; correct it, or remove the file to have images drawn")
                groups.setdefault(task, {"train": [], "test": []})[split].append(number)
                smiling[number] = smiles == "1"
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LifelongError(f"cannot read {path}: {error}") from error
    return {
        task: ListedTask(
            np.array(split["train"]), np.array(split["test"]), {number: smiling[number] for number in split["train"] + split["test"]}
        )
        for task, split in groups.items()
    }


def misfit(listed: dict[str, ListedTask], held: SourceLabels) -> str:
    """Say why the list does not fit a source; empty if it does: all of CelebA in file order, with the labels of the list."""
    if set(held.labels) != {"train"}:
        return f"it has the splits {', '.join(held.labels)}, not all images in one"
    labels = held.labels["train"]
    if len(labels) != ALL_IMAGES:
        return f"it has {len(labels)} images, not the {ALL_IMAGES} of CelebA"
    smiling = held.classes.index("smiling")
    told = {number: smiles for task in listed.values() for number, smiles in task.smiling.items()}
    wrong = sum((labels[number - 1] == smiling) != smiles for number, smiles in told.items())
    return f"{wrong} of {len(told)} labels are others, so its images stand in another order" if wrong else ""


def take_listed(tasks: Sequence[TaskSpec], held: SourceLabels, listed: dict[str, ListedTask], seed: int) -> list[Selection]:
    """Give each task the authors' images.

    Raises:
        LifelongError: the list lacks a task.
    """
    result = []
    for number, task in enumerate(tasks):
        group = listed.get(task.name)
        if group is None or len(group.train) < 1 / VALID_PART or not len(group.test):
            raise LifelongError(f"{LIST_FILE}: too few images of task '{task.name}'; give the whole list, or remove it")
        valid, train = hold_out(group.train - 1, VALID_PART, seed)
        rows: dict[SplitName, Rows] = {"train": train, "valid": valid, "test": group.test - 1}
        result.append(_taken(rows, held, f"The authors' images, from {LIST_FILE}." if number == 0 else ""))
    return result


def _taken(rows: dict[SplitName, Rows], held: SourceLabels, note: str) -> Selection:
    ids = {split: held.labels[split if held.has(split) else "train"][part] for split, part in rows.items()}
    return Selection(rows, ids, (note,) if note else ())
