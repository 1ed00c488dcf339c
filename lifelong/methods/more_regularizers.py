"""Regularizers besides the paper's: what else may keep a shared expert at its earlier tasks.

=======================  =============================================================================================================
none                     nothing: L = CE, plain fine-tuning
frozen                   the expert is not trained, only the new head: earlier answers stay as they are, to the bit
l2-sp                    L = CE + w / 2 sum_i (theta_i - theta0_i)^2, theta0 the weights before the task
ewc                      L = CE + w sum_i F_i (theta_i - a_i)^2, F the summed Fisher information of the expert's tasks
mas                      L = CE + w sum_i Omega_i (theta_i - a_i)^2, Omega the summed sensitivity of its tasks' outputs
feature-distillation     L = CE + w mean (f(x) - f0(x))^2 on the new images, f0 the features before the task
=======================  =============================================================================================================

w is `kd_weight` times the regularizer's `scale`. Scales were chosen on the digits, all eight tasks in one expert, so that the weight 1
works for each (docs/decisions.md). A tenth of the default weights of the methods `ewc` and `mas` was best there.

None of them holds the running statistics of batch norms, which move with every trained task, except `frozen`.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lifelong.methods.distillation import feature_distillation_loss
from lifelong.methods.ewc import signed_fisher
from lifelong.methods.importance import Quadratic, flat, shared_parameters
from lifelong.methods.mas import output_sensitivity
from lifelong.methods.regularizers import Regularizer, Shared
from lifelong.settings.baselines import EWCSettings, MASSettings
from lifelong.storage import Tree
from lifelong.training.fit import Batch, Loss, cross_entropy
from lifelong.training.stages import derive_seed


class Free(Regularizer):
    """No regularization: the shared expert is fine-tuned."""

    def loss(self, shared: Shared) -> Loss:
        """Return the cross-entropy of the new task."""
        return cross_entropy(lambda inputs: shared.head(shared.expert(inputs)))


class Frozen(Free):
    """The shared expert stays as it is; only the new head is trained."""

    trains_expert = False


class Spring(Regularizer):
    """A quadratic penalty on changes of the expert's trained weights."""

    def spring(self, shared: Shared) -> Quadratic | None:
        """Return the quadratic that is added to the cross-entropy, times `weight`; None for no penalty."""
        return None if shared.kept is None else Quadratic(**shared.kept)

    def loss(self, shared: Shared) -> Loss:
        """Return the cross-entropy plus the penalty."""
        plain = cross_entropy(lambda inputs: shared.head(shared.expert(inputs)))
        weight, spring = self.weight(shared), self.spring(shared)
        if spring is None or weight == 0:
            return plain
        trained = _trained(shared)

        def loss(batch: Batch) -> Tensor:
            return plain(batch) + weight * spring(flat(trained))

        return loss


class L2SP(Spring):
    """Pull the expert to the weights before the task: L2-SP (Li, Grandvalet & Davoine, ICML 2018, arXiv 1802.01483).

    Its penalty on the new head is the weight decay of training, which applies to the expert, too; the paper has L2-SP in its place. The two
    together pull to theta0 / (1 + weight_decay / w), which is theta0 where w is much the larger.
    """

    # The paper's weight is 1 here, with its factor 1/2; of its grid 0.001, 0.01, 0.1 the strongest held digits too little.
    scale: ClassVar[float] = 1.0 / 2

    def spring(self, shared: Shared) -> Quadratic:
        """Return the squared distance to the weights as they are now."""
        before = flat(_trained(shared)).detach().clone()
        return Quadratic(torch.ones_like(before), before)


class EWC(Spring):
    """Hold weights as they matter to the expert's tasks by the Fisher information, as the method `ewc` does with its defaults.

    Fishers of the tasks are summed, each around its own weights (`penalty` separate), and estimated from random signs (`fisher` signs).
    """

    # With the method's factor 1/2.
    scale: ClassVar[float] = 0.1 * EWCSettings().penalty_weight / 2

    def keep(self, shared: Shared) -> Tree:
        """Return the summed Fisher information of the expert's tasks, and the weights that it was measured at."""
        device = shared.examples.train.device
        generator = torch.Generator(device).manual_seed(derive_seed(shared.context.seed, shared.context.task_index, "fisher"))
        found = signed_fisher(shared.expert, shared.head, shared.examples, generator, shared.context.stage("importance"))
        new = _quadratic(found, shared)
        return vars(new if shared.kept is None else Quadratic(**shared.kept).plus(new))


class MAS(Spring):
    """Hold weights as the answers of the expert's tasks depend on them, as the method `mas` does with its defaults."""

    scale: ClassVar[float] = 0.1 * MASSettings().penalty_weight

    def keep(self, shared: Shared) -> Tree:
        """Return the summed sensitivity of the outputs of the expert's tasks, and the newest weights."""
        found = output_sensitivity(shared.expert, shared.head, shared.examples, shared.context.stage("importance"))
        new = _quadratic(found, shared)
        return vars(new if shared.kept is None else Quadratic(**shared.kept).moved(new))


class FeatureDistillation(Regularizer):
    """Keep the features of new images as they were before the task."""

    scale: ClassVar[float] = 1.0

    def loss(self, shared: Shared) -> Loss:
        """Return the cross-entropy plus the mean squared change of the features."""
        return feature_distillation_loss(shared.expert, shared.head, shared.examples, weight=self.weight(shared))


def _trained(shared: Shared) -> list[Tensor]:
    """Return the expert's trained weights, in the order of their names in it."""
    return [parameter for name, parameter in shared_parameters(shared.expert).items() if name in shared.trained]


def _quadratic(importance: Float[Tensor, "p"], shared: Shared) -> Quadratic:
    """Return the penalty on the expert's trained weights around what they are now.

    Args:
        importance: of all its weights.
        shared: with the expert.
    """
    return Quadratic(importance[_of_trained(shared)], flat(_trained(shared)).detach())


def _of_trained(shared: Shared) -> Bool[Tensor, "p"]:
    """Return which numbers of all the expert's weights are trained."""
    weights = shared_parameters(shared.expert).items()
    return torch.cat([torch.full_like(parameter.flatten(), name in shared.trained, dtype=torch.bool) for name, parameter in weights])
