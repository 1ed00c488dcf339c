"""Knowledge distillation from the outputs a network gave before a new task was learned (Li & Hoiem; PAR Eq. 8-9)."""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.frozen import freeze
from lifelong.training.examples import Examples, batched
from lifelong.training.fit import Batch, Loss, cross_entropy


def soft_cross_entropy(student: Float[Tensor, "n c"], teacher: Float[Tensor, "n c"], temperature: float) -> Float[Tensor, ""]:
    """Compute the cross-entropy of the student's soft outputs under the teacher's, averaged over samples; no factor T².

    Args:
        student: logits of the network that learns, (N, C).
        teacher: logits of the network as it was, (N, C).
        temperature: both are divided by it; > 0.

    Source: PAR Eq. 8; Li & Hoiem Eq. 2-3 (raising probabilities to 1/T and normalizing is dividing logits by T).
    """
    return F.cross_entropy(student.float() / temperature, F.softmax(teacher.float() / temperature, dim=1))


def distillation_loss(
    network: nn.Module,
    new_head: nn.Module,
    old_heads: Sequence[nn.Module],
    examples: Examples,
    *,
    weight: float,
    temperature: float,
) -> Loss:
    """Return the cross-entropy of the new task plus `weight` times the distillation of each old head, summed over heads (PAR Eq. 9).

    The teacher is a frozen copy of the network and its old heads as they are now. Where training images are not augmented its
    outputs are recorded once; else it sees the same augmented batch as the student.

    Args:
        network: shared features, (b, ...) to (b, d); is trained.
        new_head: (b, d) to (b, C); is trained.
        old_heads: heads of earlier tasks; whether they are trained is the caller's choice.
        examples: of the new task.
        weight: lambda, >= 0.
        temperature: > 0.
    """
    if not old_heads or weight == 0:
        return cross_entropy(lambda inputs: new_head(network(inputs)))
    teacher = copy.deepcopy(nn.ModuleList([network, *old_heads]))
    freeze(teacher)

    def recorded(inputs: Tensor) -> Tensor:
        features = teacher[0](inputs)
        return torch.cat([head(features) for head in teacher[1:]], dim=1)

    targets = targets_of(recorded, examples)

    def loss(batch: Batch) -> Tensor:
        target = targets(batch)
        features = network(batch.inputs)
        student = [head(features) for head in old_heads]
        target = target.split([logits.shape[1] for logits in student], dim=1)
        old = sum(soft_cross_entropy(s, t, temperature) for s, t in zip(student, target, strict=True))
        return F.cross_entropy(new_head(features), batch.labels) + weight * old

    return loss


def feature_distillation_loss(network: nn.Module, new_head: nn.Module, examples: Examples, *, weight: float) -> Loss:
    """Return the cross-entropy of the new task plus `weight` times the mean squared change of the features, over images and features.

    The teacher is as in `distillation_loss`.

    Args:
        network: shared features, (b, ...) to (b, d); is trained.
        new_head: (b, d) to (b, C); is trained.
        examples: of the new task.
        weight: >= 0.

    Source: the hints of Romero et al., FitNets (ICLR 2015, arXiv 1412.6550), at the last layer, from the network as it was.
    """
    if weight == 0:
        return cross_entropy(lambda inputs: new_head(network(inputs)))
    teacher = copy.deepcopy(network)
    freeze(teacher)
    targets = targets_of(teacher, examples)

    def loss(batch: Batch) -> Tensor:
        features = network(batch.inputs)
        return F.cross_entropy(new_head(features), batch.labels) + weight * F.mse_loss(features, targets(batch))

    return loss


def targets_of(teacher: Callable[[Tensor], Tensor], examples: Examples) -> Callable[[Batch], Tensor]:
    """Return what gives a teacher's outputs for a batch: recorded once, or for each batch anew where training images are augmented."""
    recorded = None if examples.augmented else batched(teacher, examples.train, examples.prepare)

    def targets(batch: Batch) -> Tensor:
        if recorded is not None:
            return recorded[batch.indices]
        with torch.no_grad():
            return teacher(batch.inputs)

    return targets
