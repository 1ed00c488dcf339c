"""Fixed pools, as in CTrL: what may be trained on and what may be validated on is settled once per source, for all streams and seeds.

Every task then draws from the pools for itself. So two tasks on the same classes may train on some of the same images, but no image
is for training in one and for validation in another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lifelong.data.split_names import IN_WORDS, SPLITS, SplitName
from lifelong.errors import LifelongError
from lifelong.streams.selection import Rows, Selection, SourceLabels, generator
from lifelong.streams.spec import TaskSpec


@dataclass(frozen=True)
class FixedPools:
    """Each class's training images are permuted; the last ones are for validation in every task, the others for training.

    A task gets as many images per class and split as it asks for, drawn without replacement; the whole pool where that is smaller.
    Of a class with few training images (a reduced copy of a source) at most half are for validation. A source with a validation
    split of its own keeps it.

    Attributes:
        valid_per_class: validation images per class.
        order: the classes in the order in which they are permuted; classes that it does not name follow in the source's label order.
        seed: of the one generator that permutes all classes of a source, one after the other.

    Source: CTrL's image_dataset_tree (`split_seed`, `val_size`; the order is that of its taxonomies).
    """

    valid_per_class: int
    order: tuple[str, ...] = ()
    seed: int = 17

    def divide(self, tasks: Sequence[TaskSpec], ids: Sequence[tuple[int, ...]], held: SourceLabels, seed: int) -> list[Selection]:
        """Divide the images among the tasks; see `Draw`."""
        pools = self.pools(held)
        return [_take(task, wanted, pools, held, seed) for task, wanted in zip(tasks, ids, strict=True)]

    def pools(self, held: SourceLabels) -> dict[SplitName, list[Rows]]:
        """Return the pools of a source: for each split and class id, positions in the source's pool of that name (see `Selection`).

        Args:
            held: what the source holds.

        Raises:
            LifelongError: it has no test images.
        """
        if not held.has("test"):
            raise LifelongError(f"source '{held.name}' has no test split, and this stream has no other test images; add its test images")
        everything = range(len(held.classes))
        pools = {split: [held.rows(split if held.has(split) else "train", number) for number in everything] for split in SPLITS}
        if not held.has("valid"):
            chance = np.random.RandomState(self.seed)
            place = {name: number for number, name in enumerate(self.order)}
            for number in sorted(everything, key=lambda each: place.get(held.classes[each], len(place))):
                rows = pools["train"][number]
                mixed = rows[chance.permutation(len(rows))]
                cut = len(rows) - min(self.valid_per_class, len(rows) // 2)
                pools["train"][number], pools["valid"][number] = mixed[:cut], mixed[cut:]
        return pools


def _take(task: TaskSpec, wanted: tuple[int, ...], pools: dict[SplitName, list[Rows]], held: SourceLabels, seed: int) -> Selection:
    """Select the images of one task."""
    rows: dict[SplitName, Rows] = {}
    ids: dict[SplitName, np.ndarray] = {}
    notes: list[str] = []
    for split in SPLITS:
        asked = {"train": task.train_per_class, "valid": task.valid_per_class, "test": task.test_per_class}[split]
        parts = [_some(task, split, held.classes[number], pools[split][number], asked, seed) for number in wanted]
        sizes = [len(part) for part in parts]
        rows[split] = np.concatenate(parts)
        ids[split] = np.repeat(wanted, sizes)
        if asked is not None and min(sizes) < asked:
            got = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
            notes.append(f"{asked} {IN_WORDS[split]} images per class were asked for; {got} are there.")
    return Selection(rows, ids, tuple(notes))


def _some(task: TaskSpec, split: SplitName, name: str, pool: Rows, asked: int | None, seed: int) -> Rows:
    """Select the images of one class."""
    if not len(pool):
        raise LifelongError(
            f"task '{task.name}', class '{name}' of source '{task.source}': there is no {IN_WORDS[split]} image; a class needs at least 2"
            " training images and 1 test image"
        )
    if asked is None or asked >= len(pool):
        return pool
    return generator(seed, task.name, name, split).choice(pool, asked, replace=False)
