"""Joint: one network trained on the images of all tasks at once (upper bound).

At every task a network and a head for each task seen are trained on everything seen so far ("sequential joint"), so that there is an
accuracy on every task after every task:

    L = (1 / N) sum over tasks k, sum over (x, y) of task k of CE by head k,    N images in all

Not a lifelong learner: it keeps every training and validation image of every task, and `memory()` counts them.

Choices:

- It starts afresh at every task, from the initial weights that the first task's seed gives the backbone and each task's own seed gives
  its head. So the last network is what training on everything at once gives, whatever the order of tasks; to continue from earlier weights
  would train it many times as long and start it from a poorer place (Ash & Adams, NeurIPS 2020). The cost is in the records: t tasks
  of n images are t(t + 1) / 2 n images an epoch.
- An epoch passes over all images once, in batches drawn from all tasks alike: larger tasks weigh more, as in the sum above. Each image is
  augmented by its own task's policy, normalized with its own task's statistics and answered by its own task's head.
- The epoch is chosen by the validation images of all tasks, each image counting once: choosing by the last task's alone would favour it.
- Batch norm: where each task has statistics of its own, a batch holds images of one task only (a few images of each task would make
  poor statistics), and an epoch passes over the batches of all tasks in random order. "frozen" is not offered, since a network that
  starts afresh has no statistics to freeze.
"""

import itertools
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lifelong.data.task import NO_AUGMENTATION, Split, Task
from lifelong.methods.backbone import feature_dim, has_own_statistics, head_bias
from lifelong.methods.method import Context, LearnRecord
from lifelong.methods.replay import mixed_cross_entropy, mixed_features
from lifelong.methods.replay_buffer import KeptImages, Part, ReplayBuffer
from lifelong.methods.single import SingleNetworkMethod
from lifelong.networks.frozen import freeze
from lifelong.settings.baselines import JointSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples, batches
from lifelong.training.fit import Batch
from lifelong.training.select import fit_selected


@dataclass(frozen=True)
class SingleTaskBatches(Examples):
    """Examples of several tasks; each batch holds examples of one task.

    Attributes:
        counts: training examples of each task, which follow each other.
    """

    counts: tuple[int, ...] = ()

    def epoch(self, size: int, generator: torch.Generator) -> list[Int64[Tensor, "_"]]:
        """Return the training examples in random batches in random order; on the generator's device, which should be the host."""
        device = generator.device
        starts = itertools.accumulate(self.counts, initial=0)
        orders = [
            start + torch.randperm(count, generator=generator, device=device) for start, count in zip(starts, self.counts, strict=False)
        ]
        parts = [part for order in orders for part in batches(order, size)]
        return [parts[place] for place in torch.randperm(len(parts), generator=generator, device=device).tolist()]


class Joint(SingleNetworkMethod[JointSettings]):
    """One network, retrained at every task on all images of all tasks so far.

    Attributes:
        train, valid: every image seen.
    """

    name = "joint"

    def __init__(self, settings: JointSettings) -> None:
        super().__init__(settings)
        self.train, self.valid = ReplayBuffer(), ReplayBuffer()

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Keep the task's images, and train from scratch on all kept images."""
        before = self.num_parameters()
        train = ReplayBuffer([*self.train.tasks, _kept(task, task.train, augmented=context.training.augment)])
        valid = ReplayBuffer([*self.valid.tasks, _kept(task, task.valid, augmented=False)])
        classes = [*(learned.classes for learned in self.tasks), len(task.classes)]
        network, heads = self._fresh(classes, context)
        own = has_own_statistics(self.settings)

        def features(buffer: ReplayBuffer, positions: Tensor, generator: torch.Generator | None) -> tuple[list[Tensor], list[Part]]:
            parts = buffer.parts(positions, generator)
            return mixed_features(network, parts, own_statistics=own, learning=range(len(heads))), parts

        def loss(batch: Batch) -> Tensor:
            return mixed_cross_entropy(*features(train, batch.host_indices, batch.generator), heads)

        def predict(positions: Int64[Tensor, "b"]) -> Float[Tensor, "b c"]:
            # Ascending positions keep their order. All logits are padded to the widest head; padded classes never win.
            answers = [heads[part.task](answer) for answer, part in zip(*features(valid, positions, None), strict=True)]
            wide = [F.pad(logits, (0, max(classes) - logits.shape[1]), value=-torch.inf) for logits in answers]
            return torch.cat([torch.zeros(0, max(classes), device=positions.device), *wide])

        module = nn.ModuleList([network, *heads])
        # Every image is fetched from the buffer by its position, since tasks differ in size and preparation.
        rows, valid_rows = (torch.arange(len(images), device=context.device) for images in (train, valid))
        examples = Examples(rows, train.labels(), valid_rows, valid.labels())
        if own:
            examples = SingleTaskBatches(rows, train.labels(), valid_rows, valid.labels(), counts=train.counts())
        outcome = fit_selected(module, examples, predict, self.training(context.training), context.stage("train"), loss=loss)
        freeze(module)
        self.backbone, self.heads, self.train, self.valid = network, nn.ModuleList(heads), train, valid
        self._remember(task)
        record = LearnRecord(parameters_added=self.num_parameters() - before)
        record.trained(outcome)
        record.reason = f"retrained on the {len(train)} training images of all tasks so far"
        return record

    def memory(self) -> dict[str, int]:
        """Count the bytes of every image seen."""
        return {
            "training images": self.train.image_bytes,
            "validation images": self.valid.image_bytes,
            "labels": self.train.label_bytes + self.valid.label_bytes,
        }

    def state_dict(self) -> Tree:
        """Return the state, with every image seen."""
        return super().state_dict() | {"train": self.train.state_dict(), "valid": self.valid.state_dict()}

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        super().load_state_dict(state, device)
        self.train, self.valid = (ReplayBuffer.from_state(state[split], device) for split in ("train", "valid"))

    def _fresh(self, classes: list[int], context: Context) -> tuple[nn.Module, list[nn.Module]]:
        """Make the untrained network and heads for some tasks, the same at every task."""
        with replace(context, task_index=0).seeded("backbone"):
            network = self.make_network()
        heads: list[nn.Module] = []
        for index, count in enumerate(classes):
            if index > 0:
                self.add_task(network)
            with replace(context, task_index=index).seeded("head"):
                heads.append(nn.Linear(feature_dim(network), count, bias=head_bias(network)).to(context.device))
        return network.to(context.device), heads


def _kept(task: Task, split: Split, *, augmented: bool) -> KeptImages:
    """Copy a split's images."""
    policy = task.augmentation if augmented else NO_AUGMENTATION
    return KeptImages(split.images.clone(), split.labels.clone(), task.normalization, policy)
