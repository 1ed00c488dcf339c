"""Decode images (PNG, JPEG, WebP, ...) to square uint8 RGB tensors."""

import io
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from lifelong.data.budget import DECODING
from lifelong.data.pixel_formats import UnusableError, upright
from lifelong.data.squares import square, squeezed

with suppress(ImportError):  # from Pillow 11.3 on; other formats are there, or come with the first image that asks for them
    from PIL import AvifImagePlugin  # noqa: F401

RESIZE_VERSION = 3
"""Incremented whenever the same bytes give different pixels, so that tensors cached under the old rule are not used."""

CHECK_VERSION = 3
"""Incremented whenever other images count as unusable, or get another remark."""

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "PPM", "WEBP", "TIFF", "JPEG2000", "TGA")
"""What Pillow is asked to read: pictures only; nothing that starts another program (EPS) or reads other data."""

_IF_THERE = ("AVIF", "HEIF")
"""Further formats, if Pillow can read them; HEIF needs a separate package."""

_CHUNK = 8  # images that one thread takes at a time
_MOST_PIXELS = 2 * 89_478_485  # Pillow's own limit: an image of more is taken for an attack
_PLAIN, _DEEP = 12, 24  # bytes that a pixel takes while it is decoded, of 8 bits a colour and of more; measured
_OF_FORMAT = {"WEBP": 18, "AVIF": 18, "HEIF": 18, "JPEG2000": 18}  # their decoders hold copies of their own

ONE_COLOUR = "all of one colour"
"""The remark about an image whose pixels are all equal."""

Picture = bytes | Image.Image | np.ndarray | None
"""An image as given: encoded, opened by Pillow, or an array of (h, w), (h, w, 3) or (h, w, 4) uint8; None: it is missing."""


class Decoded(NamedTuple):
    """Decoded images, and the problems and remarks about them.

    Attributes:
        images: RGB squares; those that cannot be used are black.
        problems: why images cannot be used, by position, in order.
        remarks: what images lost when read, by position, in order; a single colour counts as a loss.
    """

    images: UInt8[Tensor, "n 3 s s"]
    problems: dict[int, str]
    remarks: dict[int, str]


def decode_images(encoded: Sequence[Picture], size: int, squeeze: bool = False) -> Decoded:
    """Decode images on all cores, as RGB squares.

    Grey becomes three equal channels, palettes and CMYK become RGB, 16 bits keep their upper 8 (or are used unchanged if none is above
    255), transparency is laid over white, EXIF orientation is applied, and of a phone's several pictures (MPO) the first is used.

    Args:
        encoded: each image.
        size: height and width of the result in pixels.
        squeeze: whether to squeeze an oblong image into the square; else the middle of its long side is kept.

    Returns:
        The images, and those that cannot be used: missing, broken, implausibly large, or animated.
    """
    images = np.zeros((len(encoded), size, size, 3), dtype=np.uint8)

    def place(position: int) -> str:
        with _opened_up(encoded[position]) as (pixels, remark):
            images[position] = squeezed(pixels, size) if squeeze else square(pixels, size)
        return remark

    problems, remarks = _for_each(len(encoded), place)
    return Decoded(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), problems, remarks)


def check_images(encoded: Sequence[Picture]) -> tuple[dict[int, str], dict[int, str]]:
    """Return the problems and the remarks of `decode_images`, without its images."""

    def look(position: int) -> str:
        with _opened_up(encoded[position]) as (_, remark):
            return remark

    return _for_each(len(encoded), look)


def _for_each(count: int, work: Callable[[int], str]) -> tuple[dict[int, str], dict[int, str]]:
    """Do the work at every position; the positions at which it could not be done, with the reason, and what it gives, where not empty."""
    problems: dict[int, str] = {}
    remarks: dict[int, str] = {}

    def some(first: int) -> None:
        for position in range(first, min(first + _CHUNK, count)):
            try:
                remark = work(position)
            except UnusableError as error:
                problems[position] = str(error)
            else:
                if remark:
                    remarks[position] = remark

    with _truncation_found():
        if count <= _CHUNK:
            some(0)  # there is nothing to share, and threads take longer to start than a small image to decode
        else:
            # Pillow lets go of the interpreter's lock while it decodes and resizes, so threads do run side by side.
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                for _ in pool.map(some, range(0, count, _CHUNK)):
                    pass
    return dict(sorted(problems.items())), dict(sorted(remarks.items()))


class _Strict:
    """The number of threads that are decoding, and Pillow's setting before the first of them."""

    lock = threading.Lock()
    inside = 0
    before = False


@contextmanager
def _truncation_found() -> Generator[None]:
    """Make Pillow refuse truncated files during a block, whatever the program has set; restore its setting afterwards."""
    with _Strict.lock:
        if not _Strict.inside:
            _Strict.before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        _Strict.inside += 1
    try:
        yield
    finally:
        with _Strict.lock:
            _Strict.inside -= 1
            if not _Strict.inside:
                ImageFile.LOAD_TRUNCATED_IMAGES = _Strict.before  # ty: ignore[invalid-assignment]


