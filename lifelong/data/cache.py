"""Decoded images kept on the disk, so that no image is decoded twice and no more of them is read than asked for."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from lifelong.errors import LifelongError
from lifelong.opening import open_regular, read_json
from lifelong.storage import write_file, write_text

log = logging.getLogger(__name__)

CACHE_VARIABLE = "LIFELONG_CACHE"


def cache_folder() -> Path:
    """Where decoded images are kept: `LIFELONG_CACHE`, else `~/.cache/lifelong`."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "lifelong"


class Cache:
    """A folder of decoded images and of the checksums of the files they came from.

    Args:
        folder: made when something is first written to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sums = folder / "checksums.json"

    def checksum(self, files: Sequence[Path], names: Sequence[str] | None = None) -> str:
        """A sha256 over the names, sizes and bytes of files; remembered for as long as size and times of a file stay the same.

        Args:
            files: in order.
            names: what they are known by; None: the last part of their paths.
        """
        total = hashlib.sha256()
        known_by = names if names is not None else [file.name for file in files]
        for name, (size, digest) in zip(known_by, self.digests(files), strict=True):
            total.update(json.dumps([name, size, digest]).encode())
        return total.hexdigest()

    def digests(self, files: Sequence[Path]) -> list[tuple[int, str]]:
        """The size and the sha256 of each file, remembered."""
        known = _remembered(self._sums)
        found, news = [], False
        folders: dict[str, str] = {}  # resolved once for all files in it
        for file in files:
            try:
                mark = _mark(file)
                folder, name = os.path.split(file)
                if folder not in folders:
                    folders[folder] = os.path.realpath(folder)
                path = os.path.join(folders[folder], name)
                entry = known.get(path)
                if not (isinstance(entry, list) and len(entry) == 4 and entry[:3] == mark):
                    with open_regular(file) as opened:
                        entry = known[path] = [*mark, hashlib.file_digest(opened, "sha256").hexdigest()]
                    news = True
            except OSError as error:
                raise LifelongError(f"cannot read {file}: {error.strerror}") from error
            found.append((mark[0], entry[3]))
        if news:
            self._write(lambda: write_text(self._sums, json.dumps(known, indent=0)))
        return found

    def numbers(self, name: str, key: str, count: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """A number for each image of a set, computed when it has not been before.

        Args:
            name: what the file is called by, besides its key.
            key: a checksum of the set's content.
            count: how many images the set has.
            compute: gives the numbers, uint64 of shape (count,).
        """
        path = self._place("contents", name, [key, count], "npy")
        numbers = _numbers(path, count)
        if numbers is None:
            numbers = compute()
            if len(numbers) != count:
                raise LifelongError(f"{len(numbers)} images of {name} where {count} were announced: the files changed; run again")
            self._write(lambda: write_file(path, lambda part: _save(part, numbers)))
        return numbers

    def findings(self, name: str, key: str, count: int) -> list[Any] | None:
        """What was found out of the images of a set: lists of a position and three texts; None where that is not remembered.

        Args:
            name: what the file is called by, besides its key.
            key: a checksum of the set's content.
            count: how many images the set has.
        """
        try:
            known = read_json(self._place("problems", name, [key, count], "json"))
            return known if all(0 <= row < count and all(isinstance(text, str) for text in (a, b, c)) for row, a, b, c in known) else None
        except (OSError, ValueError, TypeError):
            return None  # nothing remembered, or not readably

    def keep_findings(self, name: str, key: str, count: int, found: list[list[int | str]]) -> None:
        """Remember what was found out of a set; see `findings`."""
        self._write(lambda: write_text(self._place("problems", name, [key, count], "json"), json.dumps(found)))

    def vetted(self, files: Sequence[Path], kind: str, vet: Callable[[Sequence[Path]], None]) -> None:
        """See that files have passed a check, for which those that have not are taken; remembered as `digests` are.

        Args:
            files: the files.
            kind: names the check, its version included.
            vet: checks files; raises where one does not pass.
        """
        path = self.folder / "vetted.json"
        known = _remembered(path)
        marks = {os.path.abspath(file): [kind, *_mark(file)] for file in files}
        news = [Path(name) for name, mark in marks.items() if known.get(name) != mark]
        if news:
            vet(news)
            self._write(lambda: write_text(path, json.dumps(known | marks, indent=0)))

    def rows(
        self,
        name: str,
        key: str,
        indices: Int64[Tensor, "k"],
        shape: tuple[int, int],
        decode: Callable[[], Iterator[UInt8[Tensor, "n 3 s s"]]],
    ) -> UInt8[Tensor, "k 3 s s"]:
        """Some of the images of a set, which is decoded when it has not been before.

        Args:
            name: what the file is called by, besides its key.
            key: a checksum of the set's content.
            indices: which images.
            shape: how many images the set has, and their size in pixels.
            decode: gives all images of the set, in order, in pieces.

        Raises:
            LifelongError: the cache cannot be written, or an image not be decoded.
        """
        count, size = shape
        path = self._place("images", f"{name}-{size}", [key, count, size], "safetensors")
        images = _read(path, (count, 3, size, size), indices.numpy())
        if images is None:
            log.info("decoding %d images of %s to %dx%d, once", count, name, size, size)
            self._write(lambda: write_file(path, lambda part: _fill(part, (count, 3, size, size), decode())))
            images = _read(path, (count, 3, size, size), indices.numpy())
            if images is None:
                raise LifelongError(f"{path} was damaged while it was read; run again")
        return torch.from_numpy(images)

    def _place(self, kind: str, name: str, key: list[str | int], suffix: str) -> Path:
        """The file of that name and key."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-60:].strip("._") or "images"
        return self.folder / kind / f"{readable}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]}.{suffix}"

    def _write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except LifelongError as error:
            if not str(error).startswith("cannot write"):
                raise  # an image that could not be decoded, say
            reason = getattr(error.__cause__, "strerror", None) or error.__cause__
            raise LifelongError(
                f"cannot write the cache of decoded images {self.folder}: {reason}; set {CACHE_VARIABLE} to a folder that can be written"
            ) from error


