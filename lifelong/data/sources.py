"""Named image sources: labels at once, images when asked for, at the size asked for."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from lifelong.data.cache import Cache, cache_folder
from lifelong.data.catalog import PARQUET, Entry, PoolName, entry_of
from lifelong.data.parquet import ParquetSplit, split_files
from lifelong.data.pools import DigitsPool, FilePool, Pool
from lifelong.errors import LifelongError

DATA_VARIABLE = "LIFELONG_DATA"


class Source:
    """A set of labelled images that streams draw from.

    Args:
        name: what streams call it.
        classes: class names in label order.
        mirror: whether a left-right mirror image is still of the same class and kind.
        licence: under which terms the images are given.
        pools: its splits; `train` is there always, `valid` and `test` where the source has them.
        folder: where its files lie; None where it has none.
    """

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        mirror: bool,
        licence: str,
        pools: Mapping[PoolName, Pool],
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.classes = classes
        self.mirror = mirror
        self.licence = licence
        self.folder = folder
        self._pools = dict(pools)

    def has_split(self, split: PoolName) -> bool:
        """Whether the source has such a split of its own."""
        return split in self._pools

    def labels(self, split: PoolName) -> Int64[Tensor, "n"]:
        """The class id of each image of a split; no image is decoded."""
        return self._pools[split].labels

    def images(self, split: PoolName, indices: Int64[Tensor, "n"], size: int) -> UInt8[Tensor, "n 3 s s"]:
        """Images of a split by their positions, as RGB of `size` x `size` pixels.

        Raises:
            LifelongError: an image is broken, or the cache of decoded images cannot be written.
        """
        return self._pools[split].images(indices, size)

    def contents(self, split: PoolName) -> np.ndarray:
        """A 64-bit hash of each stored image of a split, uint64 of shape (n,).

        Equal files have equal numbers, in whatever source or split they lie. Of encoded images the bytes are hashed, of the embedded
        digits the pixels. The numbers are kept in the cache: asked for again, no image file is read.
        """
        return self._pools[split].contents()

    def fingerprint(self, split: PoolName) -> str:
        """A checksum of the stored images of a split; sources with equal fingerprints hold the same images."""
        return self._pools[split].fingerprint()


class Sources:
    """Opens sources by their names, each once.

    Args:
        data: the folder of local data; None: the environment's `LIFELONG_DATA`, if any.
        download: whether a source that is not there may be fetched from the hub.
        cache: where decoded images are kept; None: `LIFELONG_CACHE` or `~/.cache/lifelong`.
    """

    def __init__(self, data: Path | None = None, download: bool = False, cache: Path | None = None) -> None:
        if data is None and os.environ.get(DATA_VARIABLE):
            data = Path(os.environ[DATA_VARIABLE])
        self.data = data
        self.download = download
        self.cache = Cache(cache or cache_folder())
        self._opened: dict[tuple[str, Path | None], Source] = {}

    def open(self, name: str, base: Path | None = None) -> Source:
        """A source by its name: one of the catalogue's, or `parquet:DIR`.

        Args:
            name: for example `mnist` or `parquet:birds`.
            base: where a relative DIR is looked for when the data folder does not have it; None: the current folder.

        Raises:
            LifelongError: no such name, no such data, or files that cannot be read.
        """
        folder = self._own_folder(name, base) if name.startswith(PARQUET) else None
        key = (name, folder)
        if key not in self._opened:
            self._opened[key] = self._load(name, folder)
        return self._opened[key]

    def _load(self, name: str, folder: Path | None) -> Source:
        if folder is not None:
            entry = Entry(name, "", (), "your own data", False, None)
        else:
            entry = entry_of(name)
            if entry.hub is None:
                return Source(name, entry.classes, entry.mirror, entry.licence, {"train": DigitsPool()})
            folder = self._folder(entry)
        return read_folder(entry, folder, self.cache)

    def _own_folder(self, name: str, base: Path | None) -> Path:
        given = Path(name.removeprefix(PARQUET)).expanduser()
        tried = [parent / given for parent in (self.data, base or Path.cwd()) if parent is not None]
        for folder in tried:
            if split_files(folder).get("train"):
                return folder
        places = " and ".join(dict.fromkeys(str(folder) for folder in tried))
        raise LifelongError(
            f"no images for source '{name}': no train-*.parquet in {places}; give the data folder with --data DIR (or {DATA_VARIABLE})"
        )

    def _folder(self, entry: Entry) -> Path:
        local = [self.data / folder for folder in entry.folders] if self.data is not None else []
        fetched = self.cache.folder / "hub" / entry.folders[0]
        for folder in [*local, fetched]:
            if split_files(folder).get("train"):
                return folder
        searched = f"searched {' and '.join(map(str, local))}" if local else "no data folder was given"
        if not self.download:
            raise LifelongError(
                f"no images for source '{entry.name}': {searched}; give the folder that holds it with --data DIR (or {DATA_VARIABLE}),"
                " or let it be fetched with --download"
            )
        from lifelong.data.hub import fetch

        fetch(entry, fetched, searched)
        return fetched


def read_folder(entry: Entry, folder: Path, cache: Cache) -> Source:
    """A source from the parquet files of a folder.

    Raises:
        LifelongError: a file cannot be read, or its classes are not those of the source.
    """
    splits = {name: ParquetSplit(files, entry.image_columns, entry.label_columns) for name, files in split_files(folder).items()}
    labels = {name: split.labels() for name, split in splits.items()}
    classes = _classes(entry, folder, splits, labels)
    ids = {name: _ids(labels[name], classes, folder, name) for name in splits}
    pools: dict[PoolName, Pool] = {}
    for pool, wanted in _pools(entry, ids).items():
        parts = [name for name in wanted if name in splits]
        if parts:
            files = [file for name in parts for file in splits[name].files]
            joined = ParquetSplit(files, entry.image_columns, entry.label_columns)
            pools[pool] = FilePool(f"{folder.name}-{pool}", joined, torch.cat([ids[name] for name in parts]), cache, entry.squeeze)
    return Source(entry.name, classes, entry.mirror, entry.licence, pools, folder)


def _pools(entry: Entry, ids: Mapping[PoolName, Int64[Tensor, "_"]]) -> Mapping[PoolName, tuple[PoolName, ...]]:
    """Which of the files' splits make which pool: those that the entry says, or all of them one where they divide the classes."""
    parts = [set(labels.tolist()) for labels in ids.values()]
    if entry.may_divide_classes and len(set().union(*parts)) == sum(map(len, parts)):
        return {"train": tuple(ids)}
    return entry.pools


