"""A first look at an image that a stranger has sent: its format and size, before a pixel of it is decoded."""

import io
from dataclasses import dataclass

from PIL import Image

from lifelong.data.images import check_images, readable_formats

SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2", "HEIF": "heic", "PPM": "ppm", "DIB": "bmp"}
"""How files of a format are named, where not by the format itself."""


@dataclass(frozen=True)
class Look:
    """What a first look shows.

    Attributes:
        problem: why the image cannot be used, in a few words; empty if it may.
        suffix: of a file that holds it.
    """

    problem: str
    suffix: str = ""


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
    return Look("", SUFFIXES.get(kind, kind.lower()))


def problems(images: list[bytes], pixels: int) -> tuple[list[Look], dict[int, str]]:
    """Look at images, and decode those that may be used.

    Returns:
        The first look at each, and the reasons why some cannot be used, by position.
    """
    looks = [look_at(image, pixels) for image in images]
    usable = [place for place, look in enumerate(looks) if not look.problem]
    broken, _ = check_images([images[place] for place in usable])
    found = {place: look.problem for place, look in enumerate(looks) if look.problem}
    return looks, found | {usable[place]: reason for place, reason in broken.items()}
