"""Turn the pixels of a decoded image, of whatever format, into 8-bit grey or RGB."""

import numpy as np
from PIL import ExifTags, Image, ImageOps

_STRIP = 2**22  # pixels of a large image that are converted at a time
_FEW = 16  # levels of grey that are called few where the file has more


class UnusableError(ValueError):
    """Why an image cannot be used, in a few words."""


def upright(image: Image.Image, stored: str = "") -> tuple[np.ndarray, str]:
    """Return the pixels, rotated upright, as 8-bit grey or RGB, and what was lost.

    Args:
        image: decoded.
        stored: the pixel format of its file in Pillow's words; empty if there is none.
    """
    image = _turned(image)
    if image.mode == "F":
        raise UnusableError("floating-point pixels")
    if image.mode.startswith("I"):
        return _of_deep_grey(image, stored)
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        return _flat(image, stored), ""
    # In strips: each pixel becomes what it would in the whole, without three or four copies of the whole.
    first = _flat(image.crop((0, 0, image.width, rows)), stored)
    pixels = np.empty((image.height, *first.shape[1:]), np.uint8)
    pixels[:rows] = first
    for top in range(rows, image.height, rows):
        pixels[top : top + rows] = _flat(image.crop((0, top, image.width, min(top + rows, image.height))), stored)
    return pixels, ""


def _flat(image: Image.Image, stored: str) -> np.ndarray:
    """Convert to grey or RGB pixel by pixel, with transparency over white."""
    clear = image.info.get("transparency")
    if (decoded := _as_decoded(clear, stored)) != clear:
        image = image.copy()
        image.info["transparency"] = decoded
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        colours = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, colours).convert("RGB"))
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGB"))


def _as_decoded(clear: object, stored: str) -> object:
    """Convert the colour that stands for transparency from the file's values to those of the decoded image."""
    if isinstance(clear, int) and stored in ("L;2", "L;4"):
        return clear * (85 if stored == "L;2" else 17)
    if isinstance(clear, tuple) and stored.startswith("RGB;16"):
        return tuple(value >> 8 if stored == "RGB;16B" else value & 255 for value in clear)
    return clear


def _of_deep_grey(image: Image.Image, stored: str) -> tuple[np.ndarray, str]:
    """Convert grey of 12, 16 or 32 bits to 8; Pillow's own conversion would make everything above 255 white.

    Of values up to 65535 the upper 8 bits are kept. If none is above 255, they were 8 bits from the start: else such a picture would be
    black.
    """
    values = np.asarray(image).astype(np.int64)
    clear = values == image.info["transparency"] if isinstance(image.info.get("transparency"), int) else None
    if stored == "I;12":
        values = values << 4
    low, high = int(values.min()), int(values.max())
    remark = ""
    if low >= 0 and high <= 255:
        grey = values
        remark = "values of 8 bits in a file of more, taken as they are" if low < high else ""
    else:
        grey = values.clip(0, 65535) >> 8
        levels = int((np.bincount(grey.ravel(), minlength=256) > 0).sum())
        if low < 0 or high > 65535:
            remark = f"values from {low} to {high}, cut to 0..65535"
        elif levels <= _FEW and len(np.unique(values)) > levels:
            remark = f"values from {low} to {high} of 65535: {levels} of their levels of grey remain"
    if clear is not None:
        grey = np.where(clear, 255, grey)
    return grey.astype(np.uint8), remark


def _turned(image: Image.Image) -> Image.Image:
    """Rotate the image as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image) if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9) else image
    except Exception:  # a damaged mark says nothing; the pixels are whole
        return image
