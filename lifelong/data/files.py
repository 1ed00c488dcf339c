"""List images in separate files, in one folder per class, and decide which files are images."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifelong.data.naming import class_name, natural, shown
from lifelong.data.split_names import SplitName, are_splits, is_word, split_of, usual_splits
from lifelong.errors import LifelongError, near_miss
from lifelong.opening import MOST_IMAGE, read_bytes

if TYPE_CHECKING:  # importing it imports PyTorch, which `lifelong.runtime` does without
    from lifelong.data.cache import Cache

log = logging.getLogger(__name__)

IMAGE = re.compile(r"\.(a?png|avif|bmp|dib|gif|hei[cf]|j2k|jfif|jp2|jpe|jpe?g|mpo|p[bgnp]m|tga|tiff?|webp)$", re.IGNORECASE)
"""How the names of images end. Those that Pillow cannot read are reported, not passed over."""

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
        """Yield the files' contents in order, in batches, each with a function that names the image at a position of the batch."""
        first = 0
        batch: list[bytes | None] = []
        held = 0
        for number, file in enumerate(self.files, 1):
            content = read_file(file)
            batch.append(content)
            held += len(content)
            if len(batch) == _BATCH or held >= _BATCH_BYTES or number == self.rows:
                yield batch, lambda position, first=first: shown(self.names[first + position])
                first, batch, held = number, [], 0

    def called(self, row: int) -> str:
        """Return the path of a row's image below the root."""
        return shown(self.names[row])

    def checksum(self, cache: "Cache") -> str:
        """Compute a checksum of the files' bytes and of their paths below the root."""
        return cache.checksum(self.files, self.names)

    def sums(self, cache: "Cache") -> list[Path]:
        """Return the files of the cache that remember digests of the files."""
        return [cache.sums_file(os.path.realpath(folder)) for folder in dict.fromkeys(os.path.dirname(file) for file in self.files)]

    def contents(self, cache: "Cache") -> np.ndarray:
        """Return a 64-bit hash of each file's bytes, uint64 of shape (rows,): the first 64 bits of the cached sha256."""
        return np.array([int(digest[:16], 16) for _, digest in cache.digests(self.files)], dtype=np.uint64)


