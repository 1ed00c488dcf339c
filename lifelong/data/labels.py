"""Stored labels as class ids: which classes a source has, in which order, and which of its files make which split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from lifelong.data.catalog import Entry, PoolName
from lifelong.data.naming import natural, unique
from lifelong.errors import LifelongError

Names = tuple[str, ...]


@dataclass(frozen=True)
class Arranged:
    """What the labels of a source mean.

    Attributes:
        classes: class names in label order.
        ids: for each part of the files the class id of each image.
        pools: for each split of the source, the parts that make it.
        notes: things a person should know.
    """

    classes: Names
    ids: Mapping[PoolName, Int64[Tensor, "_"]]
    pools: Mapping[PoolName, tuple[PoolName, ...]]
    notes: tuple[str, ...] = ()


def arrange(entry: Entry, place: object, names: Mapping[PoolName, Names | None], stored: Mapping[PoolName, np.ndarray]) -> Arranged:
    """Make class ids of stored labels.

    Args:
        entry: what is known of the source.
        place: where its files are, for error lines.
        names: for each part of the files, the class names that they give.
        stored: for each part the labels, int64 or strings.

    Raises:
        LifelongError: the labels are not those of the source, or contradict each other.
    """
    if not entry.classes:
        classes = _own_classes(place, names, stored)
        return Arranged(classes, {part: _ids(stored[part], classes, place, part) for part in stored}, entry.pools)
    notes: tuple[str, ...] = ()
    if entry.parts and all(names[part] is None and labels.dtype != object for part, labels in stored.items()):
        ids = _numbered_parts(entry, place, stored)
        notes = ("The files do not name their classes: they are taken to be in the usual order.",)
    else:
        ids = {part: _known_ids(entry, place, part, names[part], labels) for part, labels in stored.items()}
    return Arranged(entry.classes, ids, _pools(entry, place, ids), notes)


def _own_classes(place: object, names: Mapping[PoolName, Names | None], stored: Mapping[PoolName, np.ndarray]) -> Names:
    """The class names that the files give, else the labels themselves."""
    named = names["train"]
    for part, others in names.items():
        if others != named:
            raise LifelongError(f"{place}: the classes of {part} are not those of train; write both with the same class names")
    if named:
        return unique(named)
    if len({labels.dtype for labels in stored.values()}) > 1:
        raise LifelongError(f"{place}: its splits hold labels in different forms, numbers and names; use one form")
    labels = np.concatenate(list(stored.values()))
    if labels.dtype == object:
        return tuple(sorted(set(labels.tolist()), key=natural))
    return tuple(str(number) for number in range(int(labels.max()) + 1))


def _known_ids(entry: Entry, place: object, part: PoolName, names: Names | None, stored: np.ndarray) -> Int64[Tensor, "n"]:
    """Ids among the classes of the catalogue, whatever the order in which the files have them."""
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


def _numbered_parts(entry: Entry, place: object, stored: Mapping[PoolName, np.ndarray]) -> dict[PoolName, Int64[Tensor, "_"]]:
    """Ids where the files give only numbers: from 0 in each file, or throughout, in the usual or the alphabetic order of the classes.

    Raises:
        LifelongError: the numbers fit none of these.
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


def _pools(entry: Entry, place: object, ids: Mapping[PoolName, Tensor]) -> Mapping[PoolName, tuple[PoolName, ...]]:
    """All files as one split where they divide the classes among themselves, else as the catalogue says."""
    found = [set(labels.tolist()) for labels in ids.values()]
    if not entry.parts or len(found) < 2 or any(one & other for one, other in combinations(found, 2)):
        return entry.pools
    if len(found) < len(entry.parts):
        raise LifelongError(f"{place}: {' and '.join(ids)} files that share no class; put the other files of '{entry.name}' beside them")
    return {"train": tuple(ids)}


def _ids(labels: np.ndarray, classes: Names, place: object, part: PoolName) -> Int64[Tensor, "n"]:
    """Labels as class ids, each checked."""
    if labels.dtype == object:
        known = {name: number for number, name in enumerate(classes)}
        unknown = next((label for label in labels if label not in known), None)
        if unknown is not None:
            raise LifelongError(f"{place}: a label of {part} is '{unknown}', which is none of the classes {', '.join(classes[:10])}")
        return torch.tensor([known[label] for label in labels])
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        row = int(outside[0])
        raise LifelongError(f"{place}: row {row} of {part} has label {labels[row]}, outside 0..{len(classes) - 1}; mend or drop such rows")
    return torch.from_numpy(labels)
