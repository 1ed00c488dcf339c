"""Sources of the full official sizes that hold labels only: every stream can be drawn from them anywhere, and no image is needed.

Classes are mixed by a fixed permutation, so rows are not those of the true files; sizes of classes are.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lifelong.data.known_sources import CIFAR10, CIFAR100, DIGITS, DTD, FASHION, KNOWN_SOURCES, MINI_IMAGENET
from lifelong.data.sources import Source, Sources

COUNTS: dict[str, tuple[Sequence[str], Sequence[int], Sequence[int]]] = {
    # name: (classes, training images of each class, test images of each)
    "cifar10": (CIFAR10, [5000] * 10, [1000] * 10),
    "cifar100": (CIFAR100, [500] * 100, [100] * 100),
    "mnist": (
        DIGITS,
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
    "fashion_mnist": (FASHION, [6000] * 10, [1000] * 10),
    "svhn": (
        DIGITS,
        [4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659],
        [1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595],
    ),
    "dtd": (DTD, [80] * 47, [40] * 47),
    "mini_imagenet": (MINI_IMAGENET, [600] * 100, []),
    "celeba": (("not smiling", "smiling"), [104930, 97669], []),
}


class Labels:
    """A pool of labels; each of its images is another one."""

    def __init__(self, name: str, counts: Sequence[int]) -> None:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        mixed = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
        self.labels = torch.from_numpy(mixed.astype(np.int64))
        self._name, self._first = name, np.uint64(seed) << np.uint64(32)

    def images(self, indices, size):
        raise AssertionError("no image is to be asked for")

    def contents(self) -> np.ndarray:
        return self._first + np.arange(len(self.labels), dtype=np.uint64)

    def fingerprint(self) -> str:
        return self._name


class FullSources(Sources):
    """Opens the sources above; the embedded digits are what they are."""

    def open(self, name: str, base: Path | None = None) -> Source:
        if name not in COUNTS:
            return super().open(name, base)
        if (name, None) not in self._opened:
            classes, train, test = COUNTS[name]
            pools = {"train": Labels(f"{name} train", train)} | ({"test": Labels(f"{name} test", test)} if test else {})
            self._opened[name, None] = Source(name, tuple(classes), KNOWN_SOURCES[name].mirror, KNOWN_SOURCES[name].licence, pools)  # ty: ignore
        return self._opened[name, None]
