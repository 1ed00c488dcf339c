"""A frozen network as a source of features: the size its images are resized to, and the stages whose maps are averaged."""

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

LARGEST_PIXELS = 32
"""Side to which the pixels that serve as features are averaged down, so that distances stay affordable."""


@runtime_checkable
class Staged(Protocol):
    """A network whose features can be taken after several of its stages.

    Attributes:
        stages: the channels of each stage, by its name, in the network's order.
    """

    stages: dict[str, int]

    def pooled(self, images: Float[Tensor, "n 3 h w"], stages: Sequence[str]) -> Float[Tensor, "n d"]:
        """Compute the averaged maps after some stages, in the network's order, side by side."""
        ...


class Pixels(nn.Module):
    """The pixels themselves as features; sides longer than 32 are averaged down to 32."""

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Flatten normalized images."""
        height, width = images.shape[2:]
        return functional.adaptive_avg_pool2d(images, (min(height, LARGEST_PIXELS), min(width, LARGEST_PIXELS))).flatten(1)


class FrozenFeatures(nn.Module):
    """Features of a frozen network for images of any size.

    Args:
        network: from normalized images (n, 3, h, w) to features (n, d).
        size: side in pixels to which images are resized; None: they stay as they are.
        stages: after which maps are averaged, side by side; none: the network's own output.

    Raises:
        ValueError: the network has no such stage; the message says which it has.
    """

    def __init__(self, network: nn.Module, size: int | None = None, stages: Sequence[str] = ()) -> None:
        super().__init__()
        known = list(network.stages) if isinstance(network, Staged) else []
        unknown = [stage for stage in stages if stage not in known]
        if unknown:
            raise ValueError(f"no stage '{unknown[0]}'" + (f"; it has {', '.join(known)}" if known else "; it names no stages"))
        self.network = network
        self.size = size
        self.stages = tuple(stages)

    @property
    def computes_on(self) -> int | None:
        """Side in pixels of the images that the network itself computes on; None: of those that are given."""
        return getattr(self.network, "size", None) or self.size

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Compute the features of normalized images."""
        images = self.resized(images)
        return cast(Staged, self.network).pooled(images, self.stages) if self.stages else self.network(images)

    def resized(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        """Resize images to the network's size, averaging where they shrink."""
        if self.size is None or images.shape[2:] == (self.size, self.size):
            return images
        shrinks = min(images.shape[2:]) > self.size
        return functional.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False, antialias=shrinks)


class RandomFeatures(nn.Module):
    """A fixed random projection followed by a ReLU: h = max(0, f R), with R drawn from a standard normal distribution.

    Args:
        inputs: features d.
        outputs: random features M.
        seed: of the projection, which is drawn again instead of being stored.

    Source: RanPAC (McDonnell et al., NeurIPS 2023), section 4.
    """

    def __init__(self, inputs: int, outputs: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(inputs, outputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
        self.register_buffer("projection", drawn, persistent=False)
        self.projection: Tensor

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Project features."""
        return torch.relu(features @ self.projection.to(features))


def tukey(features: Float[Tensor, "n d"], power: float) -> Float[Tensor, "n d"]:
    """Raise features to a power, keeping their signs: skewed features become more like normal ones.

    Source: FeCAM (Goswami et al., NeurIPS 2023), section 3.3, which has it for features that are not negative.
    """
    return features if power == 1 else features.sign() * features.abs().pow(power)


def mahalanobis(features: Float[Tensor, "n d"], means: Float[Tensor, "c d"], whitening: Float[Tensor, "k d d"]) -> Float[Tensor, "n c"]:
    """Compute squared Mahalanobis distances |W (f - mean)|^2 of features to class means.

    Differences are taken before they are squared: the shorter form |f|^2 + |mean|^2 - 2 f mean' loses digits where they are small.

    Args:
        features, means: what is compared.
        whitening: W for each class, or one for all.
    """
    if len(whitening) == 1:
        features, means = features @ whitening[0].T, means @ whitening[0].T
        return torch.stack([(features - mean).square().sum(dim=1) for mean in means], dim=1)
    pairs = zip(means, whitening, strict=True)
    return torch.stack([((features - mean) @ each.T).square().sum(dim=1) for mean, each in pairs], dim=1)


class MahalanobisHead(nn.Module):
    """Logits that are negative squared Mahalanobis distances to one mean per class, times a scale.

    Args:
        inputs: features d.
        classes: number of classes.
        own: whether each class has a covariance of its own.
        power: see `tukey`, which features pass before they are scaled to length 1; means are given as they come out of both.
    """

    def __init__(self, inputs: int, classes: int, *, own: bool, power: float) -> None:
        super().__init__()
        self.whitening = nn.Parameter(torch.zeros(classes if own else 1, inputs, inputs))
        self.mean = nn.Parameter(torch.zeros(classes, inputs))
        self.scale = nn.Parameter(torch.ones(()))
        self.power = power

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Measure the distance to every class."""
        return -self.scale * mahalanobis(functional.normalize(tukey(features, self.power), dim=1), self.mean, self.whitening)


class CosineHead(nn.Module):
    """Logits that are cosines of features with one direction per class, times a scale.

    Args:
        inputs: features d.
        classes: number of classes.
    """

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, inputs))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Compare features with every class."""
        return self.scale * functional.normalize(features, dim=1) @ functional.normalize(self.weight, dim=1).T
