"""Networks composed of local modules, each of which measures how well it knows an input (LMC, Ostapenko et al., NeurIPS 2021).

A layer holds several modules of one kind. Each has a functional part f_m, a block of a chain (`blocks.py`), and a structural part d_m, a
decoder from the block's output back to the input X of the layer. How badly it reconstructs an image says how little the module knows it:

    l_m = mean squared error of d_m(f_m(X)) against X, for each image            X' = sum over m of w_m f_m(X)
    w_m ~ softmax over m (-log l_m / temperature) * softmax over m (-log mean over the batch of l_m / prior_temperature)

No task id has a part in it. The second factor, the batch prior, makes what comes out for an image depend on its batch; it is
optional. Losses are local: gradients of l_m reach d_m alone, and the weights w_m carry none.

Choices where the paper is silent:

* The decoder: a convolution 3x3, batch norm, ReLU, nearest-neighbour upsampling to the size of X, a convolution 3x3, all of the width of
  the block's output; 73,984 parameters from 64 channels to 64. A block of `conv4` pads its input by a pixel more than its convolution
  takes away; the maps are upsampled to that size and the last convolution does not pad, so that every pixel is decoded from its own
  place. Features without a plane (the output of a chain's last block) are first laid out as maps again: 3 x 3 for `conv4`, 1 x 1 for
  the light ResNet-18, whose last decoder sees the averages of maps alone.
* The auto-encoder of a head: the linear one with the least squared error, which needs no training: its code are the principal components
  of the features of the task's training images, an eighth as many as there are features. Its error is divided by the variance of these
  features, since the features that tasks have by their own modules and normalizations differ in scale.
* `EPSILON` is added to l_m before its logarithm, so that modules that reconstruct without error share the weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.devices import exact
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
        border: of the chain's blocks, 0 or 1.
    """

    def __init__(self, inputs: int, channels: int, side: int | None, border: int) -> None:
        super().__init__()
        self.maps = nn.Identity() if side is None else nn.Unflatten(1, (channels, side, side))
        self.hidden = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)
        self.outer = nn.Conv2d(channels, inputs, 3, padding=1 - border)
        self.border = border

    def forward(self, outputs: Float[Tensor, "n *out"], size: torch.Size) -> Float[Tensor, "n c h w"]:
        """Reconstruct the input, of height and width `size`."""
        hidden = F.relu(self.bn(self.hidden(self.maps(outputs))))
        return self.outer(F.interpolate(hidden, size=[length + 2 * self.border for length in size], mode="nearest"))


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
        """Apply the block."""
        return self.functional(inputs)

    def loss(self, inputs: Float[Tensor, "n c h w"], outputs: Float[Tensor, "n *out"]) -> Float[Tensor, "n"]:
        """Compute l_m of each image, with gradients to everything it depends on.

        Args:
            inputs: the block's input.
            outputs: the block's output.
        """
        return _squared_error(self.structural(outputs, inputs.shape[2:]), inputs)

    def set_statistics(self, losses: Float[Tensor, "n"]) -> None:
        """Store mean and deviation of the losses of the images that the module was trained on."""
        self.loss_mean.copy_(losses.mean())
        self.loss_std.copy_(losses.std(correction=0))

    def outlyingness(self, means: Float[Tensor, "*b"], batch_size: int) -> Float[Tensor, "*b"]:
        """Compute z: how far mean losses of batches lie from the module's own, in deviations of a batch's mean.

        Args:
            means: of the losses of some images each; for `batch_size` 1, the losses of single images.
            batch_size: of the batches whose mean the deviation refers to.
        """
        deviation = self.loss_std / batch_size**0.5
        return (means - self.loss_mean) / deviation.clamp_min(EPSILON)


