"""What methods that train on images of earlier tasks share: the store of images, what is kept of a task, and losses over several tasks.

Images are kept as they came, uint8 and un-augmented. When they are trained on they are augmented anew by their own task's policy,
normalized with their own task's statistics, and answered by their own task's head.

Batch norm. Where all tasks share one (``shared``, ``frozen``), samples of all tasks pass the network together: in training each batch
norm sees the mixed batch, at test it sees one task's images (a known cost of replay). Where a task has statistics of its own
(``per-task-stats``, ``per-task``), each task's samples pass by themselves, by their own batch norm; tasks that are not being learned
pass in evaluation mode, since a handful of their images would only spoil statistics that were taken over all of them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from lifelong.data.augment import augment, normalize
from lifelong.data.task import Augmentation, Normalization
from lifelong.methods.method import Context
from lifelong.methods.single import SingleNetworkMethod
from lifelong.networks.tasknorm import use_task
from lifelong.settings.baselines import SharedBackboneSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples
from lifelong.training.stages import derive_seed


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
    """Images of one task, and how they are prepared.

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
        """Copies of some of them."""
        return KeptImages(self.images[rows], self.labels[rows], self.normalization, self.augmentation)

    def part(self, task: int, generator: torch.Generator | None) -> Part:
        """All of them, prepared; augmented where there is a generator."""
        images = self.images if generator is None else augment(self.images, self.augmentation, generator)
        return Part(task, normalize(images, self.normalization), self.labels)


class ImageStore:
    """Images of the tasks seen so far; their positions count through the tasks in order.

    Attributes:
        tasks: what is kept of each task, in the order of the stream.
    """

    def __init__(self, tasks: Sequence[KeptImages] = ()) -> None:
        self.tasks = list(tasks)

    def __len__(self) -> int:
        return sum(self.counts())

    def draw(self, count: int, generator: torch.Generator) -> Int64[Tensor, "k"]:
        """Positions of `count` different images, all equally likely; of all images where there are no more."""
        return torch.randperm(len(self), generator=generator, device=generator.device)[:count]

    def parts(self, positions: Int64[Tensor, "k"], generator: torch.Generator | None) -> list[Part]:
        """Images as the network takes them, a part for each task among them, in the order of tasks.

        Args:
            positions: which; those of one task stay in their order.
            generator: of random augmentation; None: no augmentation.
        """
        grouped = enumerate(zip(self.tasks, self._by_task(positions), strict=True))
        return [kept.rows(rows).part(task, generator) for task, (kept, rows) in grouped if len(rows)]

    def keep(self, positions: Int64[Tensor, "k"]) -> None:
        """Let all other images go."""
        self.tasks = [kept.rows(rows) for kept, rows in zip(self.tasks, self._by_task(positions), strict=True)]

    def counts(self) -> tuple[int, ...]:
        """Images of each task."""
        return tuple(len(kept.labels) for kept in self.tasks)

    def labels(self) -> Int64[Tensor, "n"]:
        """The class ids of all images, each its own task's."""
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
        """Images, labels and how they are prepared, by task."""
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
    def from_state(cls, state: Tree, device: torch.device | str) -> "ImageStore":
        """What `state_dict` described, on a device."""
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
        """Positions as rows of each task's images; those of one task in the order in which they were given."""
        *starts, _ = bounds = list(itertools.accumulate(self.counts(), initial=0))
        ends = torch.tensor(bounds[1:], dtype=torch.int64, device=positions.device)
        owners, order = torch.bucketize(positions, ends, right=True).sort(stable=True)
        counts = owners.bincount(minlength=len(self.tasks)).tolist()
        return [rows - start for rows, start in zip(positions[order].split(counts), starts, strict=True)]


def ring(labels: Int64[Tensor, "n"], quota: int) -> Int64[Tensor, "k"]:
    """What a first-in-first-out buffer of `quota` places for each class holds after a sequence of labels.

    Args:
        labels: class ids in the order of arrival.
        quota: places of a class.

    Returns:
        Places in the sequence, class by class, the oldest of a class first.
    """
    return torch.cat([(labels == label).nonzero().squeeze(1)[-quota:] for label in labels.unique()])


