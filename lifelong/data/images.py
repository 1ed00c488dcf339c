"""Encoded images (PNG, JPEG, WebP, ...) to square uint8 RGB tensors."""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lifelong.errors import LifelongError

RESIZE_VERSION = 1
"""Counted up whenever the same bytes would become other pixels, so that cached tensors of the old rule are not used."""

_CHUNK = 64  # images that one thread takes at a time


def decode_images(
    encoded: Sequence[bytes | None], size: int, where: Callable[[int], str], squeeze: bool = False
) -> UInt8[Tensor, "n 3 s s"]:
    """Decode images on all cores, as RGB squares.

    Grey becomes three equal channels, palettes and CMYK become RGB, 16 bits keep their upper 8, transparency is laid on white,
    a camera's rotation mark is obeyed, of several frames the first is taken.

    Args:
        encoded: the bytes of each image.
        size: height and width of the result in pixels.
        where: names the image at a position, for the error line.
        squeeze: whether an oblong image is squeezed into the square whole; else the middle of its long side is kept.

    Raises:
        LifelongError: an image is missing or broken; the line starts with `where`.
    """
    images = np.empty((len(encoded), size, size, 3), dtype=np.uint8)

    def place(first: int) -> None:
        for position in range(first, min(first + _CHUNK, len(encoded))):
            pixels = _open(encoded[position], where(position))
            images[position] = _squeezed(pixels, size) if squeeze else _square(pixels, size)

    # Pillow lets go of the interpreter's lock while it decodes and resizes, so threads do run side by side.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(place, range(0, len(encoded), _CHUNK)):
            pass
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _open(encoded: bytes | None, where: str) -> np.ndarray:
    """The decoded image: bytes of shape (h, w) if it is grey, else (h, w, 3)."""
    if encoded is None:
        raise LifelongError(f"{where}: the row holds no image bytes; store the encoded image itself, not only its path")
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            opened.load()
            return _upright(opened)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise LifelongError(f"{where}: not a readable image ({reason}); remove or replace it") from error


def _upright(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; store bytes")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, colours).convert("RGB"))
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode.startswith("I"):
        # Sixteen bits: Pillow's own conversion would clip everything above 255 to white.
        return (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


def _square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Pixels as a square that fits into (size, size, 3).

    A grey image that must grow (28 to 32) is interpolated bilinearly and truncated to bytes; any other has its short side scaled to
    `size` (bicubic), and of the long one the middle is kept.

    Source: CTrL's image_dataset_tree (F.interpolate without aligned corners, then `.byte()`) and its DTD (short side, centre crop).
    """
    short = min(pixels.shape[:2])
    height, width = (max(size, round(side * size / short)) for side in pixels.shape[:2])
    top, left = (height - size) // 2, (width - size) // 2
    if pixels.ndim == 2 and short < size:
        pixels = _grow(pixels, height, width)
    elif pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    cut = pixels[top : top + size, left : left + size]
    return cut[:, :, None] if cut.ndim == 2 else cut


def _squeezed(pixels: np.ndarray, size: int) -> np.ndarray:
    """All of the picture in a square that fits into (size, size, 3), bilinear: faces as CAT prepares them (178x218 to 32x32)."""
    if pixels.shape[:2] != (size, size):
        pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _grow(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation without aligned corners, one axis after the other, truncated to bytes."""
    rows, columns = _taps(pixels.shape[0], height), _taps(pixels.shape[1], width)
    tall = pixels[rows[0]] * (1 - rows[2][:, None]) + pixels[rows[1]] * rows[2][:, None]
    wide = tall[:, columns[0]] * (1 - columns[2]) + tall[:, columns[1]] * columns[2]
    return (wide + 1e-6).astype(np.uint8)  # what is a whole number must not fall short of it by rounding


@cache
def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new pixel of a row the two old ones it lies between, and the weight of the second."""
    place = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0.0)
    first = place.astype(np.int64)
    return first, np.minimum(first + 1, old - 1), place - first


def square_grey(images: UInt8[np.ndarray, "n h w"], size: int) -> UInt8[Tensor, "n 3 s s"]:
    """Grey images that are decoded already, as RGB squares by the same rule."""
    squares = np.stack([_square(image, size) for image in images]) if len(images) else np.empty((0, size, size, 1), np.uint8)
    return torch.from_numpy(squares).permute(0, 3, 1, 2).repeat(1, 3, 1, 1)