@contextmanager
def _opened_up(image: Picture) -> Generator[tuple[np.ndarray, str]]:
    """Provide a decoded image and what it lost for a block; its memory counts against the budget of all threads.

    The pixels are uint8 of shape (h, w) for grey, else (h, w, 3); the second value is empty if nothing was lost.
    """
    with ExitStack() as held:
        with _reasons():
            pixels, remark = _open(image, held)
        if not remark and pixels.shape[0] * pixels.shape[1] > 1 and _constant(pixels):
            remark = ONE_COLOUR
        yield pixels, remark


@contextmanager
def _reasons() -> Generator[None]:
    """Turn what the decoders say of an image into a few words."""
    try:
        yield
    except UnusableError:
        raise
    except UnidentifiedImageError as error:
        raise UnusableError("no image, or of an unknown format") from error
    except Image.DecompressionBombError as error:
        raise UnusableError("too many pixels") from error
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make decoders fail in any way
        reason = " ".join(str(error).split())
        raise UnusableError("truncated" if "truncated" in reason.lower() else f"broken: {reason or type(error).__name__}") from error


def _open(image: Picture, held: ExitStack) -> tuple[np.ndarray, str]:
    """Return the pixels and what was lost; their share of the budget is returned when `held` ends."""
    if image is None:
        raise UnusableError("no image bytes, only a path")
    if isinstance(image, np.ndarray):
        return upright(Image.fromarray(image)) if image.ndim == 2 or image.shape[2] != 3 else (image, "")
    if isinstance(image, Image.Image):
        stored = _stored(image)  # empty where it has been loaded
        held.enter_context(DECODING.taken(_cost(image, stored)))
        image.load()
        return upright(image, stored)
    return _decoded(image, held)


def _decoded(encoded: bytes, held: ExitStack) -> tuple[np.ndarray, str]:
    if not encoded:
        raise UnusableError("empty")
    with _opened(encoded) as opened:
        stored = _stored(opened)
        if opened.width * opened.height > _MOST_PIXELS or not DECODING.fits(_cost(opened, stored)):
            raise UnusableError("too many pixels")  # as Pillow reports unless the program has switched it off
        # A phone's MPO is a photograph with previews or a second view behind it, no film.
        if opened.format != "MPO" and getattr(opened, "is_animated", False):
            raise UnusableError(f"{getattr(opened, 'n_frames', 'several')} frames")
        held.enter_context(DECODING.taken(_cost(opened, stored)))
        opened.load()
        if stored in _OTHER_BYTES and not np.asarray(opened)[..., :3].any():
            small = _of_lower_bytes(encoded, stored, np.asarray(opened))
            if small is not None:
                return upright(small, _OTHER_BYTES[stored])[0], "values of 8 bits in a file of 16, taken as they are"
        return upright(opened, stored)


def _cost(image: Image.Image, stored: str) -> int:
    """Estimate how many bytes decoding takes, including temporary copies."""
    deep = image.mode.startswith(("I", "F")) or stored in _OTHER_BYTES
    return image.width * image.height * (_DEEP if deep else _OF_FORMAT.get(image.format or "", _PLAIN))


def _of_lower_bytes(encoded: bytes, stored: str, upper: np.ndarray) -> Image.Image | None:
    """Decode the lower bytes of 16-bit colours, of which Pillow takes the upper ones; None if these are empty as well.

    Args:
        encoded: the file.
        stored: its pixel format.
        upper: what Pillow makes of it: colours of zeros, and perhaps opacity.
    """
    with _opened(encoded) as opened:
        opened.tile = [tile._replace(args=_renamed(tile.args, _OTHER_BYTES[stored])) for tile in opened.tile]
        opened.load()
        lower = np.array(opened)
        info = dict(opened.info)
    if stored == "LA;16B":  # read as four bytes, of which the second is the grey and the last the opacity
        lower = lower[..., [1, 1, 1, 3]]
    if not lower[..., :3].any():
        return None
    if lower.shape[2] == 4 and upper[..., 3].any():
        lower[..., 3] = upper[..., 3]  # opacity did use its 16 bits
    picture = Image.fromarray(lower)
    picture.info.update(info)
    return picture


def readable_formats() -> list[str]:
    """Return the formats that are read here, in Pillow's words."""
    return [*_FORMATS, *(name for name in _IF_THERE if name in Image.OPEN)]


def _opened(encoded: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(encoded), formats=readable_formats())


_OTHER_BYTES = {
    **{f"{mode};16{one}": f"{mode};16{other}" for mode in ("RGB", "RGBA") for one, other in ("BL", "LB")},
    "LA;16B": "RGBA",
}
"""The raw mode that reads the lower bytes of 16-bit colours, by the one that reads the upper bytes."""


def _stored(opened: Image.Image) -> str:
    """Return the pixel format of the file in Pillow's words; empty if it does not say."""
    tiles = getattr(opened, "tile", None)
    args = tiles[0][3] if tiles else ""
    mode = args[0] if isinstance(args, tuple) and args else args
    return mode if isinstance(mode, str) else ""


def _renamed(args: tuple[Any, ...] | str | None, mode: str) -> tuple[Any, ...] | str:
    return (mode, *args[1:]) if isinstance(args, tuple) else mode


def _constant(pixels: np.ndarray) -> bool:
    """Return whether all pixels are equal; usually a few of them already rule it out."""
    first = pixels[:1, :1]
    return bool((pixels[::37, ::37] == first).all() and (pixels == first).all())
