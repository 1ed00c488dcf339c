"""Small made copies of the sources that the benchmarks draw from, in the files' own schema; every image is another one."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lifelong.data.sources import Sources
from lifelong.data.split_names import SplitName
from lifelong.data.task import Stream
from lifelong.streams.selection import SourceLabels
from tests.parquet_files import numbered, png, write_parquet


def made_source(
    data: Path, name: str, per_class: dict[str, int], classes: int, *, column: str = "label", names: Sequence[str] | None = None
) -> Path:
    """`data/name` with a file for each split, its classes mixed; numbers of images go on from split to split."""
    start = 0
    for split, count in per_class.items():
        labels = np.random.default_rng(len(split)).permutation(np.repeat(np.arange(classes), count))
        images = [png(pixels) for pixels in numbered(len(labels), 4, start)]
        start += len(labels)
        write_parquet(data / name / f"{split}-00000.parquet", images, {column: labels}, names={column: names} if names else None)
    return data / name


def holdings(name: str, classes: Sequence[str], per_class: dict[str, int]) -> SourceLabels:
    """Labels without images: the classes mixed."""
    chance = np.random.default_rng(0)
    mixed = {split: chance.permutation(np.repeat(np.arange(len(classes)), count)) for split, count in per_class.items()}
    return SourceLabels(name, tuple(classes), mixed)  # ty: ignore


def sources(data: Path) -> Sources:
    """Opens what is in a folder, with a cache next to it."""
    return Sources(data, cache=data / "cache")


def check_apart(stream: Stream) -> dict[SplitName, int]:
    """By the pixels: no image of any task's train split is one of any task's valid or test split, nor a valid image a test one.

    Returns:
        The number of images of each split over all tasks.
    """
    seen: dict[SplitName, set[bytes]] = {"train": set(), "valid": set(), "test": set()}
    counts: dict[SplitName, int] = dict.fromkeys(seen, 0)
    for task in stream:
        for name, split in (("train", task.train), ("valid", task.valid), ("test", task.test)):
            seen[name] |= {hashlib.blake2b(pixels.tobytes(), digest_size=16).digest() for pixels in split.images.numpy()}
            counts[name] += len(split)
    assert not seen["train"] & seen["valid"]
    assert not seen["train"] & seen["test"]
    assert not seen["valid"] & seen["test"]
    return counts
