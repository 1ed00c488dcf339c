"""The images of one split of a source: labels at once, images when asked for, at the size asked for."""

import hashlib
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from lifelong.data.cache import Cache
from lifelong.data.images import RESIZE_VERSION, decode_images, square_grey
from lifelong.data.parquet import ParquetSplit, content_hash


@runtime_checkable
class Pool(Protocol):
    """The images of one split of a source.

    Attributes:
        labels: the class id of each image.
    """

    labels: Int64[Tensor, "n"]

    def images(self, indices: Int64[Tensor, "k"], size: int) -> UInt8[Tensor, "k 3 s s"]:
        """Some of the images as RGB squares."""
        ...

    def contents(self) -> np.ndarray:
        """A 64-bit hash of each stored image, uint64 of shape (n,)."""
        ...

    def fingerprint(self) -> str:
        """A checksum of the stored images and labels."""
        ...


class FilePool:
    """A split in parquet files, decoded once into the cache.

    Args:
        name: what its cache file is called by.
        split: its files.
        labels: the class id of each row.
        cache: where decoded images go.
        squeeze: whether oblong images are squeezed into squares, instead of cut.
    """

    def __init__(self, name: str, split: ParquetSplit, labels: Int64[Tensor, "n"], cache: Cache, squeeze: bool = False) -> None:
        self.labels = labels
        self._name = name
        self._split = split
        self._cache = cache
        self._squeeze = squeeze

    def images(self, indices: Int64[Tensor, "k"], size: int) -> UInt8[Tensor, "k 3 s s"]:
        """Some of the images as RGB squares; the first call at a size decodes the whole split into the cache."""
        key = f"{self.fingerprint()}-{RESIZE_VERSION}{'-squeezed' * self._squeeze}"
        return self._cache.rows(self._name, key, indices, (self._split.rows, size), lambda: self._decode(size))

    def contents(self) -> np.ndarray:
        """A hash of each image's encoded bytes; no image is decoded, and the second time no file read."""
        return self._split.contents(self._cache)

    def fingerprint(self) -> str:
        """A checksum over the files' bytes."""
        return self._split.checksum(self._cache)

    def _decode(self, size: int) -> Iterator[UInt8[Tensor, "n 3 s s"]]:
        for encoded, where in self._split.images():
            yield decode_images(encoded, size, where, self._squeeze)


class DigitsPool:
    """The 1,797 handwritten digits that come with scikit-learn, grey 0..16 scaled to 0..255. They have no test split of their own."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        self.labels: Int64[Tensor, "n"] = torch.from_numpy(digits.target.astype(np.int64))
        self._grey = (digits.images * (255 / 16)).round().astype(np.uint8)

    def images(self, indices: Int64[Tensor, "k"], size: int) -> UInt8[Tensor, "k 3 s s"]:
        """Some of the digits as RGB squares."""
        return square_grey(self._grey[indices.numpy()], size)

    def contents(self) -> np.ndarray:
        """A hash of each digit's pixels."""
        return np.array([content_hash(pixels.tobytes()) for pixels in self._grey], dtype=np.uint64)

    def fingerprint(self) -> str:
        """A checksum over pixels and labels."""
        return hashlib.sha256(self._grey.tobytes() + self.labels.numpy().tobytes()).hexdigest()
