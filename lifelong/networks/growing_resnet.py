"""The light ResNet-18 as a network that grows by single convolutions, and the relaxed choice between old and new ones.

Each of its 20 convolutions (the stem, two in each of eight blocks, three shortcuts) has variants learned by earlier tasks. For each
convolution a task takes one of the variants as it is, one with a 1x1 convolution of the same stride added to its output, or a new
one (Li et al., Learn to Grow, ICML 2019). Batch norms are the task's own.

A relaxed choice is a weighted sum over all of these. They are convolutions without biases, of one stride and one field, so the sum of
their outputs is the output of one convolution with the sum of their kernels: 2 |S| + 1 choices cost what one does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.frozen import Borrowed, freeze
from lifelong.networks.resnet import LightResNet
from lifelong.networks.strided import Pixelwise, pixelwise

with torch.device("meta"):
    CONVOLUTIONS = tuple(name for name, module in LightResNet(1).named_modules() if isinstance(module, nn.Conv2d))
"""The names of the 20 convolutions of the light ResNet-18."""


@dataclass(frozen=True)
class Choice:
    """The choice of a task for one of its convolutions.

    Attributes:
        kind: a variant unchanged, a variant with a parallel adapter, or a new convolution.
        variant: the variant's number; -1 with a new convolution.
    """

    kind: Literal["reuse", "adapt", "new"]
    variant: int = -1


NEW = Choice("new")

ChoicePath = tuple[Choice, ...]
"""A choice for each convolution."""


def choices(variants: int) -> list[Choice]:
    """List the choices for a number of variants: reuse each, adapt each, or add a new convolution."""
    return [*(Choice("reuse", v) for v in range(variants)), *(Choice("adapt", v) for v in range(variants)), NEW]


class Adapted(nn.Module):
    """A frozen convolution with a parallel 1x1 convolution; their outputs are added.

    Args:
        base: run, but not owned, trained or counted here.
        adapter: of the base's stride and channels.
    """

    def __init__(self, base: "Variant", adapter: nn.Conv2d) -> None:
        super().__init__()
        freeze(base)
        self._base = (base,)  # in a tuple it is not a child
        self.adapter = adapter

    @property
    def base(self) -> "Variant":
        """The adapted variant."""
        return self._base[0]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d _h _w"]:
        """Add the outputs of both."""
        return self.base(x) + self.adapter(x)


Variant = nn.Conv2d | Adapted


def lineage(variant: Variant) -> list[Variant]:
    """List a variant, the one it adapts, and so on."""
    return [variant, *(lineage(variant.base) if isinstance(variant, Adapted) else [])]


def kernel(variant: Variant) -> Float[Tensor, "o i k k"]:
    """Compute the kernel of the single convolution equivalent to a variant."""
    if isinstance(variant, nn.Conv2d):
        return variant.weight
    base = kernel(variant.base)
    return base + _widened(variant.adapter.weight, base.shape[-1])


def _widened(weight: Float[Tensor, "o i 1 1"], size: int) -> Float[Tensor, "o i k k"]:
    """Embed a 1x1 kernel in the middle of a k x k one; with a padding of (k - 1) / 2 they are equivalent."""
    margin = size // 2
    return F.pad(weight, (margin, margin, margin, margin))


def _adapter(conv: nn.Conv2d) -> nn.Conv2d:
    """Make a fresh adapter for a convolution and its variants."""
    return Pixelwise(conv.in_channels, conv.out_channels, conv.stride[0])


class Mixture(nn.Module):
    """All choices of a convolution at once, weighted by softmax(alpha): the relaxed choice of a search.

    Args:
        new: the new convolution.
        known: its variants; they are not changed.

    Attributes:
        alpha: logits of the choices, in the order of `choices`; initially equal.
        sizes: log10(1 + parameters added) of each choice.
    """

    known: Tensor
    sizes: Tensor

    def __init__(self, new: nn.Conv2d, known: Sequence[Variant]) -> None:
        super().__init__()
        self.new = new
        self.adapters = nn.ModuleList(_adapter(new) for _ in known)
        self.alpha = nn.Parameter(torch.zeros(2 * len(known) + 1))
        added = [0] * len(known) + [new.in_channels * new.out_channels] * len(known) + [new.weight.numel()]
        self.register_buffer("sizes", torch.tensor([math.log10(1 + size) for size in added]), persistent=False)
        self.register_buffer("known", torch.stack([kernel(variant).detach() for variant in known]), persistent=False)

    def expected_size(self) -> Float[Tensor, ""]:
        """Compute the mean of `sizes` under the choices' weights."""
        return self.alpha.softmax(0) @ self.sizes

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d _h _w"]:
        """Compute the weighted sum of the outputs of all choices."""
        count = len(self.adapters)
        reuse, adapt, new = self.alpha.softmax(0).split((count, count, 1))
        adapters = torch.stack(list(self.adapters.parameters()))  # (v, o, i, 1, 1)
        # A variant is part of two choices: the one that reuses it and the one that adapts it.
        mixed = torch.tensordot(reuse + adapt, self.known, 1) + new * self.new.weight  # (o, i, k, k)
        mixed = mixed + _widened(torch.tensordot(adapt, adapters, 1), mixed.shape[-1])
        if mixed.shape[-1] == 1:
            return pixelwise(x, mixed, self.new.stride[0])
        return F.conv2d(x, mixed, stride=self.new.stride, padding=self.new.padding)


