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

RESIZE_VERSION = 2
"""Counted up whenever the same bytes would become other pixels, so that cached tensors of the old rule are not used."""

CHECK_VERSION = 1
"""Counted up whenever other images would be called unusable."""

_CHUNK = 8  # images that one thread takes at a time
_LONGEST = 8  # of an image that is longer than this many times its short side, only the middle part is looked at


class UnusableError(ValueError):
    """Why an image cannot be used, in a few words."""


def decode_images(encoded: Sequence[bytes | None], size: int, squeeze: bool = False) -> tuple[UInt8[Tensor, "n 3 s s"], dict[int, str]]:
    """Decode images on all cores, as RGB squares.

    Grey becomes three equal channels, palettes and CMYK become RGB, 16 bits keep their upper 8, transparency is laid on white,
    a camera's rotation mark is obeyed, of a phone's several pictures (MPO) the first is taken.

    Args:
        encoded: the bytes of each image.
        size: height and width of the result in pixels.
        squeeze: whether an oblong image is squeezed into the square whole; else the middle of its long side is kept.

    Returns:
        The images; and by their positions, in order, those that cannot be used, with the reason: they are missing, broken, too large
        to be true, or a film. These are black.
    """
    images = np.zeros((len(encoded), size, size, 3), dtype=np.uint8)

    def place(position: int) -> None:
        pixels = _open(encoded[position])
        images[position] = _squeezed(pixels, size) if squeeze else _square(pixels, size)

    problems = _for_each(len(encoded), place)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), problems


def check_images(encoded: Sequence[bytes | None]) -> dict[int, str]:
    """The images that cannot be used, by their positions, with the reason (see `decode_images`)."""
    return _for_each(len(encoded), lambda position: _open(encoded[position]))


def _for_each(count: int, work: Callable[[int], object]) -> dict[int, str]:
    """Do the work at every position; the positions at which it could not be done, in order, with the reason."""
    problems: dict[int, str] = {}

    def some(first: int) -> None:
        for position in range(first, min(first + _CHUNK, count)):
            try:
                work(position)
            except UnusableError as error:
                problems[position] = str(error)

    if count <= _CHUNK:
        some(0)  # there is nothing to share, and threads take longer to start than a small image to decode
    else:
        # Pillow lets go of the interpreter's lock while it decodes and resizes, so threads do run side by side.
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for _ in pool.map(some, range(0, count, _CHUNK)):
                pass
    return dict(sorted(problems.items()))


def _open(encoded: bytes | None) -> np.ndarray:
    """The decoded image: bytes of shape (h, w) if it is grey, else (h, w, 3)."""
    if encoded is None:
        raise UnusableError("no image bytes, only a path")
    if not encoded:
        raise UnusableError("empty")
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            # A phone's MPO is a photograph with previews or a second view behind it, no film.
            if opened.format != "MPO" and getattr(opened, "is_animated", False):
                raise UnusableError(f"{getattr(opened, 'n_frames', 'several')} frames")
            opened.load()
            return _upright(opened)
    except UnusableError:
        raise
    except UnidentifiedImageError as error:
        raise UnusableError("no image, or of an unknown format") from error
    except Image.DecompressionBombError as error:
        raise UnusableError("too many pixels") from error
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make the decoders fail in every way there is
        reason = " ".join(str(error).split())
        raise UnusableError("truncated" if "truncated" in reason.lower() else f"broken: {reason or type(error).__name__}") from error


def _upright(image: Image.Image) -> np.ndarray:
    image = _turned(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode == "F":
        raise UnusableError("floating-point pixels")
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


def _turned(image: Image.Image) -> Image.Image:
    """The image as its camera's rotation mark says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged mark says nothing; the pixels are whole
        return image


def _square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Pixels as a square that fits into (size, size, 3).

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


def _squeezed(pixels: np.ndarray, size: int) -> np.ndarray:
    """All of the picture in a square that fits into (size, size, 3), bilinear: faces as CAT prepares them (178x218 to 32x32)."""
    if pixels.shape[:2] != (size, size):
        pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _middle(pixels: np.ndarray) -> np.ndarray:
    """Very long images without their ends, which are cut off anyway: scaled whole, they might not fit into the memory."""
    most = _LONGEST * min(pixels.shape[:2])
    top, left = (max(0, (side - most) // 2) for side in pixels.shape[:2])
    return pixels[top : top + most, left : left + most] if top or left else pixels


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
