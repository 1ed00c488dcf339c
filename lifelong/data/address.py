"""Parse the name of a source: a known source, or the place of a user's own images, with options after a question mark."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lifelong.data.split_names import SPLITS, SplitName
from lifelong.errors import LifelongError, near_miss

Kind = Literal["named", "parquet", "csv", "folder", "hub", "python"]

KINDS: Mapping[str, str] = {"parquet": "DIR", "csv": "FILE", "folder": "DIR", "hub": "ID"}
"""The kinds of a user's own sources, and what follows their colon."""

PYTHON = "python"
"""The kind of what was given as Python objects: `python:NAME@DIGEST`, by the digest of its content (see `lifelong.data.kept`). The library
writes such addresses; nobody types them."""

_COLUMNS = ("image", "label")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "named": ("flip",),
    "parquet": (*_COLUMNS, *SPLITS, "flip"),
    "csv": (*_COLUMNS, "split", *SPLITS, "flip"),
    "folder": (*SPLITS, "flip"),
    "hub": (*_COLUMNS, "config", *SPLITS, "flip"),
}
_OF_STREAMS = ("tasks", "size")
"""Further options of a stream that is named by the address of its images (see `lifelong.streams.user_images`)."""

_KNOWN = (*_OPTIONS["hub"], "split", *_OF_STREAMS)
_KEY = r"([A-Za-z_]+)="


