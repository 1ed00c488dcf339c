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

from lifelong.data.decoding import ONE_COLOUR
from lifelong.data.given import TAKEN, Given, Scale, array_of, decode_whole, given_images, in_rows, of_one, unusable_line
from lifelong.errors import LifelongError

USUAL_SIZE = 64
"""Height and width where the first image does not say: it is not square, or not decoded yet."""

LARGEST_UNASKED = 256
"""Pixels a side up to which the first image decides the size of all."""

_SIDES = range(4, 1025)  # what a task may have
_BATCH = 256  # images that are prepared at a time


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
        array, is_tensor = array_of(images, what)
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
        array, is_tensor = array_of(image, what)
        if array is not None and array.dtype != object:
            pixels = self.scale.to_bytes(of_one(array, is_tensor, what), what)
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
        said = {place: f"{named[place].name}: {why}" if place in named else why for place, why in problems.items()}
        return torch.from_numpy(images), said, remarks


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
