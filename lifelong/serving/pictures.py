"""A first look at an image that a stranger has sent: its format and size, before a pixel of it is decoded."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from lifelong.data.decoding import check_images, readable_formats
from lifelong.serving.limits import Limits

SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2", "HEIF": "heic", "PPM": "ppm", "DIB": "bmp"}
"""How files of a format are named, where not by the format itself."""


@dataclass(frozen=True)
class Look:
    """What a first look shows.

    Attributes:
        problem: why the image cannot be used, in a few words; empty if it may.
        suffix: of a file that holds it.
        pixels: that it has.
    """

    problem: str
    suffix: str = ""
    pixels: int = 0


def look_at(encoded: bytes, pixels: int) -> Look:
    """Read an image's head.

    Args:
        encoded: the content of the file.
        pixels: the most that it may have.
    """
    if not encoded:
        return Look("empty")
    try:
        with Image.open(io.BytesIO(encoded), formats=readable_formats()) as opened:
            count, kind = opened.width * opened.height, opened.format or ""
    except Image.DecompressionBombError:
        return Look("too many pixels")
    except MemoryError:
        raise
    except Exception:  # damaged bytes make decoders fail in any way
        return Look("no image, or of an unknown format")
    if count > pixels:
        return Look(f"too many pixels: {count:,} of at most {pixels:,}")
    return Look("", SUFFIXES.get(kind, kind.lower()), count)


def look_at_all(images: Sequence[bytes], limits: Limits) -> list[Look]:
    """Look at the images of a request: decoding those that may be used takes a bounded time."""
    looks, left = [], limits.request_pixels
    for image in images:
        look = look_at(image, limits.pixels)
        if look.pixels > left:
            look = Look("too many pixels in one request; send fewer images at a time")
        left -= look.pixels
        looks.append(look)
    return looks


def problems(images: Sequence[bytes], limits: Limits) -> tuple[list[Look], dict[int, str]]:
    """Look at images, and decode those that may be used.

    Returns:
        The first look at each, and the reasons why some cannot be used, by position.
    """
    looks = look_at_all(images, limits)
    usable = [place for place, look in enumerate(looks) if not look.problem]
    broken, _ = check_images([images[place] for place in usable])
    found = {place: look.problem for place, look in enumerate(looks) if look.problem}
    return looks, found | {usable[place]: reason for place, reason in broken.items()}
