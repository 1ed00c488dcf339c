"""The common part of methods that mask the weights of one network: what a task has learned is never changed, so that nothing is forgotten.

What answers for a task are the weights that its mask selects, its head, its batch norm, and biases and affine weights that are fixed after
the first task. Weights that earlier tasks use are put back, bit for bit, after each step: neither momentum nor weight decay can move them.
"""

from abc import abstractmethod
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.methods.backbone import make_shared_backbone
from lifelong.methods.single import SingleNetworkMethod
from lifelong.networks.masks import Owners, TaskMasks, add_masks, masked, use_masks, with_masks
from lifelong.networks.tasknorm import own_parameters
from lifelong.settings.masks import MaskSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import Batch, Update

MaskSettingsT = TypeVar("MaskSettingsT", bound=MaskSettings)

Free = tuple[nn.Parameter, Tensor]
"""A weight, and which of its entries may change."""


class MaskingMethod(SingleNetworkMethod[MaskSettingsT]):
    """One network whose weights are masked by task. A subclass says which weights are free."""

    kind: ClassVar[type[TaskMasks] | type[Owners]]
    """How masks are stored."""

    def make_network(self) -> nn.Module:
        """Make the backbone with masks."""
        return with_masks(make_shared_backbone(self.settings, self.image_size), self.kind)

    def add_task(self, network: nn.Module) -> None:
        """Add batch norms and masks for the task."""
        super().add_task(network)
        add_masks(network)

    @property
    def features_by_task(self) -> bool:
        """Whether the features depend on the task: always."""
        return True

    def features(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n d"]:
        """Compute features of prepared images with the masks and the batch norm of a task."""
        use_masks(self._network(), task_index)
        return super().features(inputs, task_index)

    def fixed_parameters(self, network: nn.Module, task_index: int) -> list[nn.Parameter]:
        """Fix, after the first task, everything but masked weights and the task's own batch norm."""
        if task_index == 0:
            return super().fixed_parameters(network, task_index)
        weights = [weight for weight, _ in masked(network, self.kind).values()]
        return others(network, weights + own_parameters(network, task_index))

    def training(self, settings: TrainingSettings) -> TrainingSettings:
        """Train without weight decay, unless the settings ask for it."""
        return settings if self.settings.use_weight_decay else replace(settings, weight_decay=0.0, weight_decay_grid=())

    def update(self, head: nn.Module, examples: Examples) -> Update | None:
        """Change free weights only."""
        free = self.free()
        return updating(free) if free else None

    @abstractmethod
    def free(self) -> list[Free]:
        """Return which weights the task that is being learned may change; none: all that are trained."""

    def memory(self) -> dict[str, int]:
        """Count the bytes of masks, and of the running statistics of batch norms."""
        if self.backbone is None:
            return {"masks": 0, "statistics": 0}
        norms = [module for module in self.backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        running = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
        return {
            "masks": sum(mask.nbytes() for _, mask in masked(self.backbone, self.kind).values()),
            "statistics": sum(buffer.nbytes for buffer in running),
        }


def others(network: nn.Module, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Return all parameters of a network but some."""
    kept = {id(parameter) for parameter in parameters}
    return [parameter for parameter in network.parameters() if id(parameter) not in kept]


def updating(free: list[Free]) -> Update:
    """Return what surrounds a step that changes only free entries: the gradients of others are zero, and their bits stay."""

    @contextmanager
    def surrounding(batch: Batch) -> Generator[None]:
        for weight, where in free:
            assert weight.grad is not None
            weight.grad *= where
        before = [weight.detach().clone() for weight, _ in free]
        yield
        with torch.no_grad():
            for old, (weight, where) in zip(before, free, strict=True):
                weight.copy_(torch.where(where, weight, old))

    return surrounding


def kaiming(weight: Float[Tensor, "o ..."], scale: float) -> Float[Tensor, "o ..."]:
    """Draw scores for a weight by PyTorch's initialization of weights, uniform in ±1/sqrt(inputs), times a scale."""
    drawn = torch.empty(weight.shape, dtype=weight.dtype)
    nn.init.kaiming_uniform_(drawn, a=5**0.5)
    return (drawn * scale).to(weight.device)