class StructuralHead(nn.Module):
    """A linear classifier, and a linear auto-encoder of the features of its task, by which it can be chosen without a task id.

    Args:
        features: their length.
        classes: how many.

    Attributes:
        classifier: of the features.
        mean, basis: of the auto-encoder, (d,) and (k, d): the code of features is how far they lie from the mean along each row.
        variance: mean squared distance of the task's features from their mean, by feature.
    """

    variance: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(features, classes)
        self.mean = nn.Parameter(torch.zeros(features), requires_grad=False)
        self.basis = nn.Parameter(torch.zeros(max(1, features // CODE_SHARE), features), requires_grad=False)
        self.register_buffer("variance", torch.zeros(()))

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Compute logits."""
        return self.classifier(features)

    def fit_autoencoder(self, features: Float[Tensor, "n d"]) -> None:
        """Set the auto-encoder to the one with the least squared error on a task's features: their principal components."""
        wide = exact(features)
        mean = wide.mean(dim=0)
        centred = wide - mean
        directions = torch.linalg.eigh(centred.T @ centred).eigenvectors.T  # (d, d), by ascending variance
        self.mean.copy_(mean)
        self.basis.copy_(directions[-len(self.basis) :])
        self.variance.copy_(centred.square().mean())

    def loss(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """Compute the mean squared reconstruction error of each image's features, divided by the variance of the task's features."""
        centred = features - self.mean
        return _squared_error(centred @ self.basis.T @ self.basis, centred) / (self.variance + EPSILON)


@dataclass(frozen=True)
class Routing:
    """How the modules of a layer are weighted.

    Attributes:
        temperature: of the softmax over each image's losses.
        prior_temperature: of the batch prior; None: no prior, and the output for an image does not depend on its batch.
    """

    temperature: float
    prior_temperature: float | None = None

    def weights(self, losses: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        """Compute the weight of each module for each image; columns sum to 1.

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
    """The losses and weights in a layer.

    Attributes:
        losses: l_m of each module and image, (m, n).
        weights: w_m of each module and image, (m, n), without gradients.
    """

    losses: Float[Tensor, "m n"]
    weights: Float[Tensor, "m n"]


Layers = Sequence[Sequence[LocalModule]]
"""The modules of each layer, from the bottom up; none is empty."""


@dataclass(frozen=True)
class Catch:
    """Routing in training: images that no frozen module of a layer knows go to the layer's new module alone.

    Attributes:
        layers: the layers whose last module is new.
        threshold: an image is an outlier to a module where |z| of its loss is larger, in deviations over single images.
    """

    layers: tuple[int, ...]
    threshold: float

    def weights(self, modules: Sequence[LocalModule], step: Step) -> Float[Tensor, "m n"]:
        """Set the new module's weight to 1 for images that are outliers to all other modules; leave other weights unchanged."""
        z = torch.stack([module.outlyingness(own, 1) for module, own in zip(modules[:-1], step.losses.detach(), strict=False)])
        alone = F.one_hot(torch.tensor(len(modules) - 1, device=z.device), len(modules)).to(step.weights.dtype)
        return torch.where((z.abs() > self.threshold).all(dim=0), alone[:, None], step.weights)


def compose(
    layers: Layers, inputs: Float[Tensor, "n 3 h w"], routing: Routing, *, projected: int | None = None, catch: Catch | None = None
) -> tuple[Float[Tensor, "n *out"], list[Step]]:
    """Pass images through the layers.

    Args:
        layers: all, or the lowest ones.
        inputs: normalized images.
        routing: weights the modules of a layer.
        projected: the layer whose output is to become what the modules above it know: their losses pass gradients down to it. None: all
            losses are local.
        catch: in training, which images go to a new module alone; None: weights are those of the routing.

    Returns:
        The output of the last layer, and the losses and weights in each layer.
    """
    x, steps = inputs, []
    for position, modules in enumerate(layers):
        outputs = [module(x) for module in modules]
        local = projected is None or position <= projected
        known = x.detach() if local else x
        losses = torch.stack([module.loss(known, y.detach() if local else y) for module, y in zip(modules, outputs, strict=True)])  # (m, n)
        weights = routing.weights(losses.detach())
        if catch is not None and position in catch.layers and len(modules) > 1:
            weights = catch.weights(modules, Step(losses, weights))
        steps.append(Step(losses, weights))
        x = torch.stack([w.view(-1, *[1] * (y.ndim - 1)) * y for w, y in zip(weights, outputs, strict=True)]).sum(dim=0)
    return x, steps


def make_module(chain: Chain, position: int) -> LocalModule:
    """Make a fresh module for a layer of a chain, with weights from torch's global generator."""
    last = position == len(chain) - 1
    side = round((chain.feature_dim / chain.channels) ** 0.5) if last else None
    return LocalModule(chain.make(position), Decoder(chain.channels if position else 3, chain.channels, side, chain.border))


def log(losses: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Compute the logarithm of losses that may be 0."""
    return (losses + EPSILON).log()


def _squared_error(a: Float[Tensor, "n *shape"], b: Float[Tensor, "n *shape"]) -> Float[Tensor, "n"]:
    return (a - b).square().flatten(1).mean(dim=1)
