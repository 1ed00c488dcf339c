"""Images as tensors: what `decoding` and `squares` make of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lifelong.data.decoding import Picture, decode_squares
from lifelong.data.squares import square


class DecodedTensor(NamedTuple):
    """Decoded images, and the problems and remarks about them.

    Attributes:
        images: RGB squares; those that cannot be used are black.
        problems: why images cannot be used, by position, in order.
        remarks: what images lost when read, by position, in order; a single colour counts as a loss.
    """

    images: UInt8[Tensor, "n 3 s s"]
    problems: dict[int, str]
    remarks: dict[int, str]


def decode_images(encoded: Sequence[Picture], size: int, squeeze: bool = False) -> DecodedTensor:
    """Decode images on all cores, as a tensor of RGB squares; see `decode_squares`."""
    images, problems, remarks = decode_squares(encoded, size, squeeze)
    return DecodedTensor(torch.from_numpy(images), problems, remarks)


def square_grey(images: UInt8[np.ndarray, "n h w"], size: int) -> UInt8[Tensor, "n 3 s s"]:
    """Resize decoded grey images to RGB squares by the same rule."""
    squares = np.stack([square(image, size) for image in images]) if len(images) else np.empty((0, size, size, 1), np.uint8)
    return torch.from_numpy(squares).permute(0, 3, 1, 2).repeat(1, 3, 1, 1)
