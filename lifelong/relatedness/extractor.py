"""Frozen feature extractors, on whose features distances between tasks are measured. They are never trained and never predict.

`resnet18` is the paper's: a ResNet-18 trained on ImageNet, pooled to 512 features (256 if its weights end at layer3). `pixels` needs no
weights: the normalized pixels themselves; images larger than 32 x 32 are averaged down to that, so that distances stay affordable.
`squeezenet` is a small network whose weights come from a file. Networks of a file or of other libraries are named by a prefix, such as
`timm:NAME` (`lifelong.relatedness.families`); add others with `register_extractor`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from annotated_types import Ge
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lifelong.data.augment import normalize, order_of_images
from lifelong.data.task import IMAGENET, Normalization
from lifelong.errors import LifelongError, require
from lifelong.networks.pretrained import FrozenFeatures, Pixels
from lifelong.relatedness.weights import RESNET18, SQUEEZENET, digest, load_as, load_resnet18, read, saved_network
from lifelong.settings.arguments import checked
from lifelong.settings.sockets import EXTRACTORS

IMAGENET_SIZE = 224
CHUNK_PIXELS = 2**19
"""Pixels per forward pass (512 images of 32 x 32): about 100 MB of activations."""

SMALL_CHUNK_PIXELS = 2**17
"""The same for predictions on a CPU: activations fit in the cache, and stay below what the C library returns to the system at once."""


@runtime_checkable
class Extractor(Protocol):
    """A frozen map from images to feature vectors.

    Attributes:
        name: as it is registered.
        network: from normalized images (n, 3, h, w) to features (n, d).
        dim: length of a feature vector; None where it depends on the images' size.
        digest: checksum of the weights; empty where there are none.
        num_parameters: held, all constant; not counted in a method's parameters (PAR, footnote 3).
    """

    name: str
    network: nn.Module
    dim: int | None
    digest: str
    num_parameters: int

    def features(self, images: UInt8[Tensor, "n 3 h w"], normalization: Normalization) -> Float[Tensor, "n d"]:
        """Compute feature vectors of images, in chunks of bounded memory, on the extractor's device.

        Args:
            images: uint8 RGB, without augmentation.
            normalization: of the task the images belong to.
        """
        ...

    def features_of_each(self, images: UInt8[Tensor, "n 3 h w"], normalizations: Sequence[Normalization]) -> list[Float[Tensor, "n d"]]:
        """Compute features of the same images prepared for each of several tasks: equal to those of `features` up to rounding.

        Args:
            images: uint8 RGB, without augmentation.
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
    saved: Mapping[str, Tensor] | None = None,
) -> Extractor:
    """Open a feature extractor by its name.

    Args:
        name: of a registered extractor.
        weights: safetensors file with the network's weights; "pixels" and "file:..." ignore it.
        download: fetch the weights from the hub if no file is given.
        feature_input: "task": images at their size with their task's normalization; "imagenet": resized to 224 x 224, with ImageNet's.
        device: device to compute on.
        saved: the tensors of the network as a run keeps them, which are used instead of a file.

    Raises:
        LifelongError: the name is unknown, or the weights are missing or do not fit.
    """
    return EXTRACTORS[name](weights=weights, download=download, feature_input=feature_input, device=device, saved=saved)


def open_resnet18(
    *, weights: Path | None, download: bool, feature_input: str, device: torch.device | str, saved: Mapping[str, Tensor] | None = None
) -> Extractor:
    """Open the ResNet-18 with ImageNet weights; see `open_extractor`."""
    network, checksum = load_resnet18(weights, download=download) if saved is None else saved_network(RESNET18, saved)
    return NetworkExtractor("resnet18", network, checksum, feature_input=feature_input, device=device)