@dataclass(frozen=True)
class Address:
    """Where a source is and how it is to be read.

    Attributes:
        name: as it was given.
        kind: "named" for a known source.
        where: the name, folder, file or hub id.
        options: what follows the question mark.
    """

    name: str
    kind: Kind
    where: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def flip(self) -> bool | None:
        """Return whether its images may be mirrored; None where the address does not say."""
        return self.options["flip"] == "true" if "flip" in self.options else None

    def column(self, key: Literal["image", "label"], usual: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names that a column may have: the given one, else the usual ones."""
        return (self.options[key],) if key in self.options else usual

    def of_source(self, where: str | None = None) -> str:
        """Return the name of the source without the options of the stream; of the source at `where`, if that is given."""
        options = "&".join(f"{key}={value}" for key, value in self.options.items() if key not in _OF_STREAMS)
        return f"{self.kind}:{self.where if where is None else where}" + f"?{options}" * bool(options)

    @property
    def digest(self) -> str:
        """Return the digest of what was given as Python objects."""
        return self.where.rpartition("@")[2]

    @property
    def lasting(self) -> str:
        """Return a name of the source that survives moving its files: of a path only the last part.

        Objects have that of a folder of their name, so that the same images are drawn from both.
        """
        if self.kind == PYTHON:
            return f"folder:{self.where.rpartition('@')[0]}"
        return self.of_source(self.where if self.kind in ("named", "hub") else Path(self.where).name).removeprefix("named:")

    def parts(self) -> dict[SplitName, tuple[str, ...]]:
        """Return, for each split that the address names, the parts of the data set that form it."""
        return {split: tuple(self.options[split].split("+")) for split in SPLITS if split in self.options}


def parse_address(name: str, *, stream: bool = False, sized: bool = False) -> Address:
    """Read the name of a source, or of a stream that is made from one.

    The options begin at the first question mark that is followed by the name of an option, so that paths may hold question marks.

    Args:
        name: for example `mnist`, `folder:photos/birds` or `csv:list.csv?image=file&label=kind&flip=true`.
        stream: whether the options of a stream are accepted too.
        sized: whether the size of its images is.

    Raises:
        LifelongError: an option is unknown, repeated, empty or does not fit the kind, or nothing follows the colon.
    """
    if name.startswith(f"{PYTHON}:"):
        return _of_objects(name)
    place, text = _cut(name)
    head, colon, rest = place.partition(":")
    kind, where = (head, rest) if colon and head in KINDS else ("named", place)
    if kind == "named" and colon:
        raise LifelongError(f"unknown source '{name}': unknown kind '{head}:'{near_miss(head, KINDS)}")
    if kind != "named" and not where.strip():
        raise LifelongError(f"source '{name}': nothing follows the colon; write {kind}:{KINDS[kind]}")
    options: dict[str, str] = {}
    for item in re.split(rf"&(?={_KEY[1:-2]}=)", text) if text else []:
        key, _, value = item.partition("=")
        _check(name, kind, key, value, options, _OF_STREAMS if stream else ("size",) if sized else ())
        options[key] = value
    parts = [part for split in SPLITS if split in options for part in options[split].split("+")]
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice is not None:
        raise LifelongError(f"source '{name}': '{twice}' is named twice, so that its images would be read twice; name each part once")
    if options.keys() & set(SPLITS) and "train" not in options:
        raise LifelongError(f"source '{name}': it names {', '.join(options.keys() & set(SPLITS))} but not train; add train=...")
    return Address(name, kind, where, options)  # ty: ignore[invalid-argument-type]


def object_address(name: str, digest: str) -> str:
    """Return the address of what was given as Python objects; characters that mean something in an address are replaced in the name."""
    return f"{PYTHON}:{re.sub(r'[?&@/]', '_', name)}@{digest}"


def _of_objects(name: str) -> Address:
    where = name.partition(":")[2]
    if not re.fullmatch(r".+@[0-9a-f]{16}", where, re.DOTALL):
        raise LifelongError(f"'{name}' is no address: images are given from Python as objects, lifelong.run(stream=[lifelong.Task...])")
    return Address(name, PYTHON, where)


def _cut(name: str) -> tuple[str, str]:
    """Split a name into the place and the text of the options."""
    marks = list(re.finditer(rf"\?{_KEY}", name))
    for mark in marks:
        if mark[1] in _KNOWN:
            return name[: mark.start()], name[mark.start() + 1 :]
    if marks:
        raise LifelongError(
            f"source '{name}': unknown option '{marks[0][1]}'{near_miss(marks[0][1], _KNOWN)}"
            " (if this is part of a path, end the name with ?flip=false)"
        )
    return name, ""


def _check(name: str, kind: str, key: str, value: str, before: Mapping[str, str], more: tuple[str, ...]) -> None:
    where = f"{'stream' if more else 'source'} '{name}', option '{key}'"
    taken = _OPTIONS[kind] + more
    if key not in _KNOWN:
        raise LifelongError(f"{where}: unknown{near_miss(key, taken)}")
    if key not in taken:
        what = "a known source" if kind == "named" else f"{kind}:"
        raise LifelongError(f"{where}: is not an option of {what}, which takes {', '.join(taken)}")
    if key in before:
        raise LifelongError(f"{where}: is given twice; keep one")
    if not value or (key in SPLITS and "" in value.split("+")):
        raise LifelongError(f"{where}: is empty; write {key}=VALUE")
    if key == "flip" and value not in ("true", "false"):
        raise LifelongError(f"{where} = '{value}': expected true or false")
    if key in _OF_STREAMS and not re.fullmatch(r"[1-9][0-9]{0,5}", value):
        raise LifelongError(f"{where} = '{value}': expected an integer >= 1")


def meant_address(name: str, folders: Iterable[Path | None]) -> str:
    """Suggest an address for a name that is really a path: the end of an error line, empty if nothing lies there.

    Args:
        name: the given text, where an address or a name is expected.
        folders: where to look for a relative path; None is skipped.
    """
    place, _, options = name.partition("?")
    for folder in folders:
        path = None if folder is None else folder / Path(place).expanduser()
        if path is None or not os.path.exists(path):
            continue
        behind = f"?{options}" * bool(options)
        if path.is_dir():
            kind = "parquet" if any(path.glob("*.parquet")) or any(path.glob("*/*.parquet")) else "folder"
            return f"; '{place}' is a folder: write {kind}:{place}{behind}"
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            return f"; '{place}' is a list: write csv:{place}{behind}"
        if path.suffix.lower() == ".parquet":
            return f"; '{place}' is a file: write parquet:{Path(place).parent}?train={path.name}"
        return f"; '{place}' is a file, and what is read are folders (folder:DIR), lists (csv:FILE) and parquet files (parquet:DIR)"
    return ""