def _mark(file: Path) -> list[int]:
    """What tells that a file is still the same: its size and its times."""
    about = os.stat(file)
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def _remembered(file: Path) -> dict[str, Any]:
    """What a file of the cache says of each path."""
    try:
        known = read_json(file)
    except (OSError, ValueError):
        return {}  # nothing remembered, or not readably: the files are looked at again
    return known if isinstance(known, dict) else {}


def _header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of a safetensors file that holds one uint8 tensor named `images`."""
    text = json.dumps({"images": {"dtype": "U8", "shape": shape, "data_offsets": [0, int(np.prod(shape))]}}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _fill(path: Path, shape: tuple[int, ...], pieces: Iterator[UInt8[Tensor, "n 3 s s"]]) -> None:
    """Write a safetensors file piece by piece: sets larger than the memory are never whole in it."""
    written = 0
    with path.open("wb") as file:
        file.write(_header(shape))
        for piece in pieces:
            file.write(piece.numpy())
            written += len(piece)
    if written != shape[0]:
        raise LifelongError(f"{written} images where {shape[0]} were announced: the files changed while they were read; run again")


def _read(path: Path, shape: tuple[int, int, int, int], rows: np.ndarray) -> np.ndarray | None:
    """Some of the images of a cache file; None where there is no whole file of this shape.

    Read, not mapped: of a mapped file the pages that were touched count as this process's memory, task by task more of them.
    """
    header = _header(shape)
    each = int(np.prod(shape[1:]))
    try:
        with open_regular(path) as file:
            if file.read(len(header)) != header or file.seek(0, os.SEEK_END) != len(header) + each * shape[0]:
                return None
            images = np.empty((len(rows), each), np.uint8)
            for at, row in _in_file_order(rows, shape[0]):
                if os.preadv(file.fileno(), [images[at]], len(header) + each * row) != each:
                    return None
    except OSError:
        return None
    return images.reshape(len(rows), *shape[1:])


def _in_file_order(rows: np.ndarray, count: int) -> Iterator[tuple[int, int]]:
    """Places in the result and the rows that go there, from the file's beginning to its end."""
    if len(rows) and (rows.min() < 0 or rows.max() >= count):
        raise IndexError(f"rows {rows.min()} to {rows.max()} of {count}")
    order = np.argsort(rows, kind="stable")
    return zip(order.tolist(), rows[order].tolist(), strict=True)


def _save(path: Path, numbers: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, numbers)


def _numbers(path: Path, count: int) -> np.ndarray | None:
    """The numbers of a cache file; None where there is no whole file of so many."""
    try:
        with open_regular(path) as file:
            numbers = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return numbers if isinstance(numbers, np.ndarray) and numbers.dtype == np.uint64 and numbers.shape == (count,) else None
