"""Binary masks on the weights of a network that several tasks share, stored as bits.

The weight of every convolution and linear layer is multiplied by the mask of the task that is asked about. There are two ways to store
the masks of all tasks:

``TaskMasks``
    a bit per weight and task: any weight may serve any task (WSN, SupSup). While a task is learned, its mask is that of scores.
``Owners``
    for each weight the task that trained it, as a number of ceil(log2(tasks + 1)) bits: a task uses its own weights and those of all
    earlier tasks (PackNet).

Sources: Mallya & Lazebnik, PackNet (CVPR 2018); Wortsman et al., SupSup (NeurIPS 2020); Kang et al., WSN (ICML 2022).
"""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lifelong.networks.chosen import ChoosesTask, ChosenTask

BITS = 8
"""Bits of a byte."""


def pack(mask: Bool[Tensor, " n"]) -> UInt8[Tensor, " bytes"]:
    """Pack a mask into ceil(n / 8) bytes, the first entry into the lowest bit."""
    bits = F.pad(mask.to(torch.uint8), (0, -len(mask) % BITS)).view(-1, BITS)
    return (bits << torch.arange(BITS, dtype=torch.uint8, device=mask.device)).sum(dim=1, dtype=torch.uint8)


def unpack(packed: UInt8[Tensor, "*rows bytes"], count: int) -> Bool[Tensor, "*rows n"]:
    """Unpack the first `count` entries of each row."""
    if torch.compiler.is_compiling():
        # While a program is traced for export: PyTorch has no ONNX for `>>`, and these numbers are exact.
        powers = 2.0 ** torch.arange(BITS, device=packed.device)
        halves = torch.floor(packed[..., None].float() / powers)
        return (halves - 2 * torch.floor(halves / 2) > 0.5).flatten(-2)[..., :count]
    bits = (packed[..., None] >> torch.arange(BITS, dtype=torch.uint8, device=packed.device)) & 1
    return bits.flatten(-2)[..., :count].bool()


def largest(scores: Float[Tensor, "*shape"], kept: int) -> Bool[Tensor, "*shape"]:
    """Select the entries of largest magnitude.

    Args:
        scores: of the weights of a layer.
        kept: how many to select, at least 1; entries equal to the smallest selected one are selected too.
    """
    size = scores.detach().abs()
    return size >= size.flatten().kthvalue(size.numel() - kept + 1).values


def straight_through(scores: Float[Tensor, "*shape"], kept: int) -> Float[Tensor, "*shape"]:
    """Compute the mask of scores as exact zeros and ones, whose gradient passes to the magnitude of each score as if they were equal."""
    size = scores.abs()
    return largest(scores, kept).to(scores.dtype) + (size - size.detach())


class _Masked(ChoosesTask, nn.Module):
    """A mask for the weight of a layer, which depends on the task.

    Args:
        weight: of the layer.

    Attributes:
        count: entries of the weight.
        tasks: how many tasks there are.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.count, self.tasks = weight.numel(), 1
        self._chosen = ChosenTask()

    def add_task(self) -> None:
        """Add the next task, and apply it."""
        self.tasks += 1
        self.task = self.tasks - 1

    def nbytes(self) -> int:
        """Count the bytes of all masks."""
        return sum(buffer.nbytes for buffer in self.buffers())


class TaskMasks(_Masked):
    """A mask for each task, a bit per weight.

    Attributes:
        bits: the masks, a row of ceil(count / 8) bytes for each task.
        scores: while the last task is learned, what its mask is made of; otherwise None.
        kept: how many weights the mask of the scores selects.
    """

    bits: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.register_buffer("bits", pack(torch.zeros(self.count, dtype=torch.bool)).unsqueeze(0))
        self.register_parameter("scores", None)
        self.kept = 0

    def add_task(self) -> None:
        """Add an empty mask for the next task, and apply it."""
        super().add_task()
        self.bits = torch.cat([self.bits, torch.zeros_like(self.bits[:1])])

    def begin(self, scores: Float[Tensor, "o ..."], kept: int) -> None:
        """Learn the mask of the last task from scores."""
        self.scores, self.kept = nn.Parameter(scores.clone()), kept

    def end(self) -> Float[Tensor, "o ..."]:
        """Store the mask of the last task, and return its scores, which are no longer part of the module."""
        assert self.scores is not None, "no scores are learned"
        scores = self.scores.detach()
        self.bits[-1] = pack(largest(scores, self.kept).flatten())
        self.scores = None
        return scores

    def union(self, tasks: int) -> Bool[Tensor, " n"]:
        """Compute which weights any of the first `tasks` tasks uses."""
        return unpack(self.bits[:tasks], self.count).any(dim=0)

    def forward(self, weight: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
        """Mask the weight for the task."""
        if self.scores is not None and self.task == self.tasks - 1:
            return weight * straight_through(self.scores, self.kept)
        return weight * unpack(self.bits[self.task], self.count).view_as(weight)


class Owners(_Masked):
    """The task that owns each weight, in bits: 0 for none, otherwise the number of the task, from 1.

    Attributes:
        planes: the owners, a row of ceil(count / 8) bytes for each of their ceil(log2(tasks + 1)) bits, the lowest bit first.
    """

    planes: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.register_buffer("planes", pack(torch.zeros(self.count, dtype=torch.bool)).unsqueeze(0))

    def add_task(self) -> None:
        """Make room for the number of the next task, and apply it."""
        super().add_task()
        if self.tasks.bit_length() > len(self.planes):
            self.planes = torch.cat([self.planes, torch.zeros_like(self.planes[:1])])

    def get(self) -> Int[Tensor, " n"]:
        """Return the owner of each weight."""
        bits = unpack(self.planes, self.count).int()  # (bits, n)
        return sum((row * 2**place for place, row in enumerate(bits)), torch.zeros_like(bits[0]))

    def set(self, owners: Int[Tensor, " n"]) -> None:
        """Store the owner of each weight."""
        for place in range(len(self.planes)):
            self.planes[place] = pack(((owners >> place) & 1).bool())

    def forward(self, weight: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
        """Mask the weight: the task uses what it or an earlier task owns."""
        owners = self.get()
        return weight * ((owners > 0) & (owners <= self.task + 1)).view_as(weight)


Layer = nn.Conv2d | nn.Linear

MaskedT = TypeVar("MaskedT", bound=_Masked)


def with_masks(network: nn.Module, make: Callable[[Tensor], _Masked]) -> nn.Module:
    """Mask the weight of every convolution and linear layer of a network, in place."""
    for layer in [module for module in network.modules() if isinstance(module, Layer)]:
        parametrize.register_parametrization(layer, "weight", make(layer.weight))
    return network


def masked(network: nn.Module, kind: type[MaskedT]) -> dict[str, tuple[nn.Parameter, MaskedT]]:
    """Return, by the name of the layer, each weight before it is masked, and what masks it."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(mask := module[0], kind):
            found[name.removesuffix(".parametrizations.weight")] = (module.original, mask)
    return found


def add_masks(network: nn.Module) -> None:
    """Prepare the masks for the next task, and apply it."""
    for module in network.modules():
        if isinstance(module, _Masked):
            module.add_task()


def use_masks(network: nn.Module, task: int) -> None:
    """Apply the masks of a task, from 0, in every later call of the network by this thread."""
    for module in network.modules():
        if isinstance(module, _Masked):
            module.task = task
