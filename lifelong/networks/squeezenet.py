"""SqueezeNet 1.1 as a feature extractor: 722,496 parameters, 512 features.

Source: Iandola et al., SqueezeNet (arXiv 1602.07360), in the revision 1.1 of its authors, which pools earlier.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 convolutions side by side, each with a ReLU.

    Args:
        inputs: channels before.
        squeezed: channels between.
        outputs: channels of each of the two sides.
    """

    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, outputs, 1)
        self.expand3x3 = nn.Conv2d(squeezed, outputs, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """Apply the block."""
        squeezed = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1))


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


ENDS = {"fire3": 4, "fire5": 7, "fire7": 10, "fire9": 12}
"""The layers of `features` after which maps can be averaged, by the names of the paper's modules."""


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 without its classifier, with torchvision's parameter names.

    Attributes:
        feature_dim: features per image.
        stages: the channels of each stage after which features can be averaged.
    """

    def __init__(self) -> None:
        super().__init__()
        # A block's place is part of its parameters' names.
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), _pool()),
            *(Fire(64, 16, 64), Fire(128, 16, 64), _pool()),
            *(Fire(128, 32, 128), Fire(256, 32, 128), _pool()),
            *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
        )
        self.feature_dim = 512
        self.stages = {"fire3": 128, "fire5": 256, "fire7": 384, "fire9": 512}

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Compute features of images with ImageNet's normalization."""
        return self.features(images).mean(dim=(2, 3))

    def pooled(self, images: Float[Tensor, "n 3 h w"], stages: Sequence[str]) -> Float[Tensor, "n d"]:
        """Compute the averaged maps after some of the `stages`, in the network's order, side by side."""
        return torch.cat([maps.mean(dim=(2, 3)) for stage, maps in self.maps(images) if stage in stages], dim=1)

    def maps(self, images: Float[Tensor, "n 3 h w"]) -> Iterator[tuple[str, Float[Tensor, "n c _h _w"]]]:
        """Yield the maps after each stage, with its name."""
        x, done = images, 0
        for stage, end in ENDS.items():
            x = self.features[done : end + 1](x)
            done = end + 1
            yield stage, x
