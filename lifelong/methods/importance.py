"""The importance of each shared weight to a task, and the quadratic penalty on its change: what EWC and MAS have in common.

Importance is made of gradients of single samples, un-augmented, through the task's own head, with the network in evaluation mode: no
batch statistics mix the samples, and no running statistics move. It covers the weights that tasks share: the backbone with the affine
weights of its batch norms, but not those of `per-task` batch norms, and no head.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lifelong.methods.method import Context
from lifelong.methods.single import SingleNetworkMethod
from lifelong.networks.tasknorm import other_parameters, use_task
from lifelong.settings.baselines import PenaltySettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples
from lifelong.training.fit import Batch, Loss, cross_entropy
from lifelong.training.persample import Logits, Size, numbers_per_sample, sizes_of_one, summed_sizes
from lifelong.training.stages import Stage
from lifelong.training.sums import add_up

SAMPLES_AT_ONCE, NUMBERS_AT_ONCE = 64, 2**26
"""Samples that are worked on at once, and numbers that are held for them (256 MiB). Fixed, because sums of floats depend on them."""

Cotangents = Callable[[Tensor, Tensor], Tensor]
"""From the logits (c,) and the label () of one sample to rows (k, c), each of which is multiplied with the logits' Jacobian."""


def shared_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a backbone that all its tasks share, by name."""
    # No task has the number -1: these are the parameters of every task's own batch norms.
    own = {id(parameter) for parameter in other_parameters(network, -1)}
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) not in own}


def flat(tensors: Iterable[Tensor]) -> Float[Tensor, "p"]:
    """Concatenate all numbers of some tensors."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def logits_of(network: nn.Module, head: nn.Module) -> Logits:
    """Return the logits (b, c) as a function of the backbone's shared parameters and prepared images (b, 3, h, w)."""
    return lambda parameters, inputs: head(functional_call(network, parameters, (inputs,)))


