"""LwF: Learning without Forgetting (Li & Hoiem, TPAMI 2017, arXiv 1606.09282).

Before a task is learned, the old heads' outputs on its images are recorded; while it is learned they are kept by distillation:

    L = CE(new head) + kd_weight * sum over old tasks of H(softmax(z_old / T), softmax(z / T))

Choices where code bases differ: the sum over old tasks is not divided by their number and there is no factor T² (as in the code
of PAR's authors); the teacher is in evaluation mode and sees the same augmented batch as the student; old heads are trained, as in
the paper; the new head has no warm-up phase of its own.
"""

from torch import nn

from lifelong.methods.distillation import distillation_loss
from lifelong.methods.single import SingleNetworkMethod
from lifelong.settings.baselines import LwFSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import Loss


class LwF(SingleNetworkMethod[LwFSettings]):
    """Cross-entropy on the new task plus distillation of every old head on the new task's images."""

    name = "lwf"

    def trained_heads(self) -> list[nn.Module]:
        """Return all old heads, or none (`train_old_heads`)."""
        return list(self.heads) if self.settings.train_old_heads else []

    def loss(self, head: nn.Module, examples: Examples) -> Loss:
        """Return the loss of Eq. 1-3 of the paper, as in PAR Eq. 9."""
        weight, temperature = self.settings.kd_weight, self.settings.temperature
        return distillation_loss(self._network(), head, list(self.heads), examples, weight=weight, temperature=temperature)
