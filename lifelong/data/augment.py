"""Crop, flip, brighten and normalize a whole batch at once, on the images' device."""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from lifelong.data.task import Augmentation, Normalization


@dataclass(frozen=True)
class Draws:
    """The random draws for each image of a batch; None where the policy needs none.

    Attributes:
        top, left: the crop's corner in the padded image, 0..2 * crop.
        flip: whether it is mirrored left-right.
        brightness: the factor of its pixels.
    """

    top: Int64[Tensor, "b"] | None
    left: Int64[Tensor, "b"] | None
    flip: Bool[Tensor, "b"] | None
    brightness: Float[Tensor, "b"] | None


def draw(policy: Augmentation, count: int, generator: torch.Generator) -> Draws:
    """Draw the random numbers of one batch, on the generator's device."""
    device = generator.device
    top = left = flip = brightness = None
    if policy.crop:
        top, left = torch.randint(2 * policy.crop + 1, (2, count), generator=generator, device=device)
    if policy.flip:
        flip = torch.rand(count, generator=generator, device=device) < 0.5
    if policy.brightness:
        brightness = 1 + policy.brightness * (2 * torch.rand(count, generator=generator, device=device) - 1)
    return Draws(top, left, flip, brightness)


def augment(images: UInt8[Tensor, "b 3 h w"], policy: Augmentation, generator: torch.Generator) -> UInt8[Tensor, "b 3 h w"]:
    """Crop, mirror and brighten each image of a batch independently at random.

    Args:
        images: uint8 RGB.
        policy: the augmentations; a policy that changes nothing returns the images themselves.
        generator: of the random draws, on the images' device.

    Returns:
        The changed images, of the same shape. A crop first pads with black; brightness is rounded and clipped to 0..255.
    """
    if not policy:
        return images
    draws = draw(policy, len(images), generator)
    moved = _move(images, policy.crop, draws)
    return moved if draws.brightness is None else _brighten(moved, draws.brightness)


def _move(images: UInt8[Tensor, "b 3 h w"], crop: int, draws: Draws) -> UInt8[Tensor, "b 3 h w"]:
    """Crop and flip in one gather: every output pixel reads from its own place in the padded image."""
    if draws.top is None and draws.flip is None:
        return images
    count, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(count, height)
    columns = torch.arange(width, device=images.device).expand(count, width)
    if draws.flip is not None:
        columns = torch.where(draws.flip[:, None], width - 1 - columns, columns)
    if draws.top is not None and draws.left is not None:
        images = functional.pad(images, (crop, crop, crop, crop))
        rows, columns = rows + draws.top[:, None], columns + draws.left[:, None]
    places = rows[:, :, None] * images.shape[3] + columns[:, None, :]  # (b, h, w), into the flattened padded image
    places = places.view(count, 1, height * width).expand(count, channels, height * width)
    return images.flatten(2).gather(2, places).view(count, channels, height, width)


def _brighten(images: UInt8[Tensor, "b 3 h w"], factors: Float[Tensor, "b"]) -> UInt8[Tensor, "b 3 h w"]:
    return (images * factors[:, None, None, None]).round_().clamp_(0, 255).to(torch.uint8)


def normalize(images: UInt8[Tensor, "b 3 h w"], normalization: Normalization) -> Float[Tensor, "b 3 h w"]:
    """Turn pixels into floats, (x / 255 - mean) / std per channel, by one multiply-add x * scale + shift.

    The result has torch's default dtype, like the weights of a new network: float32 unless the program has set another.

    On a CPU its memory format is channels-last, which makes convolutions and later layers faster.

    Args:
        images: uint8 RGB.
        normalization: mean and standard deviation of pixels scaled to [0, 1].
    """
    # While a program is traced for export its constants are its own.
    make = _factors.__wrapped__ if torch.compiler.is_compiling() else _factors
    scale, shift = make(tuple(normalization.mean), tuple(normalization.std), images.device, torch.get_default_dtype())
    return torch.addcmul(shift, images.to(scale.dtype, memory_format=order_of_images(images.device)), scale)


def between(given: Normalization, wanted: Normalization) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return scale and shift of each channel that turn one normalization into another: x * scale + shift."""
    pairs = list(zip(given.mean, given.std, wanted.mean, wanted.std, strict=True))
    scale = tuple(std / other for _, std, _, other in pairs)
    return scale, tuple((mean - center) / other for mean, _, center, other in pairs)


def order_of_images(device: torch.device) -> torch.memory_format:
    """Return the memory format of prepared images: channels last on a CPU, elsewhere unchanged."""
    return torch.channels_last if device.type == "cpu" else torch.preserve_format


@cache
@torch.inference_mode(False)
def _factors(
    means: tuple[float, ...], stds: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
    """Return scale and shift of each channel, made once per device: else it would wait for those of every batch.

    They are kept for every task, since a recorded step reads them in place.
    """
    scale = [1 / (255 * std) for std in stds]
    shift = [-mean / std for mean, std in zip(means, stds, strict=True)]
    scales, shifts = (torch.tensor(row, dtype=dtype).view(3, 1, 1).to(device, non_blocking=True) for row in (scale, shift))
    return scales, shifts
