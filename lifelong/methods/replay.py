"""The common part of replay methods: losses over several tasks, and a memory that is written after each task.

Each image is prepared as its own task's (`ReplayBuffer`) and answered by its own task's head.

Batch norm. Where all tasks share one (``shared``, ``frozen``), samples of all tasks pass the network together: in training each batch
norm sees the mixed batch, at test it sees one task's images (a known cost of replay). Where a task has statistics of its own
(``per-task-stats``, ``per-task``), each task's samples pass by themselves, by their own batch norm; tasks that are not being learned
pass in evaluation mode, since a handful of their images would only spoil statistics that were taken over all of them.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lifelong.methods.backbone import has_own_statistics
from lifelong.methods.method import Context
from lifelong.methods.replay_buffer import KeptImages, Part, ReplayBuffer, ring
from lifelong.methods.single import SingleNetworkMethod
from lifelong.networks.tasknorm import use_task
from lifelong.settings.baselines import ReplaySettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples
from lifelong.training.fit import Batch
from lifelong.training.stages import derive_seed


def mixed_features(network: nn.Module, parts: Sequence[Part], *, own_statistics: bool, learning: range) -> list[Tensor]:
    """Compute features of the samples of several tasks, part by part.

    Args:
        network: images (b, 3, h, w) to features (b, d).
        parts: at most one per task.
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
    """Run one pass for all parts, or one per image size if sizes differ."""
    features: dict[int, Tensor] = {}
    for size in dict.fromkeys(part.inputs.shape[1:] for part in parts):
        chosen = [part for part in parts if part.inputs.shape[1:] == size]
        passed = network(torch.cat([part.inputs for part in chosen]))
        counts = [len(part.labels) for part in chosen]
        features |= {part.task: piece for part, piece in zip(chosen, passed.split(counts), strict=True)}
    return [features[part.task] for part in parts]


def mixed_cross_entropy(features: Sequence[Tensor], parts: Sequence[Part], heads: Sequence[nn.Module]) -> Float[Tensor, ""]:
    """Compute the mean cross-entropy over all samples of a mixed batch, each by its own task's head.

    Args:
        features: of each part, (b, d).
        parts: whose labels are wanted.
        heads: of all tasks, (b, d) to (b, C).
    """
    losses = [F.cross_entropy(heads[p.task](f), p.labels, reduction="sum") for f, p in zip(features, parts, strict=True)]
    return torch.stack(losses).sum() / sum(len(part.labels) for part in parts)


ReplaySettingsT = TypeVar("ReplaySettingsT", bound=ReplaySettings)


class ReplayMethod(SingleNetworkMethod[ReplaySettingsT]):
    """A network with an episodic memory: a few images of each earlier task.

    While a task is learned the memory holds earlier tasks only. When it has been learned, each of its training images is offered to
    the memory once, however many epochs there were, in a random order.

    Attributes:
        buffer: the memory.
        seen: training images offered to it so far.
    """

    def __init__(self, settings: ReplaySettingsT) -> None:
        super().__init__(settings)
        self.buffer = ReplayBuffer()
        self.seen = 0

    def consolidate(self, examples: Examples, context: Context) -> None:
        """Offer the task's training images to the memory."""
        generator = torch.Generator().manual_seed(derive_seed(context.seed, context.task_index, "memory"))
        order = torch.randperm(len(examples.train_labels), generator=generator).to(examples.train.device)
        assert examples.normalization is not None, "images are kept, not features"
        arrived = KeptImages(examples.train, examples.train_labels, examples.normalization, examples.augmentation)
        admitted = self.admit(examples.train_labels, order, generator)
        self.buffer.tasks.append(arrived.rows(admitted))
        self.seen += len(order)

    def admit(self, labels: Int64[Tensor, "n"], order: Int64[Tensor, "n"], generator: torch.Generator) -> Int64[Tensor, "k"]:
        """Choose the images of a task to keep, and evict those that give way; by default a ring per class.

        Args:
            labels: of the task's training images.
            order: in which they arrive.
            generator: on the CPU.

        Returns:
            Rows of the task's images.
        """
        return order[ring(labels[order], self.settings.memory_per_class)]

    def replayed(self, batch: Batch) -> list[Part]:
        """Draw a memory batch: `memory_batch` different images, uniformly, augmented; all of them if there are no more.

        Args:
            batch: whose generators are used: the host's to choose images, since the sizes of parts depend on the choice.
        """
        return self.buffer.parts(self.buffer.draw(self.settings.memory_batch, batch.host_generator), batch.generator)

    def mean_loss(self, parts: Sequence[Part], heads: Sequence[nn.Module]) -> Float[Tensor, ""]:
        """Compute the mean cross-entropy of a mixed batch while the task after the last of `tasks` is being learned."""
        index = len(self.tasks)
        features = mixed_features(
            self._network(), parts, own_statistics=has_own_statistics(self.settings), learning=range(index, index + 1)
        )
        return mixed_cross_entropy(features, parts, heads)

    def memory(self) -> dict[str, int]:
        """Count the bytes of the images kept and their labels."""
        return super().memory() | {"exemplars": self.buffer.image_bytes, "exemplar labels": self.buffer.label_bytes}

    def state_dict(self) -> Tree:
        """Return the state, with the memory."""
        return super().state_dict() | {"store": self.buffer.state_dict(), "seen": self.seen}

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        super().load_state_dict(state, device)
        self.buffer, self.seen = ReplayBuffer.from_state(state["store"], device), state["seen"]
