"""More regularizers than the paper's, which protect the earlier tasks of a shared expert.

=======================  =============================================================================================================
none                     nothing: L = CE, plain fine-tuning
frozen                   the expert is not trained, only the new head: earlier answers stay as they are, to the bit
l2-sp                    L = CE + w / 2 sum_i (theta_i - theta0_i)^2, theta0 the weights before the task
ewc                      L = CE + w sum_i F_i (theta_i - a_i)^2, F the summed Fisher information of the expert's tasks
mas                      L = CE + w sum_i Omega_i (theta_i - a_i)^2, Omega the summed sensitivity of its tasks' outputs
feature-distillation     L = CE + w mean (f(x) - f0(x))^2 on the new images, f0 the features before the task
=======================  =============================================================================================================

w is `kd_weight` times the regularizer's `scale`. Scales were chosen on the digits, with all eight tasks in one expert, so that a weight of
1 works for each. For `ewc` and `mas`, a tenth of the default weights of the methods of that name was best.

Only `frozen` also protects the running statistics of batch norm; under all others they follow the newest task.
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
    """Leave the shared expert unchanged, and train only the new head."""

    trains_expert = False


class Spring(Regularizer):
    """A quadratic penalty on changes of the expert's trained weights."""

    def spring(self, shared: Shared) -> Quadratic | None:
        """Return the quadratic penalty, which is added to the cross-entropy times `weight`; None for no penalty."""
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
    """Pull the expert towards its weights before the task: L2-SP (Li, Grandvalet & Davoine, ICML 2018, arXiv 1802.01483).

    The new head's penalty is the weight decay of training, which here also applies to the expert; in the paper L2-SP replaces it. Together
    they pull towards theta0 / (1 + weight_decay / w), which is close to theta0 if w is much larger than the weight decay.
    """

    # A weight of 1, with the paper's factor 1/2: on the digits even the strongest of the paper's grid (0.001, 0.01, 0.1) was too weak.
    scale: ClassVar[float] = 1.0 / 2

    def spring(self, shared: Shared) -> Quadratic:
        """Return the squared distance to the weights as they are now."""
        before = flat(_trained(shared)).detach().clone()
        return Quadratic(torch.ones_like(before), before)


class EWC(Spring):
    """Protect weights by their Fisher information on the expert's tasks, as the method `ewc` does with its defaults.

    The tasks' penalties are summed, each around its own weights (`penalty` separate); the Fisher information is estimated from random signs
    (`fisher` signs).
    """

    # Includes the method's factor 1/2.
    scale: ClassVar[float] = 0.1 * EWCSettings().penalty_weight / 2

    def keep(self, shared: Shared) -> Tree:
        """Return the summed Fisher information of the expert's tasks, and the center of the summed penalties."""
        device = shared.examples.train.device
        generator = torch.Generator(device).manual_seed(derive_seed(shared.context.seed, shared.context.task_index, "fisher"))
        found = signed_fisher(shared.expert, shared.head, shared.examples, generator, shared.context.stage("importance"))
        new = _quadratic(found, shared)
        return vars(new if shared.kept is None else Quadratic(**shared.kept).plus(new))


class MAS(Spring):
    """Protect weights by the sensitivity of the outputs for the expert's tasks, as the method `mas` does with its defaults."""

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
        importance: importance of all its weights.
        shared: gives the expert.
    """
    return Quadratic(importance[_of_trained(shared)], flat(_trained(shared)).detach())


def _of_trained(shared: Shared) -> Bool[Tensor, "p"]:
    """Return a mask of the expert's weights that are trained."""
    weights = shared_parameters(shared.expert).items()
    return torch.cat([torch.full_like(parameter.flatten(), name in shared.trained, dtype=torch.bool) for name, parameter in weights])
