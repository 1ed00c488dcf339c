"""Images in files of their own: folders of classes, and CSV lists."""

import csv
import io
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lifelong.data.cache import Cache
from lifelong.data.catalog import PoolName
from lifelong.data.naming import class_name, natural, shown
from lifelong.errors import LifelongError, near_miss

log = logging.getLogger(__name__)

IMAGE = re.compile(r"\.(a?png|avif|bmp|dib|gif|hei[cf]|j2k|jfif|jp2|jpe|jpe?g|p[bgnp]m|tga|tiff?|webp)$", re.IGNORECASE)
"""How the names of images end. Those that Pillow cannot read are reported, not passed over."""

_SPLITS: Mapping[str, PoolName] = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "test": "test"}
"""The usual names of splits, as folders or in a column."""

_BATCH = 256  # files decoded at a time, at most
_BATCH_BYTES = 64 * 2**20  # and about so many bytes of them


class FileSplit:
    """The images of one split, each a file.

    Args:
        place: the folder or list that they come from.
        root: the folder that their paths start from.
        names: the path of each below `root`.
        labels: the class name of each.
    """

    def __init__(self, place: Path, root: Path, names: Sequence[str], labels: Sequence[str]) -> None:
        self.place = place
        self.files = [root / name for name in names]
        self.names = list(names)
        self.labels = np.array(labels, dtype=object)
        self.rows = len(names)

    def images(self) -> Iterator[tuple[list[bytes | None], Callable[[int], str]]]:
        """The content of each file in order, a batch at a time, with what names the image at a position of the batch."""
        first = 0
        batch: list[bytes | None] = []
        held = 0
        for number, file in enumerate(self.files, 1):
            try:
                content = file.read_bytes()
            except OSError as error:
                raise LifelongError(f"cannot read {shown(str(file))}: {error.strerror}") from error
            batch.append(content)
            held += len(content)
            if len(batch) == _BATCH or held >= _BATCH_BYTES or number == self.rows:
                yield batch, lambda position, first=first: shown(self.names[first + position])
                first, batch, held = number, [], 0

    def checksum(self, cache: Cache) -> str:
        """Of the files' bytes and their paths below the root."""
        return cache.checksum(self.files, self.names)

    def contents(self, cache: Cache) -> np.ndarray:
        """A 64-bit hash of each file's bytes, uint64 of shape (rows,): of the remembered sha256 the first 64 bits."""
        return np.array([int(digest[:16], 16) for _, digest in cache.digests(self.files)], dtype=np.uint64)


@dataclass(frozen=True)
class Listing:
    """The splits of a source of files.

    Attributes:
        splits: those it has.
        notes: things a person should know.
    """

    splits: dict[PoolName, FileSplit]
    notes: tuple[str, ...] = ()


def list_folder(root: Path, parts: Mapping[PoolName, Sequence[str]]) -> Listing:
    """The images of `root/<class>/*`, or of `root/<split>/<class>/*`.

    The folders below `root` are splits if each of them has the usual name of one and `train` holds folders; else they are classes.
    Images are files whose names end as `IMAGE` says; hidden files are passed over unseen, others are counted. Links are followed, also
    out of the folder; there is no level below the classes, so a link that leads in a circle is no trouble.

    Args:
        root: the folder.
        parts: for each split the folders that make it; empty: the usual names.

    Raises:
        LifelongError: there are no images or fewer than two classes, a class holds none, or a name cannot be used.
    """
    inside = folders_in(root)
    passed: Counter[str] = Counter()
    layout = dict(parts) or _usual_layout(root, inside)
    found: dict[PoolName, tuple[list[str], list[str]]] = {}
    for split, names in layout.items():
        found[split] = ([], [])
        for name in names:
            if name not in (*inside, ""):
                raise LifelongError(f"{root}: no folder '{name}' for {split}{near_miss(name, inside)}")
            images, labels = _classes_of(root, name, passed)
            found[split][0].extend(images)
            found[split][1].extend(labels)
    known = set(found["train"][1])
    if len(known) < 2:
        raise LifelongError(f"{root}: one class only, '{next(iter(known))}'; put the images of each class into a folder of its own")
    for split, (_, labels) in found.items():
        strange = sorted(set(labels) - known, key=natural)
        if strange:
            raise LifelongError(f"{root}: class '{strange[0]}' of {split} is none of train's; name the folders alike in both")
    notes = (_passed_over(passed),) if passed else ()
    for note in notes:
        log.info("%s: %s", root, note)
    return Listing({split: FileSplit(root, root, *lists) for split, lists in found.items()}, notes)


