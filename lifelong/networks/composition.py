"""Networks composed of local modules, each of which can tell by itself how well it knows an input (LMC, Ostapenko et al., NeurIPS 2021).

A layer holds several modules of one kind. Each has a functional part f_m, a block of a chain (`blocks.py`), and a structural part d_m, a
decoder from the block's output back to the input X of the layer. How badly it reconstructs an image says how little the module knows it:

    l_m = mean squared error of d_m(f_m(X)) against X, for each image            X' = sum over m of w_m f_m(X)
    w_m ~ softmax over m (-log l_m / temperature) * softmax over m (-log mean over the batch of l_m / prior_temperature)

No task id has a part in it. The second factor, the batch prior, makes what comes out for an image depend on its batch; `Routing` can do
without. Losses are local: gradients of l_m reach d_m alone, and the weights w_m carry none.

Choices where the paper is silent:

* The decoder: a convolution 3x3, ReLU, nearest-neighbour upsampling to the size of X, a convolution 3x3, all of the width of the block's
  output; 73,856 parameters for 64 channels between 64 channels. Features without a plane (the output of a chain's last block) are first
  laid out as maps again: 3 x 3 for `conv4`, 1 x 1 for the light ResNet-18, whose last decoder sees the averages of maps alone.
* `EPSILON` is added to l_m before its logarithm, so that modules that reconstruct without error share the weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.blocks import Chain

EPSILON = 1e-8
"""Added to a mean squared error before its logarithm is taken."""

CODE_SHARE = 8
"""A head's auto-encoder has a code of an eighth of the features."""


class Decoder(nn.Module):
    """The structural part of a module: from the output of its block back to the block's input.

    Args:
        inputs: channels of the maps that are reconstructed.
        channels: of the maps that are decoded.
        side: of the maps that were laid out as features; None: the output is maps.
    """

    def __init__(self, inputs: int, channels: int, side: int | None = None) -> None:
        super().__init__()
        self.maps = nn.Identity() if side is None else nn.Unflatten(1, (channels, side, side))
        self.hidden = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer = nn.Conv2d(channels, inputs, 3, padding=1)

    def forward(self, outputs: Float[Tensor, "n *out"], size: torch.Size) -> Float[Tensor, "n c h w"]:
        """The reconstruction, of height and width `size`."""
        hidden = F.relu(self.hidden(self.maps(outputs)))
        return self.outer(F.interpolate(hidden, size=size, mode="nearest"))


class LocalModule(nn.Module):
    """A block and its decoder.

    Attributes:
        functional: the block.
        structural: its decoder.
        loss_mean, loss_std: of l_m over the images that the module was trained on; 0 until they are measured.
    """

    loss_mean: Tensor
    loss_std: Tensor

    def __init__(self, functional: nn.Module, structural: Decoder) -> None:
        super().__init__()
        self.functional = functional
        self.structural = structural
        self.register_buffer("loss_mean", torch.zeros(()))
        self.register_buffer("loss_std", torch.zeros(()))

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n *out"]:
        """What the block makes of its input."""
        return self.functional(inputs)

    def loss(self, inputs: Float[Tensor, "n c h w"], outputs: Float[Tensor, "n *out"]) -> Float[Tensor, "n"]:
        """l_m of each image, with gradients to all that it depends on.

        Args:
            inputs: what the block was given.
            outputs: what it has made of it.
        """
        return _squared_error(self.structural(outputs, inputs.shape[2:]), inputs)

    def measured(self, losses: Float[Tensor, "n"]) -> None:
        """Keep the mean and the deviation of what `loss` gives for the images that the module was trained on."""
        self.loss_mean.copy_(losses.mean())
        self.loss_std.copy_(losses.std(correction=0))

    def outlyingness(self, losses: Float[Tensor, "n"], batch_size: int) -> float:
        """z: how far the mean loss of other images lies from what the module knows, in deviations of the mean of a batch."""
        deviation = self.loss_std / batch_size**0.5
        return ((losses.mean() - self.loss_mean) / deviation.clamp_min(EPSILON)).item()


class StructuralHead(nn.Module):
    """A linear classifier, and a linear auto-encoder of the features that it was trained on, by which it can be chosen without a task id.

    Args:
        features: their length.
        classes: how many.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        code = max(1, features // CODE_SHARE)
        self.classifier = nn.Linear(features, classes)
        self.structural = nn.Sequential(nn.Linear(features, code), nn.Linear(code, features))

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Logits."""
        return self.classifier(features)

    def loss(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """The mean squared reconstruction error of the features of each image; the features get no gradient."""
        features = features.detach()
        return _squared_error(self.structural(features), features)


@dataclass(frozen=True)
class Routing:
    """How the modules of a layer are weighted.

    Attributes:
        temperature: of the softmax over each image's losses.
        prior_temperature: of the batch prior; None: there is none, and what comes out for an image does not depend on its batch.
    """

    temperature: float
    prior_temperature: float | None = None

    def weights(self, losses: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        """The weight of each module for each image; columns sum to 1.

        Args:
            losses: l_m of m modules on a batch of n images.
        """
        scores = -log(losses) / self.temperature
        if self.prior_temperature is not None:
            # The product of two softmaxes, normalized again, is the softmax of the sum.
            scores = scores - log(losses.mean(dim=1, keepdim=True)) / self.prior_temperature
        return scores.softmax(dim=0)


@dataclass(frozen=True)
class Step:
    """What happened in a layer.

    Attributes:
        losses: l_m of each module and image, (m, n).
        weights: w_m of each module and image, (m, n), without gradients.
    """

    losses: Float[Tensor, "m n"]
    weights: Float[Tensor, "m n"]


Layers = Sequence[Sequence[LocalModule]]
"""The modules of each layer, from the bottom up; none is empty."""


def compose(
    layers: Layers, inputs: Float[Tensor, "n 3 h w"], routing: Routing, *, projected: int | None = None
) -> tuple[Float[Tensor, "n *out"], list[Step]]:
    """Pass images through the layers.

    Args:
        layers: all, or the lowest ones.
        inputs: normalized images.
        routing: weights the modules of a layer.
        projected: the layer whose output is to become what the modules above it know: their losses pass gradients down to it. None: all
            losses are local.

    Returns:
        What comes out of the last layer, and what happened in each.
    """
    x, steps = inputs, []
    for position, modules in enumerate(layers):
        outputs = [module(x) for module in modules]
        local = projected is None or position <= projected
        known = x.detach() if local else x
        losses = torch.stack([module.loss(known, y.detach() if local else y) for module, y in zip(modules, outputs, strict=True)])  # (m, n)
        weights = routing.weights(losses.detach())
        steps.append(Step(losses, weights))
        x = torch.stack([w.view(-1, *[1] * (y.ndim - 1)) * y for w, y in zip(weights, outputs, strict=True)]).sum(dim=0)
    return x, steps


def make_module(chain: Chain, position: int) -> LocalModule:
    """A fresh module for a layer of a chain, with weights from torch's global generator."""
    last = position == len(chain) - 1
    side = round((chain.feature_dim / chain.channels) ** 0.5) if last else None
    return LocalModule(chain.make(position), Decoder(chain.channels if position else 3, chain.channels, side))


def log(losses: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The logarithm of losses that may be 0."""
    return (losses + EPSILON).log()


def _squared_error(a: Float[Tensor, "n *shape"], b: Float[Tensor, "n *shape"]) -> Float[Tensor, "n"]:
    return (a - b).square().flatten(1).mean(dim=1)