def reservoir(held: int, seen: int, arriving: int, capacity: int, generator: torch.Generator) -> list[int]:
    """Reservoir sampling: what a memory of fixed size holds after more samples have arrived.

    Args:
        held: samples in the memory, numbered 0..held-1: all that were seen, or as many as it can hold.
        seen: samples that have arrived before; the memory is a uniform choice of them.
        arriving: samples that arrive now, numbered held..held+arriving-1.
        capacity: samples that the memory can hold, always the same.
        generator: on the CPU.

    Returns:
        The numbers of what is held now: a uniform choice of all that have arrived.

    Source: Vitter 1985, algorithm R; Chaudhry et al. 2019, "On Tiny Episodic Memories": the sample that arrives after n
    others takes the place j drawn from 0..n, if there is such a place.
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


def mixed_features(network: nn.Module, parts: Sequence[Part], *, own_statistics: bool, learning: range) -> list[Tensor]:
    """What a network makes of the samples of several tasks, part by part.

    Args:
        network: images (b, 3, h, w) to features (b, d).
        parts: at most one a task.
        own_statistics: whether each task has batch-norm statistics of its own, so that its samples pass by themselves.
        learning: the tasks whose statistics are being taken; the samples of others pass in evaluation mode, and so does a sample
            that is its task's only one, of which batch norm can make nothing. Matters only with `own_statistics`.

    Returns:
        Of each part (b, d).
    """
    if not own_statistics:
        return _together(network, parts)
    training = network.training
    features = []
    for part in parts:
        use_task(network, part.task)
        network.train(training and part.task in learning and len(part.labels) > 1)
        features.append(network(part.inputs))
    network.train(training)
    return features


def _together(network: nn.Module, parts: Sequence[Part]) -> list[Tensor]:
    """One pass for all; one for each size, where tasks have images of several sizes."""
    features: dict[int, Tensor] = {}
    for size in dict.fromkeys(part.inputs.shape[1:] for part in parts):
        chosen = [part for part in parts if part.inputs.shape[1:] == size]
        passed = network(torch.cat([part.inputs for part in chosen]))
        counts = [len(part.labels) for part in chosen]
        features |= {part.task: piece for part, piece in zip(chosen, passed.split(counts), strict=True)}
    return [features[part.task] for part in parts]


def mixed_cross_entropy(features: Sequence[Tensor], parts: Sequence[Part], heads: Sequence[nn.Module]) -> Float[Tensor, ""]:
    """The mean cross-entropy over all samples of a mixed batch, each by its own task's head.

    Args:
        features: of each part, (b, d).
        parts: whose labels are wanted.
        heads: of all tasks, (b, d) to (b, C).
    """
    losses = [F.cross_entropy(heads[p.task](f), p.labels, reduction="sum") for f, p in zip(features, parts, strict=True)]
    return torch.stack(losses).sum() / sum(len(part.labels) for part in parts)


def has_own_statistics(settings: SharedBackboneSettings) -> bool:
    """Whether each task has batch-norm statistics of its own."""
    return settings.batch_norm in ("per-task-stats", "per-task")


class ReplayMethod(SingleNetworkMethod):
    """A network with an episodic memory: a few images of each earlier task.

    While a task is learned the memory holds earlier tasks only. When it has been learned, each of its training images is offered to
    the memory once, however many epochs there were, in a random order.

    Attributes:
        store: the memory.
        seen: training images offered to it so far.
    """

    def __init__(self, settings: object) -> None:
        super().__init__(settings)
        self.store = ImageStore()
        self.seen = 0

    def consolidate(self, examples: Examples, context: Context) -> None:
        """Offer the task's training images to the memory."""
        generator = torch.Generator().manual_seed(derive_seed(context.seed, context.task_index, "memory"))
        order = torch.randperm(len(examples.train_labels), generator=generator).to(examples.train.device)
        assert examples.normalization is not None, "images are kept, not features"
        arrived = KeptImages(examples.train, examples.train_labels, examples.normalization, examples.augmentation)
        admitted = self.admit(examples.train_labels, order, generator)
        self.store.tasks.append(arrived.rows(admitted))
        self.seen += len(order)

    def admit(self, labels: Int64[Tensor, "n"], order: Int64[Tensor, "n"], generator: torch.Generator) -> Int64[Tensor, "k"]:
        """Decide which images of a task come into the memory, and let those go that must give way; a ring for each class.

        Args:
            labels: of the task's training images.
            order: in which they arrive.
            generator: on the CPU.

        Returns:
            Rows of the task's images.
        """
        return order[ring(labels[order], self.settings.memory_per_class)]

    def replayed(self, generator: torch.Generator) -> list[Part]:
        """A memory batch: `memory_batch` different images, all equally likely, augmented; all of them where there are no more."""
        return self.store.parts(self.store.draw(self.settings.memory_batch, generator), generator)

    def mean_loss(self, parts: Sequence[Part], heads: Sequence[nn.Module]) -> Float[Tensor, ""]:
        """The mean cross-entropy of a mixed batch while the task after the last of `tasks` is being learned."""
        index = len(self.tasks)
        features = mixed_features(
            self._network(), parts, own_statistics=has_own_statistics(self.settings), learning=range(index, index + 1)
        )
        return mixed_cross_entropy(features, parts, heads)

    def memory(self) -> dict[str, int]:
        """The images kept and their labels."""
        return super().memory() | {"exemplars": self.store.image_bytes, "exemplar labels": self.store.label_bytes}

    def state_dict(self) -> Tree:
        """Also the memory."""
        return super().state_dict() | {"store": self.store.state_dict(), "seen": self.seen}

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Become what `state_dict` described, on a device."""
        super().load_state_dict(state, device)
        self.store, self.seen = ImageStore.from_state(state["store"], device), state["seen"]
