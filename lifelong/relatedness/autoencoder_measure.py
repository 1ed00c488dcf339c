"""Expert Gate's measure: how much worse an earlier task's auto-encoder reconstructs the new task's features than its own does."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lifelong.networks.autoencoder import AutoEncoder
from lifelong.networks.frozen import freeze
from lifelong.relatedness.gate import relatedness, restored
from lifelong.relatedness.measures import Measure, Sample, kept_of
from lifelong.relatedness.subsamples import held_out
from lifelong.settings.par import RelatednessSettings
from lifelong.storage import Tree

CODE = 100
"""Units of the code, as in Expert Gate's paper; one less than the features where they are fewer."""

STEPS = 300
RATE = 0.003
"""Steps of Adam on all features at once, and its learning rate."""


class AutoEncoders(Measure):
    """1 - Rel(new, earlier), with Rel of Expert Gate: 0 where the earlier auto-encoder is as good as the new task's own.

    An auto-encoder is trained on four fifths of the task's sample; errors are those on the rest, on which a new auto-encoder has no
    advantage. Of classes with fewer than five images all are used for both.

    Source: Aljundi, Chakravarty & Tuytelaars, Expert Gate (CVPR 2017), section 3.
    """

    def keep(self, sample: Sample, settings: RelatednessSettings) -> Tree:
        """Return the weights of the task's auto-encoder."""
        apart = held_out(sample.labels)
        return trained_autoencoder(sample.features[~apart]).state_dict()

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute 1 - Rel for each earlier task."""
        apart = held_out(sample.labels)
        features = sample.features[apart] if apart.any() else sample.features
        weights = [*kept, kept_of(self, sample, settings)]
        gate = [restored(each, features.device) for each in weights]
        with torch.no_grad():
            errors = torch.stack([each.errors(features.to(each.mean.dtype)).double() for each in gate], dim=1)
        return 1 - relatedness(errors.clamp_min(torch.finfo(torch.float32).tiny))


def trained_autoencoder(features: Float[Tensor, "n d"]) -> AutoEncoder:
    """Train an auto-encoder of features in float32; the same features give the same weights."""
    features = features.detach().float()
    length = features.shape[1]
    with torch.device("meta"):  # Draws no number from a generator of the program.
        autoencoder = AutoEncoder(length, max(1, min(CODE, length - 1)))
    autoencoder = autoencoder.to_empty(device=features.device).float().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in (autoencoder.encoder, autoencoder.decoder):
            bound = 1 / math.sqrt(layer.in_features)
            for parameter in (layer.weight, layer.bias):
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
    autoencoder.standardize(features)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=RATE)
    with torch.enable_grad():
        for _ in range(STEPS):
            optimizer.zero_grad()
            autoencoder.errors(features).mean().backward()
            optimizer.step()
    freeze(autoencoder)
    return autoencoder