def _classes(entry: Entry, folder: Path, splits: Mapping[PoolName, ParquetSplit], labels: Mapping[PoolName, np.ndarray]) -> tuple[str, ...]:
    """The class names: the catalogue's, else those the files name, else the labels themselves."""
    named = splits["train"].class_names
    for name, split in splits.items():
        if split.class_names != named:
            raise LifelongError(f"{split.files[0]}: the classes of {name} are not those of train; write both with the same class names")
    if entry.classes:
        if named is None or len(named) == len(entry.classes):
            # Spellings differ from copy to copy ('cra' for 'crab'): the place counts, unless only the order is another.
            return named if named is not None and sorted(named) == sorted(entry.classes) else entry.classes
        raise LifelongError(
            f"{folder}: {len(named)} classes where source '{entry.name}' has {len(entry.classes)};"
            f" if it is a part of it or data of your own, use the source '{PARQUET}{folder.name}'"
        )
    if named:
        return named
    if len({part.dtype for part in labels.values()}) > 1:
        raise LifelongError(f"{folder}: its splits hold labels in different forms, numbers and names; use one form")
    stored = np.concatenate(list(labels.values()))
    if stored.dtype == object:
        return tuple(sorted(set(stored.tolist())))
    return tuple(str(number) for number in range(int(stored.max()) + 1))


def _ids(labels: np.ndarray, classes: tuple[str, ...], folder: Path, split: str) -> Int64[Tensor, "n"]:
    """Labels as class ids, each checked."""
    if labels.dtype == object:
        known = {name: number for number, name in enumerate(classes)}
        unknown = next((label for label in labels if label not in known), None)
        if unknown is not None:
            raise LifelongError(f"{folder}: a label of {split} is '{unknown}', which is none of the classes {', '.join(classes[:10])}")
        return torch.tensor([known[label] for label in labels])
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        row = int(outside[0])
        raise LifelongError(
            f"{folder}: row {row} of {split} has label {labels[row]}, outside 0..{len(classes) - 1}; mend or drop such rows"
        )
    return torch.from_numpy(labels)
