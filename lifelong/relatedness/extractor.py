"""Frozen feature extractors: what distances between tasks are measured on. They are never trained and never predict.

`resnet18` is the paper's: a ResNet-18 trained on ImageNet, pooled to 512 features (256 if its weights end at layer3). `pixels` needs no
weights: the normalized pixels themselves; images larger than 32 x 32 are averaged down to that, so that distances stay affordable.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from lifelong.data.augment import normalize, order_of_images
from lifelong.data.task import Normalization
from lifelong.errors import LifelongError, near_miss
from lifelong.relatedness.weights import load_resnet18

IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The normalization that ImageNet networks of torchvision were trained with."""

IMAGENET_SIZE = 224
LARGEST_PIXELS = 32
CHUNK_PIXELS = 2**19
"""Pixels per forward pass (512 images of 32 x 32): about 100 MB of activations."""

SMALL_CHUNK_PIXELS = 2**17
"""The same on a CPU where images are asked about, not learned from: what is computed stays in the cache and below what the C library
gives back to the system at once."""


@runtime_checkable
class Extractor(Protocol):
    """A frozen map from images to feature vectors.

    Attributes:
        name: "resnet18" or "pixels".
        dim: length of a feature vector; None where it depends on the images' size.
        digest: checksum of the weights; empty where there are none.
        num_parameters: held, all constant; not counted in a method's parameters (PAR, footnote 3).
    """

    name: str
    dim: int | None
    digest: str
    num_parameters: int

    def features(self, images: UInt8[Tensor, "n 3 h w"], normalization: Normalization) -> Float[Tensor, "n d"]:
        """Feature vectors of images, in chunks of bounded memory, on the extractor's device.

        Args:
            images: uint8 RGB, as they are (no augmentation).
            normalization: of the task the images belong to.
        """
        ...

    def features_of_each(self, images: UInt8[Tensor, "n 3 h w"], normalizations: Sequence[Normalization]) -> list[Float[Tensor, "n d"]]:
        """Features of the same images prepared as those of each of several tasks: equal to those of `features` up to rounding.

        Args:
            images: uint8 RGB, as they are.
            normalizations: at least one.
        """
        ...


def open_extractor(
    name: str,
    *,
    weights: Path | None = None,
    download: bool = False,
    feature_input: str = "task",
    device: torch.device | str = "cpu",
) -> Extractor:
    """A feature extractor by its name.

    Args:
        name: "resnet18" or "pixels".
        weights: safetensors file for "resnet18"; "pixels" has no use for it.
        download: fetch the weights from the hub where no file is given.
        feature_input: "task": images at their size with their task's normalization; "imagenet": resized to 224 x 224, with ImageNet's.
        device: where it computes.

    Raises:
        LifelongError: unknown name, or weights that are missing or do not fit.
    """
    if name == "pixels":
        if feature_input == "imagenet":
            raise LifelongError(
                "feature_input 'imagenet' resizes images for an ImageNet network; it needs the extractor 'resnet18', not 'pixels'"
            )
        return PixelExtractor(device)
    if name != "resnet18":
        raise LifelongError(f"unknown extractor '{name}'{near_miss(name, ['resnet18', 'pixels'])}")
    network, digest = load_resnet18(weights, download=download)
    return ResNet18Extractor(network, digest, feature_input="imagenet" if feature_input == "imagenet" else "task", device=device)


class ResNet18Extractor:
    """Pooled features of a ResNet-18 with ImageNet weights.

    Args:
        network: the network without its classifier.
        digest: checksum of its weights.
        feature_input: see `open_extractor`.
        device: where it computes.

    Source: PAR section 3.1; input as it is: the authors' code.
    """

    name = "resnet18"

    def __init__(self, network: nn.Module, digest: str, *, feature_input: Literal["task", "imagenet"], device: torch.device | str) -> None:
        # Weights that lie as images do need not be brought into order at every call.
        order = order_of_images(torch.device(device))
        self.network = network.to(device, memory_format=order).eval().requires_grad_(False)  # ty: ignore[no-matching-overload]
        self.digest = digest
        self.feature_input = feature_input
        self.device = torch.device(device)
        self.num_parameters = sum(parameter.numel() for parameter in network.parameters())
        self.dim: int | None = int(self.network(torch.zeros(1, 3, 32, 32, device=device)).shape[1])

    @torch.no_grad()
    def features(self, images: UInt8[Tensor, "n 3 h w"], normalization: Normalization) -> Float[Tensor, "n d"]:
        """See `Extractor.features`."""
        resize = self.feature_input == "imagenet"
        height, width = (IMAGENET_SIZE, IMAGENET_SIZE) if resize else images.shape[2:]
        chunks = images.split(max(1, CHUNK_PIXELS // (height * width)))
        return torch.cat([self.network(self._prepare(chunk.to(self.device), normalization)) for chunk in chunks])

    @torch.no_grad()
    def features_of_each(self, images: UInt8[Tensor, "n 3 h w"], normalizations: Sequence[Normalization]) -> list[Float[Tensor, "n d"]]:
        """See `Extractor.features_of_each`. A single image goes through the network once, in as many copies as there are normalizations."""
        if self.feature_input == "imagenet":
            # ImageNet's normalization takes the place of every other.
            return [self.features(images, IMAGENET)] * len(normalizations)
        pixels = SMALL_CHUNK_PIXELS if self.device.type == "cpu" else CHUNK_PIXELS
        chunks = images.split(max(1, pixels // (images.shape[2] * images.shape[3] * len(normalizations))))
        found = [self._forward_each(chunk.to(self.device), normalizations) for chunk in chunks]
        return list(torch.cat(found, dim=1))

    def _forward_each(self, images: UInt8[Tensor, "b 3 h w"], normalizations: Sequence[Normalization]) -> Float[Tensor, "t b d"]:
        prepared = torch.cat([normalize(images, normalization) for normalization in normalizations])  # (t * b, 3, h, w)
        return self.network(prepared).unflatten(0, (len(normalizations), len(images)))

    def _prepare(self, images: UInt8[Tensor, "n 3 h w"], normalization: Normalization) -> Float[Tensor, "n 3 h2 w2"]:
        if self.feature_input == "task":
            return normalize(images, normalization)
        pixels = normalize(images, IMAGENET)
        return functional.interpolate(pixels, (IMAGENET_SIZE, IMAGENET_SIZE), mode="bilinear", align_corners=False, antialias=True)


class PixelExtractor:
    """Normalized pixels in a row; each side longer than 32 is averaged down to 32."""

    name = "pixels"
    dim: int | None = None
    digest = ""
    num_parameters = 0

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def features(self, images: UInt8[Tensor, "n 3 h w"], normalization: Normalization) -> Float[Tensor, "n d"]:
        """See `Extractor.features`."""
        height, width = images.shape[2:]
        size = (min(height, LARGEST_PIXELS), min(width, LARGEST_PIXELS))
        chunks = images.split(max(1, CHUNK_PIXELS // (height * width)))
        pooled = [functional.adaptive_avg_pool2d(normalize(chunk.to(self.device), normalization), size).flatten(1) for chunk in chunks]
        return torch.cat(pooled)

    def features_of_each(self, images: UInt8[Tensor, "n 3 h w"], normalizations: Sequence[Normalization]) -> list[Float[Tensor, "n d"]]:
        """See `Extractor.features_of_each`."""
        return [self.features(images, normalization) for normalization in normalizations]
