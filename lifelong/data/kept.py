"""Objects given from Python, kept by their content in the cache of images.

So other processes find them, and a run that continues later; equal objects are kept once. The address `python:NAME@DIGEST` names what is
kept: a task's images, with how they are to be prepared.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from lifelong.data.address import Address, object_address
from lifelong.data.cache import CACHE_VARIABLE, Cache
from lifelong.data.images import RESIZE_VERSION, decode_images
from lifelong.data.objects import UNNAMED, HeldSplit, HeldTask, as_int64
from lifelong.data.problems import Findings, Problem
from lifelong.data.split_names import SPLITS, SplitName
from lifelong.data.task import Augmentation, Normalization
from lifelong.errors import LifelongError
from lifelong.settings.fields import as_lists
from lifelong.storage import Tree, read_tree, save_tree

_CHUNK = 1024  # images at a time
_FOLDER = "python"


def keep_task(held: HeldTask, cache: Cache, name: str | None = None) -> str:
    """Keep the images of a task in the cache, and return their address.

    Args:
        held: the task.
        cache: where to.
        name: of the task; None: its own.

    Raises:
        LifelongError: the cache cannot be written.
    """
    content: dict[str, Any] = {
        "classes": list(held.classes),
        "numbers": list(held.numbers),
        "size": held.size,
        "flip": held.flip,
        "normalization": None if held.normalization is None else as_lists(asdict(held.normalization)),
        "augmentation": None if held.augmentation is None else asdict(held.augmentation),
        "in_order": held.in_order,
        "notes": list(held.notes),
    }
    splits: dict[str, Tree] = {}
    told: dict[str, list[Any]] = {}
    for split, part in held.splits.items():
        pixels, contents = _hashes(part.images)
        _keep_pixels(part, pixels, held.size, cache)
        remarks = [[place, reason] for place, reason in sorted(part.remarks.items())]
        splits[split] = {"pixels": pixels, "labels": part.labels, "contents": as_int64(contents), "remarks": remarks}
        told[split] = [pixels, hashlib.sha256(part.labels.numpy().tobytes()).hexdigest(), remarks]
    return object_address(name or held.name or UNNAMED, keep_record({**content, "splits": splits}, json.dumps([content, told]), cache))


def keep_record(record: Tree, content: str, cache: Cache) -> str:
    """Keep a record by the digest of its content, and return that."""
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    file = _file(digest, cache)
    try:
        read_tree(file, owner=digest, required=True)
    except LifelongError:  # missing or damaged
        cache.write(lambda: save_tree(file, record, digest))
    return digest


def read_kept(address: Address, cache: Cache) -> dict[str, Any]:
    """Return what is kept under an address.

    Raises:
        LifelongError: it is not here.
    """
    file = _file(address.digest, cache)
    try:
        return read_tree(file, owner=address.digest, required=True).tree
    except LifelongError as error:
        raise _gone(address, cache) from error


def _file(digest: str, cache: Cache) -> Path:
    return cache.folder / _FOLDER / f"{digest}.safetensors"


def _gone(address: Address, cache: Cache) -> LifelongError:
    name = address.where.rpartition("@")[0]
    return LifelongError(
        f"'{name}' was given from Python, and its images are not, or not whole, in the cache {cache.folder}: make the same call from Python"
        f" again with equal objects, which keeps them there; or set {CACHE_VARIABLE} to the folder that has them"
    )


def _hashes(images: UInt8[Tensor, "n 3 s s"]) -> tuple[str, np.ndarray]:
    """Return a digest over images, and a 64-bit hash of each."""
    total, contents = hashlib.sha256(json.dumps(list(images.shape)).encode()), np.empty(len(images), np.uint64)
    for place, image in enumerate(images.numpy()):
        digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
        total.update(digest)
        contents[place] = int.from_bytes(digest[:8], "big")
    return total.hexdigest(), contents


def _keep_pixels(part: HeldSplit, pixels: str, size: int, cache: Cache) -> None:
    """Write images into the cache, or see that they are there whole."""
    count = len(part.images)
    for first in range(0, count, _CHUNK):
        # Reading checks the digest of each: what is damaged is written again.
        some = torch.arange(first, min(first + _CHUNK, count))
        cache.rows(_FOLDER, pixels, some, (count, size), lambda: iter(part.images.split(_CHUNK)))


class KeptPool:
    """A split of objects given from Python.

    Args:
        address: of the task.
        pool: which split of it.
        kept: what is kept of the split.
        size: height and width of its images.
        cache: where they are.
    """

    def __init__(self, address: Address, pool: SplitName, kept: Mapping[str, Any], size: int, cache: Cache) -> None:
        self.labels: Int64[Tensor, "n"] = kept["labels"]
        self._address, self._pool, self._kept, self._size, self._cache = address, pool, kept, size, cache

    def images(self, indices: Int64[Tensor, "k"], size: int) -> UInt8[Tensor, "k 3 s s"]:
        """Return some of the images; in another size than theirs they are resized, once."""
        shape, pixels = (len(self.labels), size), self._kept["pixels"]
        if size == self._size:
            return self._cache.rows(_FOLDER, pixels, indices, shape, self._missing)
        return self._cache.rows(_FOLDER, f"{pixels}-{RESIZE_VERSION}", indices, shape, lambda: self._resized(size))

    def contents(self) -> np.ndarray:
        """Return a hash of each image's pixels."""
        return self._kept["contents"].numpy().view(np.uint64)

    def fingerprint(self) -> str:
        """Return a checksum over pixels and labels."""
        return hashlib.sha256(self._kept["pixels"].encode() + self.labels.numpy().tobytes()).hexdigest()

    def findings(self, look: bool) -> Findings:
        """Return what images lost when they were read."""
        return Findings(remarks=[Problem(place, self.called(place), reason) for place, reason in self._kept["remarks"]])

    def called(self, position: int) -> str:
        """Name the image at a position."""
        return f"image {position} of {self._pool}"

    def _missing(self) -> NoReturn:
        raise _gone(self._address, self._cache)

    def _resized(self, size: int) -> Iterator[UInt8[Tensor, "n 3 s s"]]:
        for some in torch.arange(len(self.labels)).split(_CHUNK):
            squares = self.images(some, self._size).permute(0, 2, 3, 1)
            yield decode_images([square.contiguous().numpy() for square in squares], size).images


def pools_of(address: Address, record: Mapping[str, Any], cache: Cache) -> dict[SplitName, KeptPool]:
    """Return the splits of a task that is kept."""
    kept = record["splits"]
    return {split: KeptPool(address, split, kept[split], record["size"], cache) for split in SPLITS if split in kept}


def preparation(record: Mapping[str, Any]) -> tuple[Normalization | None, Augmentation | None]:
    """Return how the images of a task that is kept are to be prepared."""
    said, augmentation = record["normalization"], record["augmentation"]
    normalization = None if said is None else Normalization(tuple(said["mean"]), tuple(said["std"]))
    return normalization, None if augmentation is None else Augmentation(**augmentation)
