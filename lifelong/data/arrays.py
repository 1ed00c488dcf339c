"""Turn images in any form that a program may have (arrays, tensors, PIL images, bytes, paths) into uint8 RGB squares of one size."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from lifelong.data.given import TAKEN, Given, decode_whole, given_images, unusable_line
from lifelong.data.images import ONE_COLOUR
from lifelong.errors import LifelongError
from lifelong.words import counted

USUAL_SIZE = 64
"""Height and width where the first image does not say: it is not square, or not decoded yet."""

LARGEST_UNASKED = 256
"""Pixels a side up to which the first image decides the size of all."""

_SIDES = range(4, 1025)  # what a task may have
_BATCH = 256  # images that are prepared at a time
_CHANNELS = (1, 3, 4)
_FULL = 128  # a set of floats of 0..255 has a pixel this bright; digits of 0..16 do not


@dataclass
class Scale:
    """How the numbers of a set of arrays become bytes: decided by the first of them, and held for all.

    Attributes:
        rule: by kind of number, what was decided: "unit" (0..1), "bytes" (0..255) or "words" (of 16 bits, of which the upper 8 are kept).
    """

    rule: dict[str, str] = field(default_factory=dict)

    def to_bytes(self, array: np.ndarray, what: str) -> UInt8[np.ndarray, "..."]:
        """Convert an array.

        Args:
            array: images of any shape; truth values become black and white.
            what: names it in error lines.

        Raises:
            LifelongError: its values fit no rule, or not that of the arrays before.
        """
        if array.dtype == np.uint8:
            return array
        if array.dtype == np.bool_:
            return array.astype(np.uint8) * np.uint8(255)
        if array.dtype.kind not in "iuf" or not array.size:
            raise LifelongError(f"{what}: images of type {array.dtype}; give uint8 of 0..255, or floats of 0..1")
        low, high = float(array.min()), float(array.max())
        rule = self.rule.setdefault(array.dtype.kind, _rule(array, low, high, what))
        most = {"unit": 1, "bytes": 255, "words": 65535}[rule]
        if not 0 <= low <= high <= most:
            raise LifelongError(f"{what}: values from {low:g} to {high:g}, where those before are of 0..{most}; give all in one range")
        if rule == "unit":
            return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
        return (array >> 8 if rule == "words" else np.rint(array) if array.dtype.kind == "f" else array).astype(np.uint8)


def _rule(array: np.ndarray, low: float, high: float, what: str) -> str:
    """Decide what numbers mean by their range."""
    values = f"{what}: values from {low:g} to {high:g}"
    if not (np.isfinite(low) and np.isfinite(high)):
        raise LifelongError(f"{what}: some values are not finite (NaN or infinite); replace them")
    if low < 0:
        raise LifelongError(f"{values}: images are of 0..255, or floats of 0..1; leave out the normalization, which lifelong does itself")
    if array.dtype.kind == "f":
        if high <= 1:
            return "unit"
        if _FULL <= high <= 255:
            return "bytes"
        raise LifelongError(f"{values} are neither 0..1 nor 0..255; scale them to floats of 0..1: images / {high:g}")
    if high <= 1:
        raise LifelongError(f"{values} are nearly black of 0..255; give truth values (images.astype(bool)), or multiply by 255")
    if high <= 255:
        return "bytes"
    if array.dtype == np.uint16:
        return "words"
    raise LifelongError(f"{values} do not fit 0..255; give uint8, or floats of 0..1: images / {high:g}")


def in_rows(array: np.ndarray, is_tensor: bool, what: str) -> np.ndarray:
    """Put the channels of a batch last.

    Args:
        array: of shape (N, H, W), (N, H, W, C) or (N, C, H, W), with 1, 3 or 4 channels.
        is_tensor: whether it was a tensor, which has its channels first where both readings are possible.
        what: names it in error lines.

    Returns:
        The array as (N, H, W) or (N, H, W, C).

    Raises:
        LifelongError: it has another shape.
    """
    shape = array.shape
    if array.ndim == 2:
        raise LifelongError(
            f"{what} of shape {shape}: flat rows; give each image its shape: images.reshape({shape[0]}, H, W) or (..., H, W, 3)"
        )
    last = array.ndim == 4 and shape[3] in _CHANNELS
    first = array.ndim == 4 and shape[1] in _CHANNELS
    if array.ndim not in (3, 4) or (array.ndim == 4 and not (last or first)):
        raise LifelongError(f"{what} of shape {shape}: expected (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels")
    if last and first and (shape[1] == shape[2]) != (shape[2] == shape[3]):
        first = shape[2] == shape[3]  # of two readings the one with square images
    elif last and first:
        first = is_tensor
    if first:
        array = np.moveaxis(array, 1, -1)
    return array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array


@dataclass
class Squares:
    """Collects images as squares of one size, a few hundred at a time.

    Attributes:
        size: height and width; None: as the first image has it (see `LARGEST_UNASKED`), else `USUAL_SIZE`.
        scale: how numbers become bytes.
        note: what a person should know of the size; empty: nothing.
    """

    size: int | None = None
    scale: Scale = field(default_factory=Scale)
    note: str = ""
    _asked: bool = False

    def __post_init__(self) -> None:
        self._asked = self.size is not None

    # `Any`: whatever holds images; what cannot be read is named.
    def read(self, images: Any, what: str) -> "Pixels":
        """Read images.

        Args:
            images: an array or tensor of all, or any iterable of single ones.
            what: names them in error lines.

        Raises:
            LifelongError: they are no images, or one of them cannot be used.
        """
        found = Pixels(what)
        array, is_tensor = _array_of(images)
        if array is not None and array.dtype != object:
            if not array.ndim or not len(array):
                raise LifelongError(f"{what}: no images (shape {array.shape})")
            rows = in_rows(array, is_tensor, what)
            self._settle(rows.shape[1], rows.shape[2])
            whole = self.scale.to_bytes(rows, what)
            for first in range(0, len(whole), _BATCH):
                found.add(*self._squares(list(whole[first : first + _BATCH]), what), first)
            return found
        for pictures in self._batches(_each(images, what), what):
            found.add(*self._squares(pictures, what), found.count)
        if not found.count:
            raise LifelongError(f"{what}: no images")
        return found

    def _batches(self, images: Iterable[Any], what: str) -> Iterator[list[np.ndarray | Given]]:
        batch: list[np.ndarray | Given] = []
        for number, image in enumerate(images):
            batch.append(self._single(image, f"{what}, image {number}"))
            if len(batch) == _BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _single(self, image: Any, what: str) -> np.ndarray | Given:
        """Return one image: of bytes, or still to be decoded."""
        array, is_tensor = (None, False) if isinstance(image, Image.Image) else _array_of(image)
        if array is not None and array.dtype != object:
            if array.ndim not in (2, 3):
                raise LifelongError(f"{what} of shape {array.shape}: expected (H, W), (H, W, C) or (C, H, W)")
            pixels = self.scale.to_bytes(in_rows(array[None], is_tensor, what)[0], what)
            self._settle(*pixels.shape[:2])
            return pixels
        if image is None:
            raise LifelongError(f"{what} is missing (None); leave it out, with its label")
        found = (
            given_images(image) if isinstance(image, (str, bytes, Image.Image)) or hasattr(image, "__fspath__") else given_images([image])
        )
        if len(found) != 1 or found[0].found:
            raise LifelongError(f"{what} is a folder; name each image, with its label")
        self._settle(*(image.size[::-1] if isinstance(image, Image.Image) else (0, 0)))
        return found[0]

    def _settle(self, height: int, width: int) -> None:
        """Fix the size, if the first image has to."""
        whole = height == width and height in _SIDES and height <= LARGEST_UNASKED
        if self.size is None:
            self.size = height if whole else USUAL_SIZE
        if not self._asked and not self.note and (height, width) != (self.size, self.size):
            these = f"Images of {height}×{width} pixels" if height else "Images"
            self.note = f"{these} are resized to {self.size}×{self.size}; size=... sets another."

    def _squares(self, pictures: list[np.ndarray | Given], what: str) -> tuple[UInt8[Tensor, "n 3 s s"], dict[int, str], dict[int, str]]:
        """Return squares, the reasons why some cannot be used, and what some lost."""
        assert self.size is not None
        shape = (self.size, self.size)
        if all(isinstance(one, np.ndarray) and one.shape[:2] == shape and one.shape[2:] in ((), (3,)) for one in pictures):
            same = {one.shape for one in pictures if isinstance(one, np.ndarray)}
            if len(same) == 1:
                stacked = torch.from_numpy(np.stack(pictures))  # ty: ignore[no-matching-overload]
                squares = stacked.permute(0, 3, 1, 2) if stacked.ndim == 4 else stacked[:, None].expand(-1, 3, -1, -1)
                squares = squares.contiguous()
                flat = (squares == squares[:, :, :1, :1]).flatten(1).all(dim=1).nonzero().flatten().tolist()
                return squares, {}, dict.fromkeys(flat, ONE_COLOUR)
        given = [
            one if isinstance(one, Given) else Given(f"{what}, image {place}", np.ascontiguousarray(one))
            for place, one in enumerate(pictures)
        ]
        images, problems, remarks = decode_whole(given, self.size)
        named = {place: given[place] for place in problems if isinstance(given[place].held, Path)}
        return images, {place: f"{named[place].name}: {why}" if place in named else why for place, why in problems.items()}, remarks


class Pixels:
    """What was read of a split.

    Attributes:
        what: names it in error lines.
        remarks: what images lost when read, by position.
    """

    def __init__(self, what: str) -> None:
        self.what, self.count = what, 0
        self.remarks: dict[int, str] = {}
        self._problems: dict[int, str] = {}
        self._parts: list[Tensor] = []

    def add(self, images: Tensor, problems: Mapping[int, str], remarks: Mapping[int, str], first: int) -> None:
        """Add the next images."""
        self._parts.append(images)
        self._problems |= {first + place: reason for place, reason in problems.items()}
        self.remarks |= {first + place: reason for place, reason in remarks.items()}
        self.count += len(images)

    def images(self) -> UInt8[Tensor, "n 3 s s"]:
        """Return all images.

        Raises:
            LifelongError: some cannot be used.
        """
        if self._problems:
            named = [(f"image {place}", reason) for place, reason in sorted(self._problems.items())]
            raise LifelongError(f"{self.what}: {unusable_line(named, self.count)}; repair them, or leave them out with their labels")
        return self._parts[0] if len(self._parts) == 1 else torch.cat(self._parts)


def _array_of(images: Any) -> tuple[np.ndarray | None, bool]:
    """Return a tensor or array in this machine's memory, and whether it was a tensor; None if it is neither."""
    if isinstance(images, Tensor):
        dense = images.detach().cpu()
        return (dense.float() if dense.dtype in (torch.bfloat16, torch.float16) else dense).numpy(), True
    if isinstance(images, (list, tuple)) or not hasattr(images, "__array__"):
        return None, False
    return np.asarray(images), False