def _usual_layout(root: Path, inside: list[str]) -> dict[PoolName, list[str]]:
    """For each split its folder; the folder itself, named "", where there are no splits."""
    if not inside:
        raise LifelongError(f"{root}: no folders in it; put the images of each class into a folder of its own")
    trains = [name for name in inside if name.lower() == "train" and folders_in(root / name)]
    if not trains:
        return {"train": [""]}
    strange = [name for name in inside if name.lower() not in _SPLITS]
    if strange:
        raise LifelongError(
            f"{root}: holds '{shown(strange[0])}' beside '{trains[0]}', which holds folders;"
            " either every folder is a class, or each is a split (train, valid, test) with the classes in it"
        )
    layout: dict[PoolName, list[str]] = {}
    for name in inside:
        split = _SPLITS[name.lower()]
        if split in layout:
            raise LifelongError(f"{root}: holds '{layout[split][0]}' and '{name}', two names for one split; keep one of them")
        layout[split] = [name]
    return layout


def _classes_of(root: Path, level: str, passed: Counter[str]) -> tuple[list[str], list[str]]:
    """The images below a folder of classes: their paths below the root, and their class names; class by class, in order."""
    classes: dict[str, str] = {}
    for folder in folders_in(root / level):
        name = class_name(folder)
        if name is None:
            raise LifelongError(f"{root / level}: the folder '{shown(folder)}' has a name that cannot be printed; give it another")
        if name in classes:
            raise LifelongError(f"{root / level}: two folders are called '{name}', written in different ways; put them together")
        classes[name] = folder
    if not classes:
        raise LifelongError(f"{root / level}: no folders in it; put the images of each class into a folder of its own")
    _count(passed, [name for name, kind in _entries(root / level).items() if kind != "folder"])
    names, labels = [], []
    for label, folder in sorted(classes.items(), key=lambda item: natural(item[0])):
        images = _images(root / level / folder, passed)
        names += ["/".join(filter(None, (level, folder, image))) for image in images]
        labels += [label] * len(images)
    return names, labels


def _images(folder: Path, passed: Counter[str]) -> list[str]:
    entries = _entries(folder)
    images = [name for name, kind in entries.items() if kind != "folder" and IMAGE.search(name)]
    deeper = [name for name, kind in entries.items() if kind == "folder"]
    if not images:
        why = f"; its folders ('{shown(deeper[0])}', ...) are not looked into" if deeper else ""
        raise LifelongError(f"class folder {shown(str(folder))} holds no images{why}; put images into it or remove it")
    for name in images:
        if entries[name] == "nowhere":
            raise LifelongError(f"{shown(str(folder / name))}: a link that leads nowhere; mend or remove it")
    if deeper:
        passed["folders"] += len(deeper)
    _count(passed, entries.keys() - set(images) - set(deeper))
    return images


def folders_in(root: Path) -> list[str]:
    """The names of the folders in a folder, hidden ones left out, in natural order."""
    return [name for name, kind in _entries(root).items() if kind == "folder"]


def _entries(folder: Path) -> dict[str, str]:
    """What a folder holds, hidden things left out, in natural order: "file", "folder" or a link to "nowhere"."""
    try:
        with os.scandir(folder) as found:
            kinds = {entry.name: _kind(entry) for entry in found if not entry.name.startswith((".", "__MACOSX"))}
    except OSError as error:
        raise LifelongError(f"cannot read the folder {shown(str(folder))}: {error.strerror}") from error
    return {name: kinds[name] for name in sorted(kinds, key=natural)}