def mixtures(network: nn.Module) -> list[Mixture]:
    """Return the relaxed choices of a network, in the order of its convolutions."""
    return [module for module in network.modules() if isinstance(module, Mixture)]


class GrowingResNet:
    """The variants of every convolution of a light ResNet-18, and the networks made of them.

    Args:
        channels: of every layer.
        stem_pool: max-pool after the stem.

    Attributes:
        variants: for each convolution, in the order in which they came; frozen.
        norms: the batch norm that each variant was trained with.
    """

    def __init__(self, channels: int = 64, *, stem_pool: bool = False) -> None:
        self.channels, self.stem_pool = channels, stem_pool
        self.variants: list[list[Variant]] = [[] for _ in CONVOLUTIONS]
        self.norms: list[list[nn.Module]] = [[] for _ in CONVOLUTIONS]

    def network(self, path: ChoicePath) -> LightResNet:
        """Make the network of a path, which owns its batch norms, adapters and new convolutions, and borrows its variants.

        Adapters and new convolutions are fresh; a batch norm after a variant starts as a copy of the one the variant was trained with.
        """
        network = LightResNet(self.channels, self.stem_pool)
        for name, variants, norms, choice in zip(CONVOLUTIONS, self.variants, self.norms, path, strict=True):
            if choice.kind != "new":
                network.get_submodule(_norm(name)).load_state_dict(norms[choice.variant].state_dict())
            if choice.kind == "reuse":
                network.set_submodule(name, Borrowed(variants[choice.variant]))
            elif choice.kind == "adapt":
                network.set_submodule(name, Adapted(variants[choice.variant], _adapter(_convolution(network, name))))
        return network

    def supernet(self) -> LightResNet:
        """Make a network in which every convolution is a mixture of all its choices; there must be variants."""
        network = LightResNet(self.channels, self.stem_pool)
        for name, variants in zip(CONVOLUTIONS, self.variants, strict=True):
            network.set_submodule(name, Mixture(_convolution(network, name), variants))
        return network

    def keep(self, network: LightResNet) -> None:
        """Freeze a learned network of a path, and add its adapted and new convolutions as variants."""
        freeze(network)
        for name, variants, norms in zip(CONVOLUTIONS, self.variants, self.norms, strict=True):
            module = network.get_submodule(name)
            if isinstance(module, Variant):
                variants.append(module)
                norms.append(network.get_submodule(_norm(name)))

    def borrowed(self, path: ChoicePath) -> list[Variant]:
        """Return the variants that a path's network borrows, with the ones these adapt."""
        used = [variants[choice.variant] for variants, choice in zip(self.variants, path, strict=True) if choice.kind != "new"]
        return [part for variant in used for part in lineage(variant)]


def _norm(name: str) -> str:
    """Return the name of the batch norm after a convolution."""
    return name.replace("conv", "bn").replace("downsample.0", "downsample.1")


def _convolution(network: LightResNet, name: str) -> nn.Conv2d:
    module = network.get_submodule(name)
    assert isinstance(module, nn.Conv2d)
    return module