def open_squeezenet(
    *, weights: Path | None, download: bool, feature_input: str, device: torch.device | str, saved: Mapping[str, Tensor] | None = None
) -> Extractor:
    """Open SqueezeNet 1.1 with the weights of a file; see `open_extractor`. No hub has them as safetensors."""
    remedy = f"give the weights of {SQUEEZENET.label} as safetensors with --weights"
    if saved is not None:
        network, checksum = saved_network(SQUEEZENET, saved)
    elif weights is None:
        raise LifelongError(f"the extractor 'squeezenet' needs ImageNet weights, which it cannot download: {remedy} FILE")
    else:
        network, checksum = load_as(SQUEEZENET, read(weights, remedy), weights, remedy)
    return NetworkExtractor("squeezenet", network, checksum, feature_input=feature_input, device=device)


def open_pixels(
    *, weights: Path | None, download: bool, feature_input: str, device: torch.device | str, saved: Mapping[str, Tensor] | None = None
) -> Extractor:
    """Open the pixels as features; see `open_extractor`."""
    if feature_input == "imagenet":
        raise LifelongError(
            "feature_input 'imagenet' resizes images for an ImageNet network; it needs the extractor 'resnet18', not 'pixels'"
        )
    return PixelExtractor(device)


# `Any`, not a callable: what cannot be called gets a message of its own.
@checked
def register_extractor(name: str, make: Any, *, summary: str = "", source: str = "") -> None:
    """Register your own frozen features for `--extractor` and the setting `extractor`.

    Args:
        name: letters, digits, dashes and underscores.
        make: a function without arguments that gives a module, its weights loaded, from normalized images (n, 3, h, w) to features (n, d).
            It is frozen, set to evaluation mode, and identified by a checksum of its weights.
        summary: one line of what it is.
        source: its paper.

    Raises:
        LifelongError: the name is taken or invalid, or `make` is not a function.
    """
    fits = callable(make) and not isinstance(make, nn.Module)
    EXTRACTORS.require(fits, make, "a function without arguments that gives the module")

    def opened(
        *, weights: Path | None, download: bool, feature_input: str, device: torch.device | str, saved: Mapping[str, Tensor] | None = None
    ) -> Extractor:
        network = make()
        if not isinstance(network, nn.Module):
            raise LifelongError(f"extractor '{name}': gave a {type(network).__name__}; it must give a torch.nn.Module")
        if saved is not None:
            network.load_state_dict(saved)
        return NetworkExtractor(name, network, digest(network.state_dict()), feature_input=feature_input, device=device)

    EXTRACTORS.register(name, opened, summary=summary, source=source)


