"""Decoded images kept on the disk, so that no image is decoded twice and no more of them is read than asked for.

Each image is stored with a digest of its pixels, its position and its data set, which is checked at every read. Damaged images are
dropped, with a warning in the log, and decoded again.
"""

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
from lifelong.json_files import read_record, write_record
from lifelong.opening import open_regular
from lifelong.storage import read_tree, save_tree, write_file

log = logging.getLogger(__name__)

CACHE_VARIABLE = "LIFELONG_CACHE"

DIGEST_BYTES = 16
"""Of an image: 128 bits of SHA-256."""


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

    def checksum(self, files: Sequence[Path], names: Sequence[str] | None = None) -> str:
        """Return a sha256 over the names, sizes and bytes of files; remembered for as long as size and times of a file stay the same.

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
        """Return the size and the sha256 of each file, remembered folder by folder: a run reads what is known of its own alone."""
        found: dict[int, tuple[int, str]] = {}
        folders: dict[str, list[int]] = {}
        for place, file in enumerate(files):
            folders.setdefault(os.path.dirname(file), []).append(place)
        for folder, places in folders.items():
            whole = os.path.realpath(folder)
            sums = self.sums_file(whole)
            known, news = self._known(sums), False
            for place in places:
                file = files[place]
                try:
                    mark, path = _mark(file), os.path.join(whole, os.path.basename(file))
                    entry = known.get(path)
                    if not (isinstance(entry, list) and len(entry) == 4 and entry[:3] == mark):
                        with open_regular(file) as opened:
                            entry = known[path] = [*mark, hashlib.file_digest(opened, "sha256").hexdigest()]
                        news = True
                except OSError as error:
                    raise LifelongError(f"cannot read {file}: {error.strerror}") from error
                found[place] = (mark[0], str(entry[3]))
            if news:
                self._write_sums(sums, known)
        return [found[place] for place in range(len(files))]

    def sums_file(self, folder: str) -> Path:
        """Return where the digests of the files of a folder are remembered."""
        return self.folder / "checksums" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"

    def _write_sums(self, file: Path, known: dict[str, Any]) -> None:
        self.write(lambda: write_record(file, {"files": known}))

    def numbers(self, name: str, key: str, count: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return a number for each image of a set, computed when it has not been before.

        Args:
            name: what the file is called by, besides its key.
            key: a checksum of the set's content.
            count: how many images the set has.
            compute: gives the numbers, uint64 of shape (count,).
        """
        path = self._place("contents", name, [key, count], "safetensors")
        numbers = _numbers(path, count)
        if numbers is None:
            numbers = compute()
            if len(numbers) != count:
                raise LifelongError(f"{len(numbers)} images of {name} where {count} were announced: the files changed; run again")
            # As int64: a file of tensors has no uint64 in all versions of its format.
            self.write(lambda: save_tree(path, torch.from_numpy(numbers.view(np.int64)), path.name))
        return numbers

    def findings(self, name: str, key: str, count: int) -> list[Any] | None:
        """Return the findings about the images of a set: lists of a position and three texts; None if they are not remembered.

        Args:
            name: what the file is called by, besides its key.
            key: a checksum of the set's content.
            count: how many images the set has.
        """
        path = self.findings_file(name, key, count)
        try:
            record = _record(path)
            if record is None or record["of"] != path.name:
                return None
            known = record["found"]
            return known if all(0 <= row < count and all(isinstance(text, str) for text in (a, b, c)) for row, a, b, c in known) else None
        except (KeyError, ValueError, TypeError):
            return None  # not as this version writes it

    def keep_findings(self, name: str, key: str, count: int, found: list[list[int | str]]) -> None:
        """Remember the findings about a set; see `findings`."""
        path = self.findings_file(name, key, count)
        self.write(lambda: write_record(path, {"of": path.name, "found": found}))

    def findings_file(self, name: str, key: str, count: int) -> Path:
        """Return where the findings about a set are remembered; see `findings`."""
        return self._place("problems", name, [key, count], "json")

    def vetted(self, files: Sequence[Path], kind: str, vet: Callable[[Sequence[Path]], None]) -> None:
        """Run a check on the files that have not passed it before; results are remembered as for `digests`.

        Args:
            files: the files.
            kind: names the check, its version included.
            vet: checks files; raises where one does not pass.
        """
        path = self.folder / "vetted.json"
        known = self._known(path)
        marks = {os.path.abspath(file): [kind, *_mark(file)] for file in files}
        news = [Path(name) for name, mark in marks.items() if known.get(name) != mark]
        if news:
            vet(news)
            self.write(lambda: write_record(path, {"files": known | marks}))

    def rows(
        self,
        name: str,
        key: str,
        indices: Int64[Tensor, "k"],
        shape: tuple[int, int],
        decode: Callable[[], Iterator[UInt8[Tensor, "n 3 s s"]]],
    ) -> UInt8[Tensor, "k 3 s s"]:
        """Return some of the images of a set, which is decoded when it has not been before.

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
        path = self.images_file(name, key, count, size)
        images = _read(path, (count, 3, size, size), indices.numpy())
        if images is None:
            log.info("decoding %d images of %s to %dx%d, once", count, name, size, size)
            self.write(lambda: write_file(path, lambda part: _fill(part, path.name, (count, 3, size, size), decode())))
            images = _read(path, (count, 3, size, size), indices.numpy())
            if images is None:
                raise LifelongError(f"{path} was damaged while it was read; run again")
        return torch.from_numpy(images)

    def images_file(self, name: str, key: str, count: int, size: int) -> Path:
        """Return where the decoded images of a set are; see `rows`."""
        return self._place("images", f"{name}-{size}", [key, count, size], "safetensors")

    def _place(self, kind: str, name: str, key: list[str | int], suffix: str) -> Path:
        """Return the file of that name and key."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-60:].strip("._") or "images"
        return self.folder / kind / f"{readable}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]}.{suffix}"

    def _known(self, path: Path) -> dict[str, Any]:
        """Return what a file of the cache knows of other files by their paths."""
        known = (_record(path) or {}).get("files")
        return known if isinstance(known, dict) else {}

    def write(self, write: Callable[[], object]) -> None:
        """Do what writes to the cache; where that is not possible, say how it can be.

        Raises:
            LifelongError: the folder cannot be written.
        """
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
    """Return what tells that a file is still the same: its size and its times."""
    about = os.stat(file)
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def _record(path: Path) -> dict[str, Any] | None:
    """Return a JSON file of the cache; None if it is missing or damaged: its content is then determined again."""
    try:
        record, checked = read_record(path)
    except FileNotFoundError:
        return None
    except LifelongError as error:
        log.warning("%s: dropped, and found out again", error)
        return None
    return record if checked else None  # an earlier version wrote it


