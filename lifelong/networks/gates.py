"""Gates on the units of a network: each ReLU multiplied, unit by unit, with a mask that a task has learned.

Source: Serrà et al., HAT (ICML 2018), section 2.2. A unit is a channel of a convolution, or an output of a linear layer; where a block
adds a shortcut, the ReLU takes the sum, and the gate the whole. Dropout and max-pooling that follow a ReLU commute with the gate.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.chosen import ChoosesTask, ChosenTask
from lifelong.networks.tasknorm import TaskBatchNorm
from lifelong.networks.wiring import Wire

Masks = dict[str, Tensor]
"""A value in [0, 1] for each unit, by the name of its ReLU."""


Layer = nn.Conv2d | nn.Linear


@runtime_checkable
class Wired(Protocol):
    """A network that declares which units its layers connect."""

    def wiring(self) -> list[Wire]:
        """List every module with weights, with the ReLUs at its ends."""
        ...


class GatedReLU(ChoosesTask, nn.Module):
    """A ReLU whose units are multiplied with sigmoid(s e), where e is a vector of the task.

    In training s is `scale`; in evaluation s is `s_max`, and the mask is cut to 0 or 1 at one half if `binary`.

    Args:
        units: how many there are.
        s_max: the largest scale.
        binary: whether masks in evaluation are 0 or 1.

    Attributes:
        scale: of training, in 1/s_max..s_max; a number, or a tensor of one.
    """

    def __init__(self, units: int, s_max: float, *, binary: bool) -> None:
        super().__init__()
        self.units, self.s_max, self.binary = units, s_max, binary
        self.embeddings = nn.ParameterList([torch.randn(units)])
        self._chosen = ChosenTask()
        self.scale: float | Tensor = s_max

    def add_task(self) -> None:
        """Add a random mask for the next task, and apply it from now on."""
        self.embeddings.append(nn.Parameter(torch.randn(self.units).to(self.embeddings[0].device)))
        self.task = len(self.embeddings) - 1

    def gate(self) -> Float[Tensor, " units"]:
        """Compute the mask of the task in training, through which its embedding learns."""
        return torch.sigmoid(self.scale * self.embeddings[self.task])

    def mask(self, task: int) -> Float[Tensor, " units"]:
        """Compute the mask used to answer for a task."""
        soft = torch.sigmoid(self.s_max * self.embeddings[task].detach())
        return (soft > 0.5).to(soft.dtype) if self.binary else soft

    def forward(self, x: Float[Tensor, "n units ..."]) -> Float[Tensor, "n units ..."]:
        """Compute gated activations."""
        gate = self.gate() if self.training else self.mask(self.task)
        return F.relu(x) * gate.view(-1, *[1] * (x.dim() - 2))


def with_gates(network: nn.Module, s_max: float, *, binary: bool) -> nn.Module:
    """Gate every ReLU of the network's wiring in place; first embeddings are drawn from torch's global generator."""
    units = {wire.target: len(module.weight) for wire in wiring(network) if isinstance(module := network.get_submodule(wire.module), Layer)}
    for name, count in units.items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, GatedReLU(count, s_max, binary=binary))
    return network


def gates(network: nn.Module) -> dict[str, GatedReLU]:
    """Return the gates of a network by the names of their ReLUs."""
    return {name: module for name, module in network.named_modules() if isinstance(module, GatedReLU)}


def add_gates(network: nn.Module) -> None:
    """Prepare the gates for the next task."""
    for gate in gates(network).values():
        gate.add_task()


def use_gates(network: nn.Module, task: int) -> None:
    """Apply the masks of a task, from 0, in every later call of the network by this thread."""
    for gate in gates(network).values():
        gate.task = task


def set_scale(network: nn.Module, scale: float | Tensor) -> None:
    """Set the scale of the masks in training."""
    for gate in gates(network).values():
        gate.scale = scale


def embeddings(network: nn.Module, task: int) -> list[nn.Parameter]:
    """Return the embeddings of a task's masks."""
    return [gate.embeddings[task] for gate in gates(network).values()]


def used(network: nn.Module, tasks: list[int]) -> Masks:
    """Compute the largest mask of each unit among some tasks; 0 if there are none."""
    none = {name: torch.zeros_like(gate.embeddings[0]) for name, gate in gates(network).items()}
    return {name: torch.stack([none[name], *(gate.mask(task) for task in tasks)]).amax(dim=0) for name, gate in gates(network).items()}


def freedom(network: nn.Module, held: Mapping[str, Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
    """Compute for each parameter between units the share of an update that it takes: 1 - min(held unit written, held unit read).

    A bias and an affine weight take 1 - held. A batch norm that belongs to one task alone is not among them.

    Args:
        network: with gates.
        held: how much each unit is to be held, in [0, 1].

    Source: Serrà et al., Eq. 2, for each entry of a weight.
    """
    shares = []
    for wire in wiring(network):
        module = network.get_submodule(wire.module)
        if isinstance(module, TaskBatchNorm) and module.policy == "per-task":
            continue
        for parameter in module.parameters():
            source = None if wire.source is None or parameter.dim() == 1 else held[wire.source]
            shares.append((parameter, 1 - joined(held[wire.target], source, parameter)))
    return shares


def joined(target: Float[Tensor, " o"], source: Float[Tensor, " i"] | None, weight: Tensor) -> Tensor:
    """Compute the smaller of a mask of output units and one of input units, for each entry of a weight.

    Args:
        target: of the units that are written.
        source: of the units that are read; None: of an image, whose pixels count as held.
        weight: (o,), (o, i, ...), or after a flattened map (o, i * pixels).

    Returns:
        Of a shape that broadcasts to the weight's.
    """
    if weight.dim() == 1:
        return target
    column = target.view(-1, *[1] * (weight.dim() - 1))
    if source is None:
        return column
    row = source.repeat_interleave(weight.shape[1] // len(source))
    return torch.minimum(column, row.view(1, -1, *[1] * (weight.dim() - 2)))


def wiring(network: nn.Module) -> list[Wire]:
    """Return the wiring that a network declares."""
    assert isinstance(network, Wired)
    return network.wiring()