@checked
def check_extractor(name: str, *, image_size: Annotated[int, Ge(1)] = 32, weights: Path | None = None) -> None:
    """Try a registered extractor on synthetic images.

    Checked: a feature vector for each image, finite, of one length; the same again; the same, up to rounding, in batches of any size;
    nothing is trained.

    Args:
        name: of the extractor.
        image_size: of the images that it is tried on.
        weights: weights file, for extractors that need one.

    Raises:
        ConformanceError: what is broken.
        LifelongError: there is no such extractor.
    """
    extractor = open_extractor(name, weights=weights)
    images = torch.randint(0, 256, (5, 3, image_size, image_size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = extractor.features(images, IMAGENET)
    shape = tuple(found.shape)
    require(found.ndim == 2 and len(found) == len(images), f"extractor '{name}': features of shape {shape}, not (5, d), for 5 images")
    require(bool(found.isfinite().all()), f"extractor '{name}': its features are not finite")
    require(bool(not found.requires_grad), f"extractor '{name}': its features have gradients")
    require(bool(torch.equal(extractor.features(images, IMAGENET), found)), f"extractor '{name}': the same images have other features")
    alone = torch.cat([extractor.features(image[None], IMAGENET) for image in images])
    require(bool(torch.allclose(alone, found, rtol=1e-3, atol=1e-4)), f"extractor '{name}': features depend on the other images of a batch")
    each = extractor.features_of_each(images, [IMAGENET, IMAGENET])
    require(bool(all(torch.allclose(one, found, rtol=1e-3, atol=1e-4) for one in each)), f"extractor '{name}': features_of_each differs")


def _chunks(images: UInt8[Tensor, "n 3 h w"], count: int) -> Sequence[UInt8[Tensor, "_b 3 h w"]]:
    """Split images into parts of so many; while a program is traced for export, which takes any number, they stay together."""
    return (images,) if torch.compiler.is_compiling() else images.split(max(1, count))


class NetworkExtractor:
    """Features of a frozen network.

    Args:
        name: of the extractor.
        network: the network without its classifier, (n, 3, h, w) to (n, d).
        digest: checksum of its weights.
        feature_input: see `open_extractor`; "resized": the network itself resizes images, which get ImageNet's normalization.
        device: device to compute on.

    Source: PAR section 3.1; input as it is: the authors' code.
    """

    def __init__(self, name: str, network: nn.Module, digest: str, *, feature_input: str, device: torch.device | str) -> None:
        self.name = name
        if feature_input == "imagenet":
            network = FrozenFeatures(network, IMAGENET_SIZE)
        # Weights in the images' memory format need no conversion at every call.
        order = order_of_images(torch.device(device))
        self.network = network.to(device, memory_format=order).eval().requires_grad_(False)  # ty: ignore[no-matching-overload]
        self.digest = digest
        self.device = torch.device(device)
        self.num_parameters = sum(parameter.numel() for parameter in network.parameters())
        self.dim: int | None = getattr(network, "feature_dim", None)
        self.normalization = None if feature_input == "task" else IMAGENET
        self.size: int | None = getattr(network, "computes_on", None) or getattr(network, "size", None)

    @torch.no_grad()
    def features(self, images: UInt8[Tensor, "n 3 h w"], normalization: Normalization) -> Float[Tensor, "n d"]:
        """See `Extractor.features`."""
        chunks = _chunks(images, CHUNK_PIXELS // self._pixels(images))
        how = self.normalization or normalization
        return torch.cat([self.network(normalize(chunk.to(self.device), how)) for chunk in chunks])

    @torch.no_grad()
    def features_of_each(self, images: UInt8[Tensor, "n 3 h w"], normalizations: Sequence[Normalization]) -> list[Float[Tensor, "n d"]]:
        """See `Extractor.features_of_each`. All preparations of an image pass the network in one batch."""
        if self.normalization is not None:
            # It replaces every other.
            return [self.features(images, self.normalization)] * len(normalizations)
        pixels = SMALL_CHUNK_PIXELS if self.device.type == "cpu" else CHUNK_PIXELS
        chunks = _chunks(images, pixels // (self._pixels(images) * len(normalizations)))
        found = [self._forward_each(chunk.to(self.device), normalizations) for chunk in chunks]
        return list(torch.cat(found, dim=1))

    def _pixels(self, images: UInt8[Tensor, "n 3 h w"]) -> int:
        """Return of how many pixels the network computes on one image."""
        return self.size**2 if self.size is not None else images.shape[2] * images.shape[3]

    def _forward_each(self, images: UInt8[Tensor, "b 3 h w"], normalizations: Sequence[Normalization]) -> Float[Tensor, "t b d"]:
        prepared = torch.cat([normalize(images, normalization) for normalization in normalizations])  # (t * b, 3, h, w)
        return self.network(prepared).unflatten(0, (len(normalizations), images.shape[0]))  # `len` would fix the number in a traced program


class PixelExtractor:
    """Flattened normalized pixels; sides longer than 32 are averaged down to 32."""

    name = "pixels"
    dim: int | None = None
    digest = ""
    num_parameters = 0

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.network: nn.Module = Pixels()

    def features(self, images: UInt8[Tensor, "n 3 h w"], normalization: Normalization) -> Float[Tensor, "n d"]:
        """See `Extractor.features`."""
        height, width = images.shape[2:]
        chunks = _chunks(images, CHUNK_PIXELS // (height * width))
        return torch.cat([self.network(normalize(chunk.to(self.device), normalization)) for chunk in chunks])

    def features_of_each(self, images: UInt8[Tensor, "n 3 h w"], normalizations: Sequence[Normalization]) -> list[Float[Tensor, "n d"]]:
        """See `Extractor.features_of_each`."""
        return [self.features(images, normalization) for normalization in normalizations]