def _header(shape: tuple[int, ...]) -> bytes:
    """Return the first bytes of a safetensors file that holds uint8 tensors named `images` and `digests`."""
    end = int(np.prod(shape))
    tensors = {
        "images": {"dtype": "U8", "shape": shape, "data_offsets": [0, end]},
        "digests": {"dtype": "U8", "shape": [shape[0], DIGEST_BYTES], "data_offsets": [end, end + shape[0] * DIGEST_BYTES]},
    }
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _digest(name: str, row: int, pixels: np.ndarray) -> bytes:
    """Return what tells an image of a set from a damaged one, and from that of another place or another set."""
    digest = hashlib.sha256(f"{name} {row} ".encode())
    digest.update(pixels.data)
    return digest.digest()[:DIGEST_BYTES]


def _fill(path: Path, name: str, shape: tuple[int, ...], pieces: Iterator[UInt8[Tensor, "n 3 s s"]]) -> None:
    """Write a cache file piece by piece: sets larger than the memory are never whole in it.

    Args:
        path: where to.
        name: of the file that it becomes.
        shape: of all images.
        pieces: the images, in order.
    """
    digests: list[bytes] = []
    with path.open("wb") as file:
        file.write(_header(shape))
        for piece in pieces:
            pixels = piece.contiguous().numpy()
            file.write(pixels.data)
            digests += [_digest(name, row, image) for row, image in enumerate(pixels, len(digests))]
        file.write(b"".join(digests))
    if len(digests) != shape[0]:
        raise LifelongError(f"{len(digests)} images where {shape[0]} were announced: the files changed while they were read; run again")


def _read(path: Path, shape: tuple[int, int, int, int], rows: np.ndarray) -> np.ndarray | None:
    """Return some of the images of a cache file; None if there is no file of this shape, or one of the images is damaged.

    Read, not mapped: of a mapped file the pages that were touched count as this process's memory, task by task more of them.
    """
    header = _header(shape)
    each, start = int(np.prod(shape[1:])), len(header)
    table = start + each * shape[0]
    try:
        with open_regular(path) as file:
            if file.read(start) != header or file.seek(0, os.SEEK_END) != table + shape[0] * DIGEST_BYTES:
                return None  # Also a file of an earlier version, which kept no digests.
            file.seek(table)
            digests = file.read(shape[0] * DIGEST_BYTES)
            images = np.empty((len(rows), each), np.uint8)
            for at, row in _in_file_order(rows, shape[0]):
                whole = os.preadv(file.fileno(), [images[at]], start + each * row) == each
                if not whole or _digest(path.name, row, images[at]) != digests[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]:
                    log.warning("%s: image %d is damaged; all are decoded again", path, row)
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


def _numbers(path: Path, count: int) -> np.ndarray | None:
    """Return the numbers of a cache file; None if there is no complete file with this many."""
    if not path.exists():
        return None
    try:
        numbers = read_tree(path, owner=path.name, required=True).tree
    except LifelongError as error:
        log.warning("%s: dropped, and computed again", error)
        return None
    if not isinstance(numbers, Tensor) or numbers.dtype != torch.int64 or tuple(numbers.shape) != (count,):
        return None
    return numbers.numpy().view(np.uint64)
