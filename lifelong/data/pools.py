"""The images of one split of a source: labels at once, images when asked for, at the size asked for."""

import hashlib
import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from lifelong.data.cache import Cache
from lifelong.data.decoding import RESIZE_VERSION
from lifelong.data.images import decode_images, square_grey
from lifelong.data.parquet import content_hash
from lifelong.data.problems import Findings, Problem, Rows, look_at, remember, remembered, remembered_in, unusable
from lifelong.data.split_names import SplitName
from lifelong.errors import LifelongError

log = logging.getLogger(__name__)


@runtime_checkable
class Pool(Protocol):
    """The images of one split of a source.

    Attributes:
        labels: the class id of each image.
    """

    labels: Int64[Tensor, "n"]

    def images(self, indices: Int64[Tensor, "k"], size: int) -> UInt8[Tensor, "k 3 s s"]:
        """Return some of the images as RGB squares."""
        ...

    def contents(self) -> np.ndarray:
        """Return a 64-bit hash of each stored image, uint64 of shape (n,)."""
        ...

    def fingerprint(self) -> str:
        """Return a checksum of the stored images and labels."""
        ...


class FilePool:
    """A split in files, decoded once into the cache; `notes` says what was left out of it.

    Args:
        source: the name of its source.
        pool: which split of it.
        split: its files.
        labels: the class id of each row.
        cache: where decoded images go.
        squeeze: whether to squeeze oblong images into squares, instead of cropping them.
        skip_broken: leave out the images that cannot be used; this checks every image now, unless that was done before.
        only: which of the rows are of this split, bool of shape (rows,); None: all of them.

    Raises:
        LifelongError: no image is left.
    """

    def __init__(
        self,
        source: str,
        pool: SplitName,
        split: Rows,
        labels: Int64[Tensor, "n"],
        cache: Cache,
        *,
        squeeze: bool = False,
        skip_broken: bool = False,
        only: np.ndarray | None = None,
    ) -> None:
        self.notes: tuple[str, ...] = ()
        self._name = f"'{source}' ({pool})"
        self._kept_as = f"{split.place.name}-{pool}"
        self._split = split
        self._cache = cache
        self._squeeze = squeeze
        self._kept = np.ones(split.rows, dtype=bool) if only is None else only.copy()
        if skip_broken:
            self._leave_out(look_at(split, cache, self._sum).among(self._kept).problems)
        self.labels = labels[torch.from_numpy(self._kept)]

    def images(self, indices: Int64[Tensor, "k"], size: int) -> UInt8[Tensor, "k 3 s s"]:
        """Return some of the images as RGB squares; the first call at a size decodes the whole split into the cache."""
        key = self._key(self._kept)
        return self._cache.rows(self._kept_as, key, indices, (len(self.labels), size), lambda: self._decode(size))

    def traces(self, size: int) -> list[Path]:
        """Return the files of the cache that hold these images, broken ones left out or not, or digests of their files.

        Args:
            size: height and width in pixels of decoded images.
        """
        found = remembered(self._split, self._cache, self._sum)
        sound = self._kept.copy()
        sound[[problem.row for problem in (found or Findings()).problems]] = False
        kept_as = [self._cache.images_file(self._kept_as, self._key(kept), int(kept.sum()), size) for kept in (self._kept, sound)]
        return list(dict.fromkeys([*kept_as, remembered_in(self._split, self._cache, self._sum), *self._split.sums(self._cache)]))

    def contents(self) -> np.ndarray:
        """Return a hash of each image's encoded bytes; no image is decoded, and after the first call no file is read."""
        return self._split.contents(self._cache)[self._kept]

    def findings(self, look: bool) -> Findings | None:
        """Return the problems and remarks about single images.

        Args:
            look: whether to check every image now, if that was never done; else the answer may be None.
        """
        found = look_at(self._split, self._cache, self._sum) if look else remembered(self._split, self._cache, self._sum)
        return None if found is None else found.among(self._kept)

    def called(self, position: int) -> str:
        """Name the image at a position."""
        return self._split.called(int(np.flatnonzero(self._kept)[position]))

    def fingerprint(self) -> str:
        """Return a checksum over the files' bytes as first read, and over which rows are left out."""
        return self._fingerprint(self._kept)

    def _fingerprint(self, kept: np.ndarray) -> str:
        return self._sum if kept.all() else hashlib.sha256(self._sum.encode() + kept.tobytes()).hexdigest()

    def _key(self, kept: np.ndarray) -> str:
        return f"{self._fingerprint(kept)}-{RESIZE_VERSION}{'-squeezed' * self._squeeze}"

    @cached_property
    def _sum(self) -> str:
        return self._split.checksum(self._cache)

    def _leave_out(self, problems: list[Problem]) -> None:
        if not problems:
            return
        count = int(self._kept.sum())
        self._kept[[problem.row for problem in problems]] = False
        if not self._kept.any():
            raise LifelongError(f"{unusable(problems, count, self._name, self._split.place)}; none is left; repair them")
        left_out = unusable(problems, count, self._name, and_so=" and are left out")
        self.notes = (f"{left_out}.",)
        log.warning("%s", left_out)
        log.info("left out of %s: %s", self._name, "; ".join(map(str, problems)))

    def _decode(self, size: int) -> Iterator[UInt8[Tensor, "n 3 s s"]]:
        """Decode all images that are kept; find all unusable ones before raising an error."""
        found = Findings()
        first = 0
        for encoded, where in self._split.images():
            kept = np.flatnonzero(self._kept[first : first + len(encoded)])
            images, problems, remarks = decode_images([encoded[position] for position in kept], size, self._squeeze)
            found.add((first + kept).tolist(), lambda place, kept=kept, where=where: where(int(kept[place])), problems, remarks)
            first += len(encoded)
            if not found.problems:
                yield images
        changed = self._split.checksum(self._cache) != self._sum
        if self._kept.all() and not changed:
            remember(self._split, self._cache, self._sum, found)
        if found.problems:
            raise LifelongError(
                f"{unusable(found.problems, int(self._kept.sum()), self._name, self._split.place)};"
                " repair or remove them, or leave them out with --skip-broken"
            )
        if changed:
            raise LifelongError(f"{self._split.place}: files changed while they were read; run again")


class DigitsPool:
    """The 1,797 embedded handwritten digits, grey 0..16 scaled to 0..255. They have no test split of their own.

    Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998); `digits.txt` says more, with the licence.
    """

    def __init__(self) -> None:
        with np.load(Path(__file__).with_name("digits.npz")) as kept:
            self.labels: Int64[Tensor, "n"] = torch.from_numpy(kept["labels"].astype(np.int64))
            self._grey = (kept["images"] * (255 / 16)).round().astype(np.uint8)

    def images(self, indices: Int64[Tensor, "k"], size: int) -> UInt8[Tensor, "k 3 s s"]:
        """Return some of the digits as RGB squares."""
        return square_grey(self._grey[indices.numpy()], size)

    def contents(self) -> np.ndarray:
        """Return a hash of each digit's pixels."""
        return self._contents

    @cached_property
    def _contents(self) -> np.ndarray:
        return np.array([content_hash(pixels.tobytes()) for pixels in self._grey], dtype=np.uint64)

    def fingerprint(self) -> str:
        """Return a checksum over pixels and labels."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(self._grey.tobytes() + self.labels.numpy().tobytes()).hexdigest()