def _kind(entry: os.DirEntry) -> str:
    if not entry.is_symlink():
        return "folder" if entry.is_dir() else "file"
    return "folder" if os.path.isdir(entry.path) else "file" if os.path.exists(entry.path) else "nowhere"


def _count(passed: Counter[str], names: Iterable[str]) -> None:
    passed.update(os.path.splitext(name)[1].lower() or "without ending" for name in names)


def _passed_over(passed: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {shown(kind)}" for kind, count in sorted(passed.items()))
    return f"Passed over as no images: {kinds}."


def list_csv(file: Path, image: Sequence[str], label: Sequence[str], parts: Mapping[PoolName, Sequence[str]]) -> Listing:
    """The images of a CSV list: a column of paths, which start from the list's folder, a column of labels, and perhaps a column `split`.

    Args:
        file: UTF-8, its first line names the columns; separated by commas, or by semicolons or tabs where that line has no comma.
        image, label: names that the two columns may have; the first that is there is read.
        parts: for each split the values of the column `split` that make it; empty: the usual names.

    Raises:
        LifelongError: the list cannot be read, lacks a column or a value, or names a file that is not there or not below its folder.
    """
    columns, rows = _table(file)
    at_image, at_label = (_column(file, columns, names, what) for names, what in ((image, "image"), (label, "label")))
    found: dict[PoolName, tuple[list[str], list[str]]] = {}
    missing: list[str] = []
    for line, row in rows:
        if len(row) != len(columns):
            raise LifelongError(f"{file}, line {line}: {len(row)} values where the first line names {len(columns)} columns")
        split = _split_of(file, line, row[columns.index("split")], parts) if "split" in columns else "train"
        if split is None:
            continue
        name = row[at_image].strip()
        for value, column in ((name, columns[at_image]), (row[at_label].strip(), columns[at_label])):
            if not value:
                raise LifelongError(f"{file}, line {line}: column '{column}' is empty")
        if not (file.parent / _below(file, line, name)).is_file():
            missing.append(shown(name))
        names, labels = found.setdefault(split, ([], []))
        names.append(name)
        labels.append(row[at_label].strip())
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise LifelongError(
            f"{file}: {len(missing)} of its images are not there: {', '.join(missing[:5])}{more}; paths start from its folder"
        )
    if "train" not in found:
        raise LifelongError(f"{file}: no images for train; mark some so in the column 'split', or say which value does: ?train=VALUE")
    return Listing({split: FileSplit(file, file.parent, *lists) for split, lists in found.items()})


def _table(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, and the rows with the numbers of their lines."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LifelongError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LifelongError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    head = text.partition("\n")[0]
    delimiter = next((mark for mark in ",;\t" if mark in head), ",")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise LifelongError(f"{file}, line {reader.line_num}: {error}") from error
    if not rows:
        raise LifelongError(f"{file}: empty; its first line names the columns")
    return [name.strip() for name in rows[0][1]], rows[1:]


def _column(file: Path, columns: Sequence[str], wanted: Sequence[str], what: str) -> int:
    for name in wanted:
        if name in columns:
            return columns.index(name)
    raise LifelongError(f"{file}: no column '{wanted[0]}'; its columns: {', '.join(map(shown, columns))} (say which: ?{what}=COLUMN)")


def _split_of(file: Path, line: int, value: str, parts: Mapping[PoolName, Sequence[str]]) -> PoolName | None:
    """The split that a row goes to; None: to none, where the address names the values it wants and this is none of them."""
    if parts:
        return next((split for split, values in parts.items() if value.strip() in values), None)
    if value.strip().lower() not in _SPLITS:
        raise LifelongError(
            f"{file}, line {line}: split '{shown(value)}' is none of train, valid, test; say what makes them: ?train=VALUE&test=VALUE"
        )
    return _SPLITS[value.strip().lower()]


def _below(file: Path, line: int, name: str) -> str:
    """A path that stays below the list's folder."""
    if os.path.isabs(name) or ".." in re.split(r"[/\\]", name) or "\0" in name:
        raise LifelongError(f"{file}, line {line}: '{shown(name)}' leads out of the list's folder; move the list up, or the image below it")
    return name
