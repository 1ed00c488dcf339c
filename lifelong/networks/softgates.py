"""Soft gates: at each position of a chain of blocks, modules of a pool mixed by weights that depend on the image.

    x -> sum over j of s_j(x) m_j(x)         s = softmax(G(x)), G a small convolutional network of the task and the position

Source: Mendez & Eaton (ICLR 2021), soft gating, with a pool for each position as in LMC's code (Ostapenko et al., NeurIPS 2021).
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.blocks import MapMean
from lifelong.networks.frozen import Borrowed


class Gate(nn.Module):
    """Weights of modules for each image: two convolutions of stride 2, the average over maps, a linear layer, a softmax.

    Args:
        inputs: channels of its input maps.
        channels: channels of its own maps.
        modules: the fixed number of weights.
    """

    def __init__(self, inputs: int, channels: int, modules: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(_half(inputs, channels), _half(channels, channels), MapMean())
        self.weights = nn.Linear(channels, modules)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n m"]:
        """Compute weights that sum to 1 for each image."""
        return self.weights(self.maps(x)).softmax(dim=1)


def _half(inputs: int, channels: int) -> nn.Sequential:
    """Make layers that halve the size of maps."""
    return nn.Sequential(nn.Conv2d(inputs, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class SoftPool(nn.Module):
    """The modules of one position, mixed by a gate.

    Args:
        known: frozen modules, which are borrowed.
        new: a module that is trained with the gate, or None.
        gate: gives one weight per module; None with a single module.
    """

    def __init__(self, known: Iterable[nn.Module], new: nn.Module | None, gate: Gate | None) -> None:
        super().__init__()
        self.known = nn.ModuleList(Borrowed(module) for module in known)
        self.new, self.gate = new, gate

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """Mix the modules' outputs, with separate weights for each image."""
        outputs = [module(x) for module in self.known]
        if self.new is not None:
            outputs.append(self.new(x))
        if self.gate is None:
            (output,) = outputs
            return output
        return torch.einsum("nm,nm...->n...", self.gate(x), torch.stack(outputs, dim=1))
