"""Convert stored labels to class ids: which classes a source has, in which order, and which files form which split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from lifelong.data.known_sources import KnownSource
from lifelong.data.naming import natural, unique
from lifelong.data.split_names import SplitName
from lifelong.errors import LifelongError

Names = tuple[str, ...]


@dataclass(frozen=True)
class Arranged:
    """What the labels of a source mean.

    Attributes:
        classes: class names in label order.
        ids: for each part of the files the class id of each image.
        pools: for each split of the source, the parts that form it.
        numbers: the number by which a stream may name each class: the label itself if labels are numbers, else the class's position.
        notes: things a person should know.
    """

    classes: Names
    ids: Mapping[SplitName, Int64[Tensor, "_"]]
    pools: Mapping[SplitName, tuple[SplitName, ...]]
    numbers: tuple[int, ...]
    notes: tuple[str, ...] = ()


def arrange(entry: KnownSource, place: object, names: Mapping[SplitName, Names | None], stored: Mapping[SplitName, np.ndarray]) -> Arranged:
    """Make class ids of stored labels.

    Args:
        entry: the source.
        place: where its files are, for error lines.
        names: for each part of the files, its class names.
        stored: for each part the labels, int64 or strings.

    Raises:
        LifelongError: the labels are not those of the source, or contradict each other.
    """
    if not entry.classes:
        return _as_present(entry, place, names, stored)
    notes: tuple[str, ...] = ()
    if entry.parts and all(names[part] is None and labels.dtype != object for part, labels in stored.items()):
        ids = _numbered_parts(entry, place, stored)
        notes = ("The files do not name their classes: they are taken to be in the usual order.",)
    else:
        ids = {part: _known_ids(entry, place, part, names[part], labels) for part, labels in stored.items()}
    return Arranged(entry.classes, ids, _pools(entry, place, ids), tuple(range(len(entry.classes))), notes)


def _as_present(
    entry: KnownSource, place: object, names: Mapping[SplitName, Names | None], stored: Mapping[SplitName, np.ndarray]
) -> Arranged:
    """Arrange a user's own data: its classes are the labels that occur, ordered by number, or by name if they have no numbers."""
    named = names["train"]
    for part, others in names.items():
        if others != named:
            raise LifelongError(f"{place}: the classes of {part} are not those of train; write both with the same class names")
    if len({labels.dtype for labels in stored.values()}) > 1:
        raise LifelongError(f"{place}: its splits hold labels in different forms, numbers and names; use one form")
    if named is None and stored["train"].dtype == object:
        known: Names = tuple(sorted(set(np.concatenate(list(stored.values())).tolist()), key=natural))
        ids = {part: _ids(labels, known, place, part) for part, labels in stored.items()}
        return Arranged(known, ids, entry.pools, tuple(range(len(known))))
    numbered = {part: _ids(labels, named, place, part).numpy() for part, labels in stored.items()}
    present = np.unique(np.concatenate(list(numbered.values())))
    ids = {part: torch.from_numpy(np.searchsorted(present, labels)) for part, labels in numbered.items()}
    called = None if named is None else unique(named)
    classes = tuple(str(number) if called is None else called[number] for number in present.tolist())
    notes: tuple[str, ...] = ()
    if named is not None and len(classes) < len(named):
        absent = [name for number, name in enumerate(named) if number not in set(present.tolist())]
        some = f"{', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}"
        notes = (f"{len(absent)} of the {len(named)} classes that the files name have no image and are left out: {some}.",)
    return Arranged(classes, ids, entry.pools, tuple(present.tolist()), notes)