def _each(images: Any, what: str) -> Iterable[Any]:
    """Return single images, one after the other."""
    kind = type(images).__name__
    if hasattr(images, "dataset") and hasattr(images, "batch_size"):
        raise LifelongError(f"{what}: a {kind} gives batches; give its data set: lifelong.Task.from_dataset(loader.dataset)")
    if isinstance(images, (str, bytes, Mapping)) or hasattr(images, "__fspath__") or isinstance(images, Image.Image):
        raise LifelongError(f"{what}: expected several images in an array or a list, not a single {kind}")
    if not isinstance(images, Iterable):
        more = "; a data set is given with lifelong.Task.from_dataset(dataset)" if hasattr(images, "__getitem__") else ""
        raise LifelongError(f"{what}: a {kind} holds no images: give an array, a tensor or a list, of {TAKEN}{more}")
    return images


def described(images: Tensor) -> str:
    """Describe images in a few words: "60 images of 8×8"."""
    return f"{counted(len(images), 'image')} of {images.shape[2]}×{images.shape[3]}"


# `Any`: whatever holds images; what is none is left as it is, to be named when it is read.
def as_pictures(images: Any) -> Any:
    """Make arrays to be classified as those to be learned are: floats, grey ones, channels in either order become lists of uint8 pictures.

    Everything else is returned as it is: files, PIL images, uint8 arrays (H, W, C) and (N, H, W, C), and uint8 RGB tensors (N, 3, H, W).

    Raises:
        LifelongError: the numbers of an array are not those of images.
    """
    if isinstance(images, (list, tuple)):
        scale = Scale()
        return [_picture(image, scale, f"image {place}") for place, image in enumerate(images)]
    if isinstance(images, Image.Image):
        return images
    array, is_tensor = _array_of(images)
    if array is None or array.dtype.kind not in "iufb" or array.ndim not in (2, 3, 4) or not array.size:
        return images
    if array.ndim == 3 and not is_tensor and array.shape[0] in _CHANNELS and array.shape[-1] not in _CHANNELS:
        return images  # one picture with its channels first, or three grey ones: refused
    single = array.ndim == 2 or (array.ndim == 3 and (array.shape[-1] in _CHANNELS or (is_tensor and array.shape[0] in _CHANNELS)))
    if single:
        return _picture(images, Scale(), "the image")
    usual = array.shape[1] == 3 if is_tensor else array.shape[-1] in _CHANNELS
    if array.ndim == 4 and array.dtype == np.uint8 and usual:
        return images
    return list(Scale().to_bytes(in_rows(array, is_tensor, "images"), "images"))


def _picture(image: Any, scale: Scale, what: str) -> Any:
    """Return one array or tensor as a picture of bytes; everything else as it is."""
    array, is_tensor = (None, False) if isinstance(image, Image.Image) else _array_of(image)
    if array is None or array.dtype.kind not in "iufb" or array.ndim not in (2, 3) or not array.size or array.dtype == np.uint8:
        return image
    return np.ascontiguousarray(scale.to_bytes(in_rows(array[None], is_tensor, what)[0], what))