def read_file(file: Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        LifelongError: it is missing, not a regular file (see `lifelong.opening`), too large, or cannot be read.
    """
    try:
        return read_bytes(file, MOST_IMAGE)
    except OSError as error:
        raise LifelongError(f"cannot read {shown(str(file))}: {error.strerror}; give the path of an image") from error


@dataclass(frozen=True)
class Listing:
    """The splits of a source of files.

    Attributes:
        splits: those it has.
        notes: things a person should know.
    """

    splits: dict[SplitName, FileSplit]
    notes: tuple[str, ...] = ()


def list_folder(root: Path, parts: Mapping[SplitName, Sequence[str]]) -> Listing:
    """List the images of `root/<class>/*`, or of `root/<split>/<class>/*`.

    The folders below `root` are splits if their names say so (see `split_names.are_splits`), or if one named `train` holds
    folders; else they are classes. Images are files whose names end as `IMAGE` says; hidden files are skipped silently, others are
    counted. Links are followed, even out of the folder; there is no level below the classes, so circular links do no harm.

    Args:
        root: the folder.
        parts: for each split the folders that form it; empty: the usual names.

    Raises:
        LifelongError: there are no images or fewer than two classes, a class holds none, or a name cannot be used.
    """
    inside = folders_in(root)
    passed: Counter[str] = Counter()
    layout = dict(parts) or _usual_layout(root, inside)
    found: dict[SplitName, tuple[list[str], list[str]]] = {}
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
        unknown = sorted(set(labels) - known, key=natural)
        if unknown:
            raise LifelongError(f"{root}: class '{unknown[0]}' of {split} is not in train; give its folder the same name in both")
    notes = (_passed_over(passed),) if passed else ()
    for note in notes:
        log.info("%s: %s", root, note)
    return Listing({split: FileSplit(root, root, *lists) for split, lists in found.items()}, notes)


def _usual_layout(root: Path, inside: list[str]) -> dict[SplitName, list[str]]:
    """Return the folder of each split; the folder itself, named "", where there are no splits."""
    if not inside:
        raise LifelongError(f"{root}: no folders in it; put the images of each class into a folder of its own")
    named = [name for name in inside if is_word(name)]
    holding = [name for name in named if folders_in(root / name)]
    if not are_splits(inside) and not any(split_of(name) == "train" for name in holding):
        return {"train": [""]}
    if not holding:
        raise LifelongError(
            f"{root}: '{named[0]}' and '{named[1]}' are names of splits, but hold no folders of classes; make them {named[0]}/CLASS/*,"
            " list the images with their labels in a CSV file (csv:FILE), or, if they really are classes, rename them"
        )
    others = [name for name in inside if not is_word(name)]
    if others:
        raise LifelongError(
            f"{root}: holds '{shown(others[0])}' next to '{holding[0]}', which holds folders;"
            " either every folder is a class, or each is a split (train, valid, test) with the classes in it; or say which are read:"
            f" ?train={holding[0]}"
        )
    layout = usual_splits(root, inside)
    if "train" not in layout:
        raise LifelongError(f"{root}: holds {' and '.join(map(repr, named))} but no folder 'train'; say which it is: ?train=FOLDER")
    return {split: [name] for split, name in layout.items()}


def _classes_of(root: Path, level: str, passed: Counter[str]) -> tuple[list[str], list[str]]:
    """List the images below a folder of classes, class by class: their paths below the root, and their class names."""
    classes: dict[str, str] = {}
    for folder in folders_in(root / level):
        name = class_name(folder)
        if name is None:
            raise LifelongError(f"{root / level}: the folder '{shown(folder)}' has a name that cannot be printed; rename it")
        if name in classes:
            raise LifelongError(f"{root / level}: two folders are called '{name}', in different spellings; merge them")
        classes[name] = folder
    if not classes:
        leave = f", or leave '{level}' out by naming the splits that are wanted: ?train=FOLDER" if level else ""
        raise LifelongError(f"{root / level}: no folders in it; put the images of each class into a folder of its own{leave}")
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
        if entries[name] != "file":
            what = "a broken link" if entries[name] == "nowhere" else "neither a file nor a folder (a pipe or a device)"
            raise LifelongError(f"{shown(str(folder / name))}: {what}; repair or remove it")
    if deeper:
        passed["folders"] += len(deeper)
    _count(passed, entries.keys() - set(images) - set(deeper))
    return images


def find_images(path: Path) -> tuple[list[Path], str]:
    """Return a file itself, or the images in a folder and its subfolders, in natural order.

    Images and hidden files are defined as in `list_folder`. Links to folders are not followed, so circular links do no harm.

    Args:
        path: of a file or a folder.

    Returns:
        The files, and one sentence about skipped files; empty if there are none.

    Raises:
        LifelongError: there is no such file, a folder cannot be read or holds no image.
    """
    if not os.path.isdir(path):
        return [path], ""
    passed: Counter[str] = Counter()
    found: list[Path] = []
    _walk(path, found, passed)
    said = _passed_over(passed) if passed else ""
    if not found:
        raise LifelongError(f"{path}: no image in this folder (jpg, png, gif, bmp, tif, webp, avif and their kin). {said}".rstrip(". "))
    return found, said


def _walk(folder: Path, found: list[Path], passed: Counter[str]) -> None:
    inner = []
    for name, kind in _entries(folder).items():
        if kind == "folder":
            if not (folder / name).is_symlink():
                inner.append(name)
        elif kind == "file" and IMAGE.search(name):
            found.append(folder / name)
        else:
            _count(passed, [name])
    for name in inner:
        try:
            _walk(folder / name, found, passed)
        except LifelongError:  # one unreadable folder must not hide the others
            passed["folders that cannot be read"] += 1


def folders_in(root: Path) -> list[str]:
    """Return the names of the folders in a folder, without hidden ones, in natural order."""
    return [name for name, kind in _entries(root).items() if kind == "folder"]


def _entries(folder: Path) -> dict[str, str]:
    """Return the kind of each entry of a folder, in natural order, without hidden ones: file, folder, nowhere (a broken link) or other."""
    try:
        with os.scandir(folder) as found:
            kinds = {entry.name: _kind(entry) for entry in found if not entry.name.startswith((".", "__MACOSX"))}
    except OSError as error:
        raise LifelongError(f"cannot read the folder {shown(str(folder))}: {error.strerror}") from error
    return {name: kinds[name] for name in sorted(kinds, key=natural)}


def _kind(entry: os.DirEntry) -> str:
    if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
        return "folder"
    if os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():
        return "file"
    return "other" if os.path.exists(entry.path) else "nowhere"


def _count(passed: Counter[str], names: Iterable[str]) -> None:
    passed.update(os.path.splitext(name)[1].lower() or "without ending" for name in names)


def _passed_over(passed: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {shown(kind)}" for kind, count in sorted(passed.items()))
    return f"Passed over as no images: {kinds}."