def _known_ids(entry: KnownSource, place: object, part: SplitName, names: Names | None, stored: np.ndarray) -> Int64[Tensor, "n"]:
    """Return ids among the classes of a known source, whatever order the files have them in."""
    if names is None or stored.dtype == object:
        return _ids(stored, entry.classes, place, part)
    if set(names) == set(entry.classes) or (entry.parts and set(names) <= set(entry.classes)):
        order = torch.tensor([entry.classes.index(name) for name in names])
    elif len(names) == len(entry.classes):
        order = torch.arange(len(names))  # spellings differ from copy to copy ('cra' for 'crab'): the place counts
    else:
        raise LifelongError(
            f"{place}: {len(names)} classes where source '{entry.name}' has {len(entry.classes)};"
            f" if it is a part of it or data of your own, use the source 'parquet:{entry.name}'"
        )
    return order[_ids(stored, names, place, part)]


def _numbered_parts(entry: KnownSource, place: object, stored: Mapping[SplitName, np.ndarray]) -> dict[SplitName, Int64[Tensor, "_"]]:
    """Return ids for files that give only numbers: from 0 in each file or across files, in the usual or alphabetic order of the classes.

    Raises:
        LifelongError: the numbers fit none of these forms.
    """
    usual = range(len(entry.classes))
    alphabetic = [entry.classes.index(name) for name in sorted(entry.classes)]
    starts = [0, *accumulate(entry.parts)][: len(entry.parts)]
    own = [range(start, start + count) for start, count in zip(starts, entry.parts, strict=True)]
    found = [set(labels.tolist()) for labels in stored.values()]
    offsets = dict.fromkeys(stored, 0)
    order: Sequence[int] = usual
    if len(stored) == len(own) and found == [set(range(count)) for count in entry.parts]:
        offsets = dict(zip(stored, starts, strict=True))
    elif len(stored) == len(own) and found == [{alphabetic.index(number) for number in part} for part in own]:
        order = alphabetic
    elif not (all(numbers == set(usual) for numbers in found) or found == [set(part) for part in own]):
        raise LifelongError(
            f"{place}: its labels are numbers without names that fit no known form of '{entry.name}'"
            f" ({', '.join(f'{part}: {len(numbers)} classes' for part, numbers in zip(stored, found, strict=True))});"
            " use files that name their classes, or all of train, valid and test"
        )
    return {part: torch.tensor(order)[torch.from_numpy(labels) + offsets[part]] for part, labels in stored.items()}


def _pools(entry: KnownSource, place: object, ids: Mapping[SplitName, Tensor]) -> Mapping[SplitName, tuple[SplitName, ...]]:
    """Return which files form which split: all form train if they divide the classes among themselves, else as the known source says."""
    found = [set(labels.tolist()) for labels in ids.values()]
    if not entry.parts or len(found) < 2 or any(one & other for one, other in combinations(found, 2)):
        return entry.pools
    if len(found) < len(entry.parts):
        raise LifelongError(
            f"{place}: {' and '.join(ids)} files have no class in common; put the other files of '{entry.name}' next to them"
        )
    return {"train": tuple(ids)}


def _ids(labels: np.ndarray, classes: Names | None, place: object, part: SplitName) -> Int64[Tensor, "n"]:
    """Convert labels to class ids and check each; without known classes every number >= 0 is a class."""
    if labels.dtype == object:
        assert classes is not None
        known = {name: number for number, name in enumerate(classes)}
        unknown = next((label for label in labels if label not in known), None)
        if unknown is not None:
            raise LifelongError(f"{place}: a label of {part} is '{unknown}', which is not one of the classes {', '.join(classes[:10])}")
        return torch.tensor([known[label] for label in labels], dtype=torch.int64)
    outside = np.flatnonzero((labels < 0) | (labels >= (np.inf if classes is None else len(classes))))
    if len(outside):
        row = int(outside[0])
        allowed = "below 0" if classes is None else f"outside 0..{len(classes) - 1}"
        every = f"; all of {part} are so: leave it out by naming the others (?train=...)" if len(outside) == len(labels) else ""
        raise LifelongError(f"{place}: row {row} of {part} has label {labels[row]}, {allowed}; correct or drop such rows{every}")
    return torch.from_numpy(labels)
