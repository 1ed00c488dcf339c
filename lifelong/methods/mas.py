"""MAS: Memory Aware Synapses (Aljundi et al., ECCV 2018, arXiv 1711.09601).

A weight matters to a task as much as the squared length of the learned function's output depends on it; no labels are needed:

    Omega_i <- Omega_i + 1/N sum over images x_n of |d ||z(x_n)||_2^2 / d theta_i|         (Eq. 2 and 3)
    L = CE + penalty_weight * sum_i Omega_i (theta_i - theta*_i)^2                          (Eq. 4)

z: the logits of the task's own head; theta*: the weights after the last task. There is no factor 1/2.

Choices: the absolute value is taken of each image's gradient, as in Eq. 2. The authors' code takes it of a batch's by default (of one
image with its option `b1`), in which gradients of opposite signs cancel. The training images of the task, un-augmented, in
evaluation mode; importance is added over tasks, as in the authors' code; backbone weights only, with the affine weights of batch norms.

What the code of PAR's authors calls MAS is something else, `importance` "par-code": the *square* of a batch's gradient of the *mean* of the
squared logits over images and classes, times the batch size, averaged over batches and over tasks, with a factor 1/2. Its weight 300 goes
with that. (There in training mode on augmented images; here as above.)

Default `penalty_weight`: 1, the paper's for object recognition and that of the authors' code. Logits have no fixed scale, so it is to be
chosen again for another backbone or length of training.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lifelong.methods.importance import Quadratic, QuadraticPenaltyMethod, mean_over_samples, squared_sums
from lifelong.methods.method import Context
from lifelong.settings.baselines import MASSettings
from lifelong.training.examples import Examples
from lifelong.training.stages import Stage, derive_seed


class MAS(QuadraticPenaltyMethod[MASSettings]):
    """Cross-entropy on the new task plus a quadratic penalty, weighted by how much the outputs of earlier tasks depend on a weight."""

    name = "mas"

    def __init__(self, settings: MASSettings) -> None:
        super().__init__(settings)
        self.scale = 1.0 if self.settings.importance == "paper" else 0.5

    def importance(self, head: nn.Module, examples: Examples, context: Context) -> Float[Tensor, "p"]:
        """Compute Omega of the task alone."""
        stage = context.stage("importance")
        if self.settings.importance == "paper":
            return output_sensitivity(self._network(), head, examples, stage)
        seed = derive_seed(context.seed, context.task_index, "importance")
        order = torch.randperm(len(examples.train), generator=torch.Generator().manual_seed(seed)).to(examples.train.device)
        return squared_batch_sensitivity(self._network(), head, examples, order.split(context.training.batch_size), stage)

    def merged(self, old: Quadratic, new: Quadratic) -> Quadratic:
        """Add importances, or average them as in the code of PAR's authors; take the newest anchor."""
        return old.moved(new) if self.settings.importance == "paper" else old.averaged(new, len(self.tasks) - 1)


def output_sensitivity(network: nn.Module, head: nn.Module, examples: Examples, stage: Stage | None = None) -> Float[Tensor, "p"]:
    """Compute the mean over training images of |d ||logits||^2 / d theta|, for the shared weights of a backbone."""

    def rows(logits: Tensor, label: Tensor) -> Tensor:
        return 2 * logits.unsqueeze(0)  # d ||z||^2 / dz, (1, c)

    return mean_over_samples(network, head, examples, examples.train_labels, rows, torch.abs, stage)


def squared_batch_sensitivity(
    network: nn.Module, head: nn.Module, examples: Examples, batches: Sequence[Int64[Tensor, "_"]], stage: Stage | None = None
) -> Float[Tensor, "p"]:
    """Compute the mean over batches of B (d mean(logits^2) / d theta)^2, the mean over B images and over classes, for the shared weights.

    A smaller last batch counts in proportion to its images.

    Args:
        network: the backbone, in evaluation mode.
        head: of the task.
        examples: their training images are used.
        batches: positions of the images of each batch.
        stage: as in `mean_over_samples`.
    """

    def cotangents(logits: Tensor, labels: Tensor) -> Tensor:
        return 2 * logits / logits.shape[1]

    return squared_sums(network, head, examples, batches, cotangents, stage) / sum(map(len, batches))
