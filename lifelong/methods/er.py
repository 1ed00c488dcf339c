"""ER: Experience Replay (Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning", arXiv 1902.10486).

Each training step adds to its batch B of the task at hand a batch B_M of the memory M of earlier tasks (the paper's algorithm 1):

    L = (1 / (|B| + |B_M|)) [sum over B of CE + sum over (x, y, k) in B_M of CE by head k]

The memory is written to by one of two of the paper's rules:

``ring``
    The last `memory_per_class` images of each class (first in, first out): balanced, and as large as the classes seen demand.
``reservoir``
    `memory_size` images in all, a uniform choice of every training image seen so far. The size is fixed, as in the paper:
    a reservoir that grew with the classes could not be uniform, since what it once let go does not come back. So the first tasks
    fill it whole, and give way later; it is not balanced by classes.

Choices where the paper is silent, or another setting than its single epoch is meant:

- Several epochs: the memory holds only earlier tasks while a task is learned, and is offered each image once afterwards (as MNTDP).
- Images are kept un-augmented and augmented when replayed, by their own task's policy; normalized with their own task's statistics.
- The memory batch is `memory_batch` different images, or the whole memory if that is smaller. The paper has 10 next to batches of
  10; the default is as large as PAR's batch of 64. 15 images a class are MNTDP's.
- All heads are trained, since the memory's samples give gradients to theirs.
- Batch norm: see `lifelong.methods.replay`. The epoch is chosen by the new task's validation images alone, as everywhere.
"""

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from lifelong.methods.replay import ReplayMethod
from lifelong.methods.replay_buffer import Part, reservoir
from lifelong.settings.baselines import ERSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import Batch, Loss


class ER(ReplayMethod[ERSettings]):
    """Cross-entropy on the new task's batch and a memory batch together."""

    name = "er"

    def trained_heads(self) -> list[nn.Module]:
        """Return all old heads, which replayed samples train."""
        return list(self.heads)

    def loss(self, head: nn.Module, examples: Examples) -> Loss | None:
        """Return the loss of Algorithm 1; plain cross-entropy while the memory is empty."""
        if not len(self.buffer):
            return None
        index, heads = len(self.tasks), [*self.heads, head]

        def loss(batch: Batch) -> Tensor:
            return self.mean_loss([*self.replayed(batch), Part(index, batch.inputs, batch.labels)], heads)

        return loss

    def admit(self, labels: Int64[Tensor, "n"], order: Int64[Tensor, "n"], generator: torch.Generator) -> Int64[Tensor, "k"]:
        """Choose the images to keep by `memory_policy`."""
        if self.settings.memory_policy == "ring":
            return super().admit(labels, order, generator)
        held = len(self.buffer)
        numbers = torch.tensor(reservoir(held, self.seen, len(order), self.settings.memory_size, generator), device=order.device)
        self.buffer.keep(numbers[numbers < held])
        return order[numbers[numbers >= held] - held]