def mean_over_samples(
    network: nn.Module,
    head: nn.Module,
    examples: Examples,
    labels: Int64[Tensor, "n"],
    cotangents: Cotangents,
    size: Size,
    stage: Stage | None = None,
) -> Float[Tensor, "p"]:
    """Compute the mean over samples of sum_k size(v_k . dz/dtheta), where z are a sample's logits and v_k the rows of its cotangents.

    A row v gives the gradient of any function of the logits whose own gradient is v. The network is run once and differentiated k times
    for many samples at once, in steps of bounded memory; or for one after the other, if it has layers without a rule in
    `lifelong.training.persample`.

    Args:
        network: the backbone, in evaluation mode.
        head: of the task.
        examples: all training images are used, un-augmented.
        labels: passed to `cotangents`, one per sample.
        cotangents: the same number of rows for every sample.
        size: such as the square.
        stage: names the computation, reports progress and keeps its state; None: no progress, no state.
    """
    parameters = {name: parameter.detach() for name, parameter in shared_parameters(network).items()}
    logits, rows = logits_of(network, head), vmap(cotangents)
    numbers = numbers_per_sample(network, logits, parameters, examples.prepare(examples.train[:2]))
    step = 1 if numbers is None else min(SAMPLES_AT_ONCE, max(1, NUMBERS_AT_ONCE // numbers))
    total = torch.zeros_like(flat(parameters.values()))

    def add(part: tuple[Tensor, Tensor]) -> None:
        images, ids = part
        inputs = examples.prepare(images)

        def rows_of(outputs: Tensor) -> Tensor:
            return rows(outputs, ids)  # (b, k, c)

        if numbers is None:
            found = sizes_of_one(logits, parameters, inputs, rows_of, size)
        else:
            found = summed_sizes(network, logits, parameters, inputs, rows_of, size)
        total.add_(flat(found.values()))

    parts = list(zip(examples.train.split(step), labels.split(step), strict=True))
    add_up([total], parts, add, stage or Stage("importance", 0))
    return total / len(labels)


def squared_sums(
    network: nn.Module,
    head: nn.Module,
    examples: Examples,
    parts: Sequence[Int64[Tensor, "_"]],
    cotangents: Callable[[Tensor, Tensor], Tensor],
    stage: Stage | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "p"]:
    """Compute the sum over parts of (sum over images of v . dz/dtheta)^2, for the shared weights of a backbone.

    Args:
        network: the backbone, in evaluation mode.
        head: of the task.
        examples: their training images are used.
        parts: positions of the images of each part.
        cotangents: from a part's logits (b, c) and labels (b,) to the v of its images, (b, c).
        stage: as in `mean_over_samples`.
        generator: what `cotangents` draws from, if it draws.
    """
    parameters = {name: parameter.detach().requires_grad_() for name, parameter in shared_parameters(network).items()}
    logits, weights = logits_of(network, head), list(parameters.values())
    total = [torch.zeros_like(weight, requires_grad=False) for weight in weights]

    def add(part: Tensor) -> None:
        outputs = logits(parameters, examples.prepare(examples.train[part]))
        gradients = torch.autograd.grad(outputs, weights, cotangents(outputs.detach(), examples.train_labels[part]), materialize_grads=True)
        for before, gradient in zip(total, gradients, strict=True):
            before.addcmul_(gradient, gradient)

    add_up(total, parts, add, stage or Stage("importance", 0), generator)
    return flat(total)


@dataclass(frozen=True)
class Quadratic:
    """sum_i importance_i (theta_i - anchor_i)^2 over the shared weights theta.

    Attributes:
        importance: >= 0, (P,).
        anchor: the weights at which it is zero, (P,).
    """

    importance: Float[Tensor, "p"]
    anchor: Float[Tensor, "p"]

    def __call__(self, weights: Float[Tensor, "p"]) -> Float[Tensor, ""]:
        """Evaluate the quadratic."""
        return (self.importance * (weights - self.anchor).square()).sum()

    def moved(self, other: "Quadratic", decay: float = 1.0) -> "Quadratic":
        """Add the other's importance to this one's, times `decay`, at the other's anchor."""
        return Quadratic(decay * self.importance + other.importance, other.anchor)

    def averaged(self, other: "Quadratic", tasks: int) -> "Quadratic":
        """Average this importance, the mean of `tasks` tasks, with the other's, at the other's anchor."""
        return Quadratic((tasks * self.importance + other.importance) / (tasks + 1), other.anchor)

    def plus(self, other: "Quadratic") -> "Quadratic":
        """Add two quadratics up to a constant; the anchor of the sum is the mean of the anchors weighted by importance.

        F (x - a)^2 + G (x - b)^2 = (F + G) (x - (F a + G b) / (F + G))^2 + F G / (F + G) (a - b)^2, and the last does not depend
        on x. However many are added, two numbers per weight are kept, and a step costs the same.
        """
        total = self.importance + other.importance
        share = torch.where(total > 0, other.importance / total, 1.0)
        return Quadratic(total, torch.lerp(self.anchor, other.anchor, share))


PenaltySettingsT = TypeVar("PenaltySettingsT", bound=PenaltySettings)


class QuadraticPenaltyMethod(SingleNetworkMethod[PenaltySettingsT]):
    """One network with a quadratic penalty on changes of the shared weights that matter to earlier tasks.

    Settings of a subclass have `penalty_weight`.
    """

    scale: float
    """Factor of the weighted quadratic in the loss."""

    def __init__(self, settings: PenaltySettingsT) -> None:
        super().__init__(settings)
        self.quadratic: Quadratic | None = None

    @abstractmethod
    def importance(self, head: nn.Module, examples: Examples, context: Context) -> Float[Tensor, "p"]:
        """Measure how much each shared weight matters to the task that has just been learned, >= 0."""

    @abstractmethod
    def merged(self, old: Quadratic, new: Quadratic) -> Quadratic:
        """Merge the penalty of all earlier tasks with that of the new one."""

    def loss(self, head: nn.Module, examples: Examples) -> Loss:
        """Return the cross-entropy of the new task plus the penalty."""
        network, index, quadratic = self._network(), len(self.tasks), self.quadratic
        plain = cross_entropy(lambda inputs: head(self.features(inputs, index)))
        weight = self.scale * self.settings.penalty_weight
        if quadratic is None or weight == 0:
            return plain
        parameters = list(shared_parameters(network).values())

        def loss(batch: Batch) -> Tensor:
            return plain(batch) + weight * quadratic(flat(parameters))

        return loss

    def consolidate(self, examples: Examples, context: Context) -> None:
        """Measure the importance of each weight to the task, and update the penalty."""
        network = self._network()
        use_task(network, len(self.tasks) - 1)
        importance = self.importance(self.heads[-1], examples, context)
        new = Quadratic(importance, flat(shared_parameters(network).values()).detach())
        self.quadratic = new if self.quadratic is None else self.merged(self.quadratic, new)

    def memory(self) -> dict[str, int]:
        """Count the bytes of importance and anchor, one float each per shared weight."""
        held = {} if self.quadratic is None else vars(self.quadratic)
        return {name: tensor.numel() * tensor.element_size() for name, tensor in held.items()}

    def state_dict(self) -> Tree:
        """Return tasks, backbone, heads and the penalty."""
        quadratic = None if self.quadratic is None else dict(vars(self.quadratic))
        return super().state_dict() | {"quadratic": quadratic}

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        super().load_state_dict(state, device)
        held = state["quadratic"]
        self.quadratic = None if held is None else Quadratic(**{name: tensor.to(device) for name, tensor in held.items()})
