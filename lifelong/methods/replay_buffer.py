"""The replay buffer: images of several tasks, and the rules by which a memory of limited size selects them.

Images are stored as uint8 without augmentation. Each time they are used they are augmented by their own task's policy and normalized with
their own task's statistics.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from lifelong.data.augment import augment, normalize
from lifelong.data.task import Augmentation, Normalization
from lifelong.storage import Tree


@dataclass(frozen=True)
class Part:
    """The samples of one task in a batch that mixes tasks.

    Attributes:
        task: the task, from 0.
        inputs: prepared images.
        labels: class ids of that task.
    """

    task: int
    inputs: Float[Tensor, "b 3 h w"]
    labels: Int64[Tensor, "b"]


@dataclass(frozen=True)
class KeptImages:
    """Images of one task, with their preparation.

    Attributes:
        images: un-augmented.
        labels: class ids of that task.
        normalization: with that task's statistics.
        augmentation: that task's policy for training.
    """

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int64[Tensor, "n"]
    normalization: Normalization
    augmentation: Augmentation

    def rows(self, rows: Int64[Tensor, "k"]) -> "KeptImages":
        """Copy some of the images; the rows may be on the host, which does not wait for the device."""
        there = rows.to(self.images.device, non_blocking=True)
        return KeptImages(self.images[there], self.labels[there], self.normalization, self.augmentation)

    def part(self, task: int, generator: torch.Generator | None) -> Part:
        """Prepare all images; augment them if there is a generator."""
        images = self.images if generator is None else augment(self.images, self.augmentation, generator)
        return Part(task, normalize(images, self.normalization), self.labels)


class ReplayBuffer:
    """Images of the tasks seen so far; their positions count through the tasks in order.

    Attributes:
        tasks: the images kept of each task, in the order of the stream.
    """

    def __init__(self, tasks: Sequence[KeptImages] = ()) -> None:
        self.tasks = list(tasks)

    def __len__(self) -> int:
        return sum(self.counts())

    def draw(self, count: int, generator: torch.Generator) -> Int64[Tensor, "k"]:
        """Draw positions of `count` different images uniformly, or of all images if there are no more; on the generator's device."""
        return torch.randperm(len(self), generator=generator, device=generator.device)[:count]

    def parts(self, positions: Int64[Tensor, "k"], generator: torch.Generator | None) -> list[Part]:
        """Prepare images for the network, one part per task, in the order of tasks.

        Args:
            positions: which; those of one task stay in their order. On the host, or it has to wait for them.
            generator: of random augmentation; None: no augmentation.
        """
        grouped = enumerate(zip(self.tasks, self._by_task(positions), strict=True))
        return [kept.rows(rows).part(task, generator) for task, (kept, rows) in grouped if len(rows)]

    def keep(self, positions: Int64[Tensor, "k"]) -> None:
        """Keep only these images."""
        self.tasks = [kept.rows(rows) for kept, rows in zip(self.tasks, self._by_task(positions), strict=True)]

    def counts(self) -> tuple[int, ...]:
        """Count the images of each task."""
        return tuple(len(kept.labels) for kept in self.tasks)

    def labels(self) -> Int64[Tensor, "n"]:
        """Return the class ids of all images, numbered within their own task."""
        return torch.cat([kept.labels for kept in self.tasks])

    @property
    def image_bytes(self) -> int:
        """Bytes of all images."""
        return sum(kept.images.nbytes for kept in self.tasks)

    @property
    def label_bytes(self) -> int:
        """Bytes of all labels."""
        return sum(kept.labels.nbytes for kept in self.tasks)

    def state_dict(self) -> Tree:
        """Return images, labels and their preparation, by task."""
        return [
            {
                "images": kept.images,
                "labels": kept.labels,
                "normalization": asdict(kept.normalization),
                "augmentation": asdict(kept.augmentation),
            }
            for kept in self.tasks
        ]

    @classmethod
    def from_state(cls, state: Tree, device: torch.device | str) -> "ReplayBuffer":
        """Restore what `state_dict` returned, on a device."""
        return cls(
            [
                KeptImages(
                    kept["images"].to(device),
                    kept["labels"].to(device),
                    Normalization(**kept["normalization"]),
                    Augmentation(**kept["augmentation"]),
                )
                for kept in state
            ]
        )

    def _by_task(self, positions: Int64[Tensor, "k"]) -> list[Int64[Tensor, "_"]]:
        """Split positions into rows of each task's images, on the host; the given order is kept within a task."""
        *starts, _ = bounds = list(itertools.accumulate(self.counts(), initial=0))
        here = positions.cpu()
        owners, order = torch.bucketize(here, torch.tensor(bounds[1:], dtype=torch.int64), right=True).sort(stable=True)
        counts = owners.bincount(minlength=len(self.tasks)).tolist()
        return [rows - start for rows, start in zip(here[order].split(counts), starts, strict=True)]


def ring(labels: Int64[Tensor, "n"], quota: int) -> Int64[Tensor, "k"]:
    """Select what a first-in-first-out buffer of `quota` slots per class holds after a sequence of labels.

    Args:
        labels: class ids in the order of arrival.
        quota: slots per class.

    Returns:
        Positions in the sequence, class by class, the oldest of a class first.
    """
    return torch.cat([(labels == label).nonzero().squeeze(1)[-quota:] for label in labels.unique()])


def reservoir(held: int, seen: int, arriving: int, capacity: int, generator: torch.Generator) -> list[int]:
    """Select by reservoir sampling what a memory of fixed size holds after more samples have arrived.

    Args:
        held: samples in the memory, numbered 0..held-1: all that were seen, or as many as it can hold.
        seen: samples that have arrived before; the memory is a uniform choice of them.
        arriving: samples that arrive now, numbered held..held+arriving-1.
        capacity: samples that the memory can hold, always the same.
        generator: on the CPU.

    Returns:
        The numbers of what is held now: a uniform choice of all that have arrived.

    Source: Vitter 1985, algorithm R; Chaudhry et al. 2019, "On Tiny Episodic Memories": the sample that arrives after n
    others takes the slot j drawn from 0..n, if there is such a slot.
    """
    memory = list(range(held))
    before = torch.arange(seen, seen + arriving)
    places = (torch.rand(arriving, dtype=torch.float64, generator=generator) * (before + 1)).long().tolist()
    for number, place in enumerate(places, start=held):
        if len(memory) < capacity:
            memory.append(number)
        elif place < capacity:
            memory[place] = number
    return memory
