"""PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning (Mallya & Lazebnik, CVPR 2018, arXiv 1711.05769).

Every weight has an owner: the task that trained it, or none. For each task (section 3):

    1. train all weights without an owner; those of earlier tasks are used but fixed
    2. prune: in each layer, set the share p of the trained weights with the smallest magnitude to 0; they have no owner again
    3. retrain the rest, which the task now owns, for half as many epochs at a tenth of the learning rate

Task k uses the weights of tasks 1 .. k. It owns the share (1 - p) p^(k-1) of each layer: with p = 0.75, ten tasks leave 5.6 % without an
owner.

Choices where the paper is silent, or where its code is not followed:

* p is 0.75 from the first task on. The paper's first task is a network pretrained on ImageNet, which keeps half of its weights.
* Exactly round(p n) of n weights are pruned; ties in magnitude go to the first ones. The code prunes all weights that equal the largest
  pruned one, which empties layers with many zeros.
* Each task has its own batch norm (`batch_norm`), since the network does not start pretrained. With "frozen", biases and batch norm
  stay as the first task leaves them, as in the paper.
* Free weights start each task at 0, as pruning leaves them.
* Each of the two trainings keeps its own best epoch by validation accuracy.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lifelong.methods.masking import Free, MaskingMethod
from lifelong.methods.method import Context, LearnRecord
from lifelong.networks.masks import Owners, masked
from lifelong.settings.masks import PackNetSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples


class PackNet(MaskingMethod[PackNetSettings]):
    """Each task trains the weights that earlier tasks have left free, prunes most of them, and keeps the rest."""

    name = "packnet"
    kind = Owners

    def train_network(
        self, module: nn.Module, head: nn.Module, examples: Examples, context: Context, record: LearnRecord, phase: str = "train"
    ) -> None:
        """Train, prune and retrain."""
        number = len(self.tasks) + 1
        layers = masked(self._network(), Owners).values()
        for _, owners in layers:
            owner = owners.get()
            owners.set(torch.where(owner == 0, number, owner))
        super().train_network(module, head, examples, context, record, phase)
        for weight, owners in layers:
            owner = owners.get()
            pruned = smallest(weight.detach().flatten(), owner == number, self.settings.pruned_share)
            owners.set(owner.masked_fill(pruned, 0))
            with torch.no_grad():
                weight.masked_fill_(pruned.view_as(weight), 0.0)
        super().train_network(module, head, examples, replace(context, training=self.retraining(context.training)), record, "retrain")

    def retraining(self, settings: TrainingSettings) -> TrainingSettings:
        """Return the training settings for after pruning."""
        epochs = max(1, round(self.settings.retrain_epochs * settings.epochs))
        return replace(settings, epochs=epochs, lr=self.settings.retrain_lr * settings.lr)

    def free(self) -> list[Free]:
        """Return the weights that the new task owns."""
        number = len(self.tasks) + 1
        return [(weight, (owners.get() == number).view_as(weight)) for weight, owners in masked(self._network(), Owners).values()]


def smallest(weight: Float[Tensor, " n"], among: Bool[Tensor, " n"], share: float) -> Bool[Tensor, " n"]:
    """Select a share of some weights, those of smallest magnitude; ties go to the first.

    Args:
        weight: a layer's weights, flattened.
        among: mask of the weights to select from.
        share: share to select, in (0, 1); rounded to a whole number of weights.
    """
    order = weight.abs().masked_fill(~among, torch.inf).argsort(stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return place < (share * among.sum()).round()
