"""Describe which labels a source holds, and which of its images a task selects."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lifelong.data.sources import Source
from lifelong.data.split_names import SPLITS, SplitName

Rows = np.ndarray
"""Positions of images in a pool of a source, int64."""


@dataclass(frozen=True)
class SourceLabels:
    """The labels of a source; enough to decide which image goes where.

    Attributes:
        name: the source's name.
        classes: its class names in label order.
        labels: for each pool that it has, the class id of each image. It always has `train`.
        folder: of its files; None if it has none.
    """

    name: str
    classes: tuple[str, ...]
    labels: Mapping[SplitName, np.ndarray]
    folder: Path | None = None

    @classmethod
    def of(cls, source: Source) -> "SourceLabels":
        """Collect the labels of a source; no image is decoded."""
        labels = {pool: source.labels(pool).numpy() for pool in SPLITS if source.has_split(pool)}
        return cls(source.name, source.classes, labels, source.folder)

    def has(self, pool: SplitName) -> bool:
        """Return whether the source has a validation or a test split of its own."""
        return pool in self.labels

    def rows(self, pool: SplitName, number: int) -> Rows:
        """Return the images of a class in a pool, in the source's order."""
        return np.flatnonzero(self.labels[pool] == number)


@dataclass(frozen=True)
class Selection:
    """The images that one task gets.

    Attributes:
        rows: for each split, positions in the source's pool of that name; in `train` where the source has no such pool.
        ids: for each split, the class ids of those images in the source.
        notes: what a person should know of it, one sentence each.
    """

    rows: Mapping[SplitName, Rows]
    ids: Mapping[SplitName, np.ndarray]
    notes: tuple[str, ...] = ()


def generator(*words: str | int) -> np.random.Generator:
    """Create a random generator that depends on nothing but the words."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:16], "big"))
