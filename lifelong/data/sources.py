"""Named image sources: labels at once, images when asked for, at the size asked for."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from lifelong.data.address import PYTHON, Address, meant_address, parse_address
from lifelong.data.cache import Cache, cache_folder
from lifelong.data.files import Listing, list_folder
from lifelong.data.hub import folder_name
from lifelong.data.kept import KeptPool, pools_of, read_kept
from lifelong.data.known_sources import KNOWN_SOURCES, Hub, KnownSource, known_source
from lifelong.data.labels import Arranged, arrange
from lifelong.data.lists import list_csv
from lifelong.data.parquet import ParquetSplit, divided_rows
from lifelong.data.pools import DigitsPool, FilePool, Pool
from lifelong.data.problems import Findings, Rows
from lifelong.data.shards import gaps, named_files, split_files, what_there_is
from lifelong.data.split_names import SplitName
from lifelong.data.vetting import VETTING_VERSION, read_apart
from lifelong.errors import LifelongError, MissingDataError

DATA_VARIABLE = "LIFELONG_DATA"


class Source:
    """A set of labelled images that streams draw from.

    Args:
        name: its name in streams.
        classes: class names in label order.
        mirror: whether a horizontal flip preserves the class.
        licence: the terms under which the images are published.
        pools: its splits; always `train`, and `valid` and `test` if the source has them.
        folder: of its files; None if it has none.
        notes: things a person should know, one sentence each (images that were left out, ...).
        numbers: the number by which a stream may name each class; None: its position.
    """

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        mirror: bool,
        licence: str,
        pools: Mapping[SplitName, Pool],
        folder: Path | None = None,
        notes: tuple[str, ...] = (),
        numbers: tuple[int, ...] | None = None,
    ) -> None:
        self.name = name
        self.classes = classes
        self.numbers = tuple(range(len(classes))) if numbers is None else numbers
        self.mirror = mirror
        self.licence = licence
        self.folder = folder
        self.notes = notes
        self._pools = dict(pools)

    def has_split(self, split: SplitName) -> bool:
        """Return whether the source has this split of its own."""
        return split in self._pools

    def labels(self, split: SplitName) -> Int64[Tensor, "n"]:
        """Return the class id of each image of a split; no image is decoded."""
        return self._pools[split].labels

    def images(self, split: SplitName, indices: Int64[Tensor, "n"], size: int) -> UInt8[Tensor, "n 3 s s"]:
        """Return images of a split by their positions, as RGB of `size` x `size` pixels.

        Raises:
            LifelongError: images are broken (the line counts them and names the first), or the cache of decoded images cannot be written.
        """
        return self._pools[split].images(indices, size)

    def contents(self, split: SplitName) -> np.ndarray:
        """Return a 64-bit hash of each stored image of a split, uint64 of shape (n,).

        Equal files have equal hashes in any source or split. For encoded images the bytes are hashed, for the embedded digits the pixels.
        The hashes are cached, so that later calls read no image file.
        """
        return self._pools[split].contents()

    def findings(self, split: SplitName, look: bool) -> Findings | None:
        """Return which images of a split cannot be used, or lose something when they are read.

        Args:
            split: which.
            look: whether to check every image now, if that was never done; else the answer may be None.
        """
        pool = self._pools[split]
        return pool.findings(look) if isinstance(pool, (FilePool, KeptPool)) else Findings()

    def traces(self, size: int) -> list[Path]:
        """Return the files of the cache that hold something of the images, decoded at a size, or their digests.

        Everything in them can be made again from the images' own files; so objects given from Python, which have none, are not among them.
        """
        found = [pool.traces(size) for pool in self._pools.values() if isinstance(pool, FilePool)]
        return list(dict.fromkeys(path for some in found for path in some))

    def called(self, split: SplitName, position: int) -> str:
        """Name the image at a position of a split: its path, or its file and row; its number if it is in no file."""
        pool = self._pools[split]
        return pool.called(position) if isinstance(pool, (FilePool, KeptPool)) else f"image {position}"

    def fingerprint(self, split: SplitName) -> str:
        """Return a checksum of the stored images of a split; sources with equal fingerprints hold the same images."""
        return self._pools[split].fingerprint()


class Sources:
    """Opens sources by their names, each once.

    Args:
        data: the folder of local data; None: the environment's `LIFELONG_DATA`, if any.
        download: whether a missing source may be downloaded from the Hub.
        cache: where decoded images are kept; None: `LIFELONG_CACHE` or `~/.cache/lifelong`.
        skip_broken: leave out images that cannot be used, instead of failing when images are asked for.
    """

    def __init__(self, data: Path | None = None, download: bool = False, cache: Path | None = None, skip_broken: bool = False) -> None:
        if data is None and os.environ.get(DATA_VARIABLE):
            data = Path(os.environ[DATA_VARIABLE])
        self.data = data
        self.download = download
        self.cache = Cache(cache or cache_folder())
        self.skip_broken = skip_broken
        self._opened: dict[tuple[str, Path | None], Source] = {}

    def open(self, name: str, base: Path | None = None) -> Source:
        """Open a source by its name: a known one, or the address of a user's own images (see `address.parse_address`).

        Args:
            name: for example `mnist`, `folder:photos` or `parquet:birds?label=kind&flip=true`.
            base: where to look for a relative path that is not in the data folder; None: the current folder.

        Raises:
            LifelongError: no such name, no such data, or files that cannot be read.
        """
        address = parse_address(name)
        if address.kind == "named" and address.where not in KNOWN_SOURCES:
            meant = meant_address(name, (self.data, base or Path.cwd()))
            if meant:
                raise LifelongError(f"unknown source '{name}'{meant}")
        place = self.place(address, base)
        key = (name, place)
        if key not in self._opened:
            self._opened[key] = self._load(address, place)
        return self._opened[key]

    def _load(self, address: Address, place: Path | None) -> Source:
        if address.kind == PYTHON:
            return self._of_objects(address)
        if address.kind == "named":
            entry = known_source(address.where)
            entry = replace(entry, name=address.name, mirror=entry.mirror if address.flip is None else address.flip)
            if entry.hub is None:
                return Source(entry.name, entry.classes, entry.mirror, entry.licence, {"train": DigitsPool()})
            folder = self._folder(entry, address.where)
            return self._of_parquet(entry, folder, split_files(folder))
        entry = KnownSource(
            address.name,
            "",
            (),
            "your own data",
            bool(address.flip),
            None,
            image_columns=address.column("image", _IMAGE_COLUMNS[address.kind == "csv"]),
            label_columns=address.column("label", ("label",)),
        )
        parts = address.parts()
        if place is None:
            folder = self._fetched(address)
            entry = replace(entry, licence=f"see https://huggingface.co/datasets/{address.where}")
            return self._of_parquet(entry, folder, split_files(folder))
        if address.kind == "parquet":
            return self._of_parquet(entry, place, named_files(place, parts) if parts else split_files(place))
        if address.kind == "csv":
            listing = list_csv(place, entry.image_columns, entry.label_columns, parts, address.options.get("split"))
            return self._of_files(entry, place.parent, listing)
        return self._of_files(entry, place, list_folder(place, parts))

    def place(self, address: Address, base: Path | None = None) -> Path | None:
        """Find the folder or file of a user's own images: below the data folder, else below `base`; None if the address is not a path.

        Raises:
            LifelongError: it is in neither folder.
        """
        if address.kind not in ("parquet", "csv", "folder"):
            return None
        given = Path(address.where).expanduser()
        tried = [parent / given for parent in (self.data, base or Path.cwd()) if parent is not None]
        for place in tried:
            # Not the questions of `Path`, which fail for names that no file has.
            if os.path.isfile(place) if address.kind == "csv" else os.path.isdir(place) and _holds(place, address):
                return place
        places = " and ".join(dict.fromkeys(map(str, tried)))
        files = [place for place in tried if os.path.isfile(place)]
        if files:
            whole = f"{address.kind}:DIR" + ("?train=FILE.parquet" if address.kind == "parquet" else "")
            raise LifelongError(f"source '{address.name}': {files[0]} is a file; name its folder: {whole}")
        what = {"csv": "no such file", "folder": "no such folder", "parquet": "no train-*.parquet"}[address.kind]
        if address.kind == "parquet":
            places += next((found for place in tried if os.path.isdir(place) and (found := what_there_is(place))), "")
        raise MissingDataError(address.name, f"{what} in {places}; give the data folder with --data DIR (or {DATA_VARIABLE})")

    def _folder(self, entry: KnownSource, name: str) -> Path:
        """Return the folder of a known source, downloaded if that is needed and allowed."""
        local = [self.data / folder for folder in entry.folders] if self.data is not None else []
        for folder in local:
            if split_files(folder).get("train"):
                return folder
        searched = f"searched {' and '.join(map(str, local))}" if local else "no data folder was given"
        if entry.hub is None:
            raise MissingDataError(name, searched)
        return self._downloaded(name, entry.hub, f"{searched}; give the folder that holds it with --data DIR (or {DATA_VARIABLE})")

    def _fetched(self, address: Address) -> Path:
        """Return the folder of a data set of the Hub."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", address.where):
            raise LifelongError(f"source '{address.name}': '{address.where}' is not a valid Hub id; write hub:OWNER/NAME")
        return self._downloaded(address.name, Hub(address.where, address.options.get("config"), address.parts()), "it is not in the cache")

    def _downloaded(self, name: str, hub: Hub, why: str) -> Path:
        folder = self.cache.folder / "hub" / folder_name(hub)
        if not split_files(folder).get("train"):
            if not self.download:
                raise MissingDataError(name, f"{why}, or allow the download with --download")
            from lifelong.data.hub import fetch

            fetch(name, hub, folder, why)
        return folder

    def _of_objects(self, address: Address) -> Source:
        """Build a source from objects given from Python, which are in the cache."""
        kept = read_kept(address, self.cache)
        called = address.where.rpartition("@")[0]
        classes, notes, numbers = (tuple(kept[key]) for key in ("classes", "notes", "numbers"))
        return Source(called, classes, kept["flip"], "your own data", pools_of(address, kept, self.cache), None, notes, numbers)

    def _of_parquet(self, entry: KnownSource, folder: Path, files: Mapping[SplitName, list[Path]]) -> Source:
        """Build a source from parquet files."""
        columns = entry.image_columns, entry.label_columns
        kind = json.dumps([VETTING_VERSION, version("pyarrow"), *columns])
        self.cache.vetted([file for part in files.values() for file in part], kind, lambda news: read_apart(news, *columns))
        splits = {part: ParquetSplit(files[part], *columns) for part in files}
        labels = {part: split.labels() for part, split in splits.items()}
        arranged = arrange(entry, folder, {part: split.class_names for part, split in splits.items()}, labels)
        joined: dict[SplitName, tuple[Rows, Tensor]] = {}
        for pool, wanted in arranged.pools.items():
            parts = [part for part in wanted if part in splits]
            if parts:
                split = ParquetSplit([file for part in parts for file in splits[part].files], *columns)
                joined[pool] = (split, torch.cat([arranged.ids[part] for part in parts]))
        divided, unused = ({}, ()) if entry.classes else divided_rows(folder, splits)
        if divided:
            joined = dict.fromkeys(divided, joined["train"])
        holes = [name for part in files for name in gaps(files[part])]
        missing = (f"Files seem to be missing, by their numbers: {', '.join(holes[:5])}{', ...' * (len(holes) > 5)}.",) if holes else ()
        return self._source(entry, folder, arranged, joined, (*arranged.notes, *unused, *missing), divided)

    def _of_files(self, entry: KnownSource, folder: Path, listing: Listing) -> Source:
        """Build a source from images in separate files."""
        arranged = arrange(entry, folder, dict.fromkeys(listing.splits), {part: split.labels for part, split in listing.splits.items()})
        pools: dict[SplitName, tuple[Rows, Tensor]] = {part: (split, arranged.ids[part]) for part, split in listing.splits.items()}
        return self._source(entry, folder, arranged, pools, (*arranged.notes, *listing.notes))

    def _source(
        self,
        entry: KnownSource,
        folder: Path,
        arranged: Arranged,
        splits: Mapping[SplitName, tuple[Rows, Tensor]],
        notes: tuple[str, ...],
        only: Mapping[SplitName, np.ndarray] | None = None,
    ) -> Source:
        options = {"squeeze": entry.squeeze, "skip_broken": self.skip_broken}
        pools = {
            pool: FilePool(entry.name, pool, split, ids, self.cache, **options, only=(only or {}).get(pool))
            for pool, (split, ids) in splits.items()
        }
        every_note = (*notes, *(note for pool in pools.values() for note in pool.notes))
        return Source(entry.name, arranged.classes, entry.mirror, entry.licence, pools, folder, every_note, arranged.numbers)


_IMAGE_COLUMNS = (("image", "img"), ("image", "img", "file", "filename", "file_name", "path"))
"""The usual names of the column of images: in parquet files, and in lists of files."""


def _holds(folder: Path, address: Address) -> bool:
    """Return whether a folder can be what an address means."""
    return address.kind == "folder" or _has_parquet(folder, address)


def _has_parquet(folder: Path, address: Address) -> bool:
    return bool(split_files(folder).get("train")) if not address.parts() else any(folder.glob("*.parquet"))
