"""Resize decoded images to squares."""

from functools import cache

import numpy as np
from PIL import Image

_LONGEST = 8  # of an image that is longer than this many times its short side, only the middle part is looked at


def square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize and crop pixels to a square that broadcasts to (size, size, 3).

    A grey image that must grow (28 to 32) is interpolated bilinearly and truncated to bytes; any other has its short side scaled to
    `size` (bicubic), and of the long one the middle is kept.

    Source: CTrL's image_dataset_tree (F.interpolate without aligned corners, then `.byte()`) and its DTD (short side, centre crop).
    """
    pixels = _middle(pixels)
    short = min(pixels.shape[:2])
    height, width = (max(size, round(side * size / short)) for side in pixels.shape[:2])
    top, left = (height - size) // 2, (width - size) // 2
    if pixels.ndim == 2 and short < size:
        pixels = _grow(pixels, height, width)
    elif pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    cut = pixels[top : top + size, left : left + size]
    return cut[:, :, None] if cut.ndim == 2 else cut


def squeezed(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize the whole picture, bilinearly, to a square that broadcasts to (size, size, 3), as CAT prepares faces (178x218 to 32x32)."""
    if pixels.shape[:2] != (size, size):
        pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _middle(pixels: np.ndarray) -> np.ndarray:
    """Cut the ends off very long images, which are cropped anyway: scaled whole, they might not fit into memory."""
    most = _LONGEST * min(pixels.shape[:2])
    top, left = (max(0, (side - most) // 2) for side in pixels.shape[:2])
    return pixels[top : top + most, left : left + most] if top or left else pixels


def _grow(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Enlarge by bilinear interpolation without aligned corners, one axis after the other, truncated to bytes."""
    rows, columns = _taps(pixels.shape[0], height), _taps(pixels.shape[1], width)
    tall = pixels[rows[0]] * (1 - rows[2][:, None]) + pixels[rows[1]] * rows[2][:, None]
    wide = tall[:, columns[0]] * (1 - columns[2]) + tall[:, columns[1]] * columns[2]
    return (wide + 1e-6).astype(np.uint8)  # what is a whole number must not fall short of it by rounding


@cache
def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each new pixel of a row, the two old ones it lies between and the weight of the second."""
    place = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0.0)
    first = place.astype(np.int64)
    return first, np.minimum(first + 1, old - 1), place - first
