"""Keep validation and test images out of training: no copy of an image in two files, and none across tasks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from lifelong.data.sources import Source
from lifelong.data.split_names import IN_WORDS, SPLITS, SplitName
from lifelong.errors import LifelongError
from lifelong.streams.selection import Selection
from lifelong.streams.spec import TaskSpec

Contents = Mapping[SplitName, np.ndarray]
"""The content of each image of each split, as `Source.contents` hashes it, uint64."""


@dataclass(frozen=True)
class Learned:
    """A task that was learned earlier.

    Attributes:
        name: the task's name.
        contents: the hashes of its images.
    """

    name: str
    contents: Contents


def remove_leakage(tasks: Sequence[TaskSpec], sources: Sequence[Source], taken: Sequence[Selection]) -> list[Selection]:
    """Leave out training images that equal a validation or test image of any task, and validation images that equal a test image.

    Sources do hold the same file twice. The copy in the evaluation split stays, so that accuracies are over the requested images; the
    task's notes say what was left out.

    Args:
        tasks: the tasks of a stream.
        sources: for each of them, its source.
        taken: for each of them, its images.

    Raises:
        LifelongError: a split has no images left.
    """
    known = cache(Source.contents)  # asked once per pool, not once per task
    contents = [contents_of(source, part.rows, known) for source, part in zip(sources, taken, strict=True)]
    tests = np.unique(np.concatenate([each["test"] for each in contents]))
    judged = np.union1d(tests, np.concatenate([each["valid"] for each in contents]))
    result = []
    for task, part, content in zip(tasks, taken, contents, strict=True):
        kept: dict[SplitName, np.ndarray] = {"train": ~_among(content["train"], judged), "valid": ~_among(content["valid"], tests)}
        result.append(_keep(task, part, kept))
    return result


def remove_leakage_from_learned(task: TaskSpec, contents: Contents, part: Selection, learned: Sequence[Learned]) -> Selection:
    """Leave out of a new task what conflicts with tasks that a method has learned, which cannot be changed any more.

    These are training images that equal a validation or test image of theirs, validation images that equal a test image, and test images
    that they were trained or validated on. Validation images that they were trained on stay, and are counted in a note.

    Args:
        task: the new task.
        contents: the hashes of its images.
        part: its images.
        learned: the tasks learned before.

    Raises:
        LifelongError: a split has no images left.
    """
    against: dict[SplitName, tuple[tuple[SplitName, ...], str]] = {
        "train": (("valid", "test"), "task '{}' is evaluated on"),
        "valid": (("test",), "task '{}' is evaluated on"),
        "test": (("train", "valid"), "task '{}' was trained or validated on"),
    }
    rows, ids, notes = dict(part.rows), dict(part.ids), list(part.notes)
    for split, (others, words) in against.items():
        keep = np.ones(len(rows[split]), dtype=bool)
        for before in learned:
            hit = keep & np.isin(contents[split], np.concatenate([before.contents[other] for other in others]))
            if not hit.any():
                continue
            keep &= ~hit
            what = f"{_counted(hit, split)} left out: the same content is among what {words.format(before.name)}."
            if not keep.any():
                raise LifelongError(
                    f"task '{task.name}', source '{task.source}': no {IN_WORDS[split]} image is left ({what.rstrip('.')});"
                    " give images that the run has not seen"
                )
            notes.append(what)
        rows[split], ids[split] = rows[split][keep], ids[split][keep]
    for before in learned:
        hit = np.isin(contents["valid"], before.contents["train"])
        if hit.any():
            notes.append(
                f"{_counted(hit, 'valid')} with content that task '{before.name}' was trained on: model selection on them is optimistic."
            )
    return replace(part, rows=rows, ids=ids, notes=tuple(notes))


def check_classes(task: TaskSpec, source: Source, before: Selection, after: Selection) -> None:
    """Check that every class that had training images still has one: without any, it cannot be learned.

    Args:
        task: the task.
        source: of its images.
        before: its images.
        after: those that are not left out.

    Raises:
        LifelongError: a class has none.
    """
    for number in np.setdiff1d(before.ids["train"], after.ids["train"]):
        count = int((before.ids["train"] == number).sum())
        raise LifelongError(
            f"task '{task.name}', class '{source.classes[number]}' of source '{task.source}': no training image is left, since what it had"
            f" ({count}) is also among the images that a task is evaluated on; give it other images, or leave the class out"
        )


def _counted(which: np.ndarray, split: SplitName) -> str:
    """Count images in words, such as "3 training images"."""
    count = int(which.sum())
    return f"{count} {IN_WORDS[split]} image{'s' if count > 1 else ''}"


def contents_of(
    source: Source, rows: Mapping[SplitName, np.ndarray], known: Callable[[Source, SplitName], np.ndarray] = Source.contents
) -> dict[SplitName, np.ndarray]:
    """Return a hash of the content of each image of each split, by their rows in the source."""
    return {split: known(source, split if source.has_split(split) else "train")[rows[split]] for split in SPLITS}


def _among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return which values are among the known ones, which are sorted; `np.isin` would sort them again for every task."""
    place = np.searchsorted(known, values).clip(max=len(known) - 1)
    return known[place] == values


def _keep(task: TaskSpec, part: Selection, kept: dict[SplitName, np.ndarray]) -> Selection:
    rows, ids, notes = dict(part.rows), dict(part.ids), list(part.notes)
    for split, keep in kept.items():
        if keep.all():
            continue
        others = "validation or test" if split == "train" else "test"
        if not keep.any():
            raise LifelongError(
                f"task '{task.name}', source '{task.source}': every one of its {len(keep)} {IN_WORDS[split]} images is also a {others}"
                " image of the stream (the same file content); remove the copies from the source"
            )
        notes.append(f"{_counted(~keep, split)} left out: the source holds the same content among the stream's {others} images.")
        rows[split], ids[split] = rows[split][keep], ids[split][keep]
    return replace(part, rows=rows, ids=ids, notes=tuple(notes))
