"""Build tasks from a stream's specification: the draws are made once and cheaply; images are loaded when a task's split is used."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from lifelong.data.address import PYTHON, parse_address
from lifelong.data.sources import Source, Sources
from lifelong.data.split_names import SPLITS, SplitName
from lifelong.data.task import Augmentation, Split, Task, TaskDescription
from lifelong.errors import LifelongError, near_miss
from lifelong.streams.checksums import Checksum
from lifelong.streams.deal import Deal
from lifelong.streams.leakage import Learned, check_classes, contents_of, remove_leakage, remove_leakage_from_learned
from lifelong.streams.objects import AsGiven
from lifelong.streams.selection import Selection, SourceLabels, generator
from lifelong.streams.spec import SameAs, StreamSpec, TaskSpec


@dataclass(frozen=True)
class Drawn:
    """What one task was dealt.

    Attributes:
        spec: its specification.
        source: where its images come from.
        ids: for each of its labels, the class id in the source.
        rows: for each split, the positions of its images in the source's pool.
        labels: for each split, their labels in the task.
        notes: things a person should know.
    """

    spec: TaskSpec
    source: Source
    ids: tuple[int, ...]
    rows: dict[SplitName, np.ndarray]
    labels: dict[SplitName, np.ndarray]
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names in label order."""
        return tuple(self.source.classes[number] for number in self.ids)

    @property
    def augmentation(self) -> Augmentation:
        """Return the augmentation of its training images: the specified one, else a crop, and a flip where that preserves the class."""
        if self.spec.augmentation is not None:
            return self.spec.augmentation
        return Augmentation(crop=self.spec.image_size // 8, flip=self.source.mirror)

    def pool(self, split: SplitName) -> SplitName:
        """Return the source's split that a split of the task comes from."""
        return split if self.source.has_split(split) else "train"

    def load(self, split: SplitName) -> Split:
        """Load the images of a split, transformed as specified."""
        rows = torch.from_numpy(self.rows[split])
        images = self.source.images(self.pool(split), rows, self.spec.image_size)
        return Split(self.spec.transform.images(images), torch.from_numpy(self.labels[split]))


class SpecStream:
    """A stream made from its specification and a seed. Images are decoded only when a split of a task is used.

    Args:
        spec: what its tasks consist of.
        seed: decides which images are drawn, and which classes where the specification leaves that open.
        sources: opens the image sources.
        learned: tasks that a method has learned before; images that conflict with them are left out.

    Raises:
        LifelongError: on first use, if data are missing or do not hold what the specification asks for.
    """

    def __init__(self, spec: StreamSpec, seed: int, sources: Sources, learned: Sequence[Learned] = ()) -> None:
        self.name = spec.name
        self.spec = spec
        self.seed = int(seed)
        self._sources = sources
        self._learned = learned

    def __len__(self) -> int:
        return len(self.spec.tasks)

    def __getitem__(self, index: int) -> Task:
        drawn = self._drawn[index]
        return Task(drawn.spec.name, drawn.classes, drawn.load, normalization=drawn.spec.normalization, augmentation=drawn.augmentation)

    def test_at(self, index: int, size: int) -> Split:
        """Return the test images of a task, in their order, as squares of another size."""
        drawn = self._drawn[index]
        return replace(drawn, spec=replace(drawn.spec, image_size=size)).load("test")

    def contents(self, index: int) -> dict[SplitName, np.ndarray]:
        """Return a 64-bit hash of each image of each split of a task, uint64; no image is decoded."""
        return contents_of(self._drawn[index].source, self._drawn[index].rows)

    def __iter__(self) -> Iterator[Task]:
        return (self[index] for index in range(len(self)))

    def describe(self) -> list[TaskDescription]:
        """Describe what each task holds, without decoding an image."""
        first = {drawn.spec.source: index for index, drawn in reversed(list(enumerate(self._drawn)))}
        return [
            TaskDescription(
                drawn.spec.name,
                drawn.spec.source,
                drawn.classes,
                *(len(drawn.rows[split]) for split in SPLITS),
                image_size=drawn.spec.image_size,
                transform=str(drawn.spec.transform),
                # Notes on a source appear once, with the first task that uses it.
                notes=(*(drawn.source.notes if first[drawn.spec.source] == index else ()), *drawn.notes),
                licence=drawn.source.licence,
            )
            for index, drawn in enumerate(self._drawn)
        ]

    @property
    def drawn(self) -> list[Drawn]:
        """Return what each task was dealt."""
        return self._drawn

    def prepare(self) -> None:
        """Decode into the cache what is not there yet, so that an image that cannot be used is found before anything is learned."""
        wanted = {(drawn.spec.source, drawn.pool(split), drawn.spec.image_size): drawn.source for drawn in self._drawn for split in SPLITS}
        for (_, pool, size), source in wanted.items():
            source.images(pool, torch.empty(0, dtype=torch.int64), size)

    def fingerprint(self) -> str:
        """Return a checksum over the images' content and order, labels, transforms, normalization and augmentation of all tasks."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        total = hashlib.sha256()
        for drawn in self._drawn:
            spec = drawn.spec
            what = [spec.name, drawn.classes, spec.image_size, repr(spec.transform), repr(spec.normalization), repr(drawn.augmentation)]
            total.update(json.dumps(what).encode())
            for split in SPLITS:
                total.update(drawn.source.fingerprint(drawn.pool(split)).encode())
                total.update(drawn.rows[split].tobytes())
                total.update(drawn.labels[split].tobytes())
        return total.hexdigest()

    def content(self) -> dict[str, Any]:
        """Describe what the stream is made of, whatever the seed; runs with different seeds belong together.

        Returns:
            "definition": a checksum over the specification of its tasks; "sources": for each name a checksum over its images and labels.
        """
        sources = {}
        for drawn in self._drawn:
            pools = [drawn.source.fingerprint(pool) for pool in SPLITS if drawn.source.has_split(pool)]
            sources[drawn.spec.drawn_by] = hashlib.sha256(json.dumps(pools).encode()).hexdigest()[:16]
        return {"definition": self.spec.definition(), "sources": sources}

    def checksum(self) -> Checksum:
        """Return checksums of what was drawn and from which labels; equal ones mean the same images under the same labels."""
        draws, labels = hashlib.sha256(), hashlib.sha256()
        for drawn in self._drawn:
            draws.update(json.dumps([drawn.spec.drawn_by, drawn.ids]).encode())
            for split in SPLITS:
                draws.update(drawn.rows[split].astype("<i8").tobytes())
                draws.update(drawn.labels[split].astype("<i8").tobytes())
        for name, source in sorted({(drawn.spec.drawn_by, drawn.spec.source) for drawn in self._drawn}):
            for pool, ids in self._held[source].labels.items():
                labels.update(json.dumps([name, pool]).encode())
                labels.update(ids.astype("<i8").tobytes())
        return Checksum(labels.hexdigest()[:16], draws.hexdigest()[:16])

    @cached_property
    def _opened(self) -> dict[str, Source]:
        return {task.source: self._sources.open(task.source, self.spec.base) for task in self.spec.tasks}

    @cached_property
    def _held(self) -> dict[str, SourceLabels]:
        return {name: SourceLabels.of(source) for name, source in self._opened.items()}

    @cached_property
    def _drawn(self) -> list[Drawn]:
        _check_apart(self.spec, self._opened)
        ids = _class_ids(self.spec, self._opened, self.seed)
        taken: dict[int, Selection] = {}
        for name, held in self._held.items():
            asking = [index for index, task in enumerate(self.spec.tasks) if task.source == name]
            draw = self.spec.draw.get(name, AsGiven() if any(self.spec.tasks[index].in_order for index in asking) else Deal())
            parts = draw.divide([self.spec.tasks[index] for index in asking], [ids[index] for index in asking], held, self.seed)
            taken.update(zip(asking, parts, strict=True))
        sources = [self._opened[task.source] for task in self.spec.tasks]
        apart = remove_leakage(self.spec.tasks, sources, [taken[index] for index in range(len(self))])
        if self._learned:
            apart = [
                remove_leakage_from_learned(task, contents_of(source, part.rows), part, self._learned)
                for task, source, part in zip(self.spec.tasks, sources, apart, strict=True)
            ]
        for index, (task, source, part) in enumerate(zip(self.spec.tasks, sources, apart, strict=True)):
            check_classes(task, source, taken[index], part)
        return [self._gather(*each) for each in zip(self.spec.tasks, sources, ids, apart, strict=True)]

    def _gather(self, task: TaskSpec, source: Source, ids: tuple[int, ...], taken: Selection) -> Drawn:
        """Label and shuffle a task's images, so that the beginning of a split is a fair sample of it."""
        order = tuple(ids[label] for label in task.transform.order(len(ids)).tolist())
        label_of = np.zeros(max(order) + 1, np.int64)
        label_of[list(order)] = np.arange(len(order))
        rows: dict[SplitName, np.ndarray] = {}
        labels: dict[SplitName, np.ndarray] = {}
        for split in SPLITS:
            count = len(taken.rows[split])
            mixed = np.arange(count) if task.in_order else generator(self.seed, task.name, split).permutation(count)
            rows[split] = taken.rows[split][mixed]
            labels[split] = label_of[taken.ids[split]][mixed]
        return Drawn(task, source, order, rows, labels, taken.notes)


def _check_apart(spec: StreamSpec, sources: dict[str, Source]) -> None:
    """Check that no two sources hold the same images: tasks would share them unnoticed."""
    seen: dict[str, str] = {}
    if len(sources) < 2:
        return
    for name, source in sources.items():
        if parse_address(name).kind == PYTHON:
            continue  # kept apart by the content of their images
        other = seen.setdefault(source.fingerprint("train"), name)
        if other != name:
            raise LifelongError(
                f"stream '{spec.name}': sources '{other}' and '{name}' hold the same images, which could not be kept apart; use one of them"
            )


def _class_ids(spec: StreamSpec, sources: dict[str, Source], seed: int) -> list[tuple[int, ...]]:
    """Return the class ids of each task in its source, in the order in which the task names them (before any shift of its labels)."""
    result: list[tuple[int, ...]] = []
    final: dict[str, tuple[str, ...]] = {}
    for index, task in enumerate(spec.tasks):
        source = sources[task.source]
        wanted = final[task.classes.task] if isinstance(task.classes, SameAs) else task.classes
        if wanted is None:
            ids = tuple(range(len(source.classes)))
        elif isinstance(wanted, int):
            if wanted > len(source.classes):
                raise LifelongError(f"task '{task.name}', classes = {wanted}: source '{source.name}' has {len(source.classes)} classes")
            drawn = generator(seed, task.drawn_by, "classes", index).permutation(len(source.classes))[:wanted]
            ids = tuple(drawn.tolist())
        else:
            ids = tuple(_class_id(task, source, word) for word in wanted)
        if len(set(ids)) < len(ids):
            twice = next(source.classes[number] for number in ids if ids.count(number) > 1)
            raise LifelongError(f"task '{task.name}': class '{twice}' is named twice, by its name and by its id; drop one")
        if len(ids) < 2:
            raise LifelongError(f"task '{task.name}': source '{source.name}' has only {len(ids)} class; a task needs at least 2")
        result.append(ids)
        final[task.name] = tuple(source.classes[ids[label]] for label in task.transform.order(len(ids)).tolist())
    return result


def _class_id(task: TaskSpec, source: Source, word: str | int) -> int:
    if isinstance(word, int):
        numbers = source.numbers
        if word not in numbers:
            known = f"0..{len(numbers) - 1}" if numbers == tuple(range(len(numbers))) else ", ".join(map(str, numbers[:10]))
            more = ", ..." if len(numbers) > 10 and known[:3] != "0.." else ""
            raise LifelongError(f"task '{task.name}', class {word}: source '{source.name}' has the class ids {known}{more}")
        return numbers.index(word)
    if word not in source.classes:
        raise LifelongError(f"task '{task.name}': source '{source.name}' has no class '{word}'{near_miss(word, source.classes)}")
    return source.classes.index(word)
