"""HAT: Hard Attention to the Task (Serrà, Surís, Miron & Karatzoglou, ICML 2018, arXiv 1801.01423).

Each task learns, along with the weights, a gate a = sigmoid(s e) for every unit (Eq. 1), nearly binary for a large s. Weights between
units that earlier tasks use are not changed (Eq. 2), and a penalty on the use of new units leaves room for later tasks (Eq. 4 and 5):

    update of w_ij   *= 1 - min(A_i, A_j)             A: the largest mask of each unit among earlier tasks; of an image, 1
    s                 = 1/s_max + (s_max - 1/s_max) b / (B - 1)               at batch b = 0 .. B - 1 of each epoch (Eq. 3)
    gradient of e    *= s_max / s * (cosh(s e) + 1) / (cosh(e) + 1)           section 2.5; s e cut to [-50, 50], e kept in [-6, 6]
    L                 = CE + sparsity_weight * sum a (1 - A) / sum (1 - A)

Choices where the paper is silent, or where its code is not followed:

* The update is masked as it was applied, after the optimizer's step, not the gradient before it: neither momentum nor weight decay can
  then reach what is protected. The paper trains by plain SGD, as is done here by default, and for all practical purposes does not clip.
* Masks of learned tasks are cut to 0 or 1 at one half (`binary_masks`), for answers, for validation and for protection: with an |e|
  near 0 a gate is not 0 or 1 even at s_max, and a unit that is half protected drifts. With a batch norm per task, the default here,
  the answers for earlier tasks then stay the same to the bit. Without, masks are those of s_max.
* In the light ResNet-18 each of the 17 ReLUs is gated, the block's last after the shortcut is added: an identity shortcut has no weights
  to protect, and what it carries is protected where it is made. Affine weights of a shared batch norm are masked like biases.
* The scale reaches s_max with an epoch's last batch, as in Eq. 3; the code has b / B there, and never does.
* An epoch of one batch has no room for annealing: s is s_max. With a handful of batches an epoch much of the training happens with
  half-open gates, and the gates hardly learn: HAT needs many steps per epoch, hence small batches if images are few.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.methods.backbone import make_shared_backbone
from lifelong.methods.plain import plain_sgd
from lifelong.methods.single import SingleNetworkMethod
from lifelong.networks.gates import Masks, add_gates, embeddings, freedom, gates, set_scale, use_gates, used, with_gates
from lifelong.settings.baselines import HATSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import Batch, Loss, Update

LARGEST_EMBEDDING = 6.0
LARGEST_EXPONENT = 50.0
CLIP_NORM = 10_000.0
"""The values of the paper's code."""


HATSettingsT = TypeVar("HATSettingsT", bound=HATSettings)


class HAT(SingleNetworkMethod[HATSettingsT]):
    """Units are gated by task; weights between units that earlier tasks use do not change."""

    name = "hat"

    def make_network(self) -> nn.Module:
        """Make the backbone with gates."""
        return with_gates(make_shared_backbone(self.settings, self.image_size), self.settings.s_max, binary=self.settings.binary_masks)

    def add_task(self, network: nn.Module) -> None:
        """Add batch norms and masks for the task."""
        super().add_task(network)
        add_gates(network)

    def fixed_parameters(self, network: nn.Module, task_index: int) -> list[nn.Parameter]:
        """Fix the embeddings of earlier tasks as well."""
        return super().fixed_parameters(network, task_index) + [e for task in range(task_index) for e in embeddings(network, task)]

    @property
    def features_by_task(self) -> bool:
        """Whether the features depend on the task: always."""
        return True

    def features(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n d"]:
        """Compute features of prepared images with a task's gates and batch norm."""
        use_gates(self._network(), task_index)
        return super().features(inputs, task_index)

    def training(self, settings: TrainingSettings) -> TrainingSettings:
        """Use plain SGD if the settings ask for it; do not clip the magnified gradients of the embeddings."""
        return replace(plain_sgd(settings) if self.settings.plain_sgd else settings, clip_norm=CLIP_NORM)

    def loss(self, head: nn.Module, examples: Examples) -> Loss:
        """Return the error plus the penalty of Eq. 5, at the batch's scale."""
        network, index = self._network(), len(self.tasks)
        earlier = used(network, list(range(index)))

        def gated_loss(batch: Batch) -> Tensor:
            set_scale(network, annealed(batch.step, batch.steps, self.settings.s_max))
            error = self.error(head, batch, index)
            return error + self.settings.sparsity_weight * sparsity({name: gate.gate() for name, gate in gates(network).items()}, earlier)

        return gated_loss

    def error(self, head: nn.Module, batch: Batch, task_index: int) -> Float[Tensor, ""]:
        """Return the cross-entropy of the new task."""
        return F.cross_entropy(head(self.features(batch.inputs, task_index)), batch.labels)

    def update(self, head: nn.Module, examples: Examples) -> Update:
        """Magnify the gradients of the embeddings, and mask the step of all other weights."""
        network, index = self._network(), len(self.tasks)
        own = embeddings(network, index)
        shares = freedom(network, self.held()) if index else []

        @contextmanager
        def masked(batch: Batch) -> Generator[None]:
            scale = annealed(batch.step, batch.steps, self.settings.s_max)
            for e in own:
                assert e.grad is not None
                e.grad *= compensation(e.detach(), scale, self.settings.s_max)
            before = [parameter.detach().clone() for parameter, _ in shares]
            yield
            with torch.no_grad():
                for old, (parameter, share) in zip(before, shares, strict=True):
                    # Exact at both ends: protected weights keep their bits, free weights take the step unchanged.
                    parameter.copy_(torch.lerp(old, parameter, share.expand_as(old)))
                for e in own:
                    e.clamp_(-LARGEST_EMBEDDING, LARGEST_EMBEDDING)

        return masked

    def held(self) -> Masks:
        """Return how strongly each unit is protected while the next task is learned: the largest mask of all tasks so far."""
        return used(self._network(), list(range(len(self.tasks))))


def annealed(step: Float[Tensor, ""], steps: int, s_max: float) -> Float[Tensor, ""]:
    """Compute the scale of the gates at a step of an epoch (Eq. 3)."""
    return torch.full_like(step, s_max) if steps == 1 else 1 / s_max + (s_max - 1 / s_max) * step / (steps - 1)


def compensation(e: Float[Tensor, " n"], scale: Float[Tensor, ""] | float, s_max: float) -> Float[Tensor, " n"]:
    """Compute the factor for an embedding's gradient that undoes the scale s and multiplies by s_max (section 2.5)."""
    steep = torch.cosh((scale * e).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT))
    return s_max / scale * (steep + 1) / (torch.cosh(e) + 1)


def sparsity(gate: Masks, earlier: Masks) -> Float[Tensor, ""]:
    """Compute the mean gate of units, weighted by how little earlier tasks use them (Eq. 5); 0 if all units are used."""
    room = torch.cat([1 - earlier[name] for name in gate])
    return torch.cat(list(gate.values())) @ room / torch.where(room.any(), room.sum(), 1.0)
