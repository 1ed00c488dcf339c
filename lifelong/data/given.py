"""Read images in any form that a caller may have: files, folders, bytes, PIL images, arrays, tensors."""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from lifelong.data.files import find_images, read_file
from lifelong.data.images import Decoded, Picture, decode_images
from lifelong.data.naming import shown
from lifelong.errors import LifelongError
from lifelong.opening import unusable_name

_BYTES = 64 * 2**20  # of encoded images read at a time, about
_CHANNELS = (1, 3, 4)

TAKEN = (
    "paths of files and folders, bytes, files opened in binary mode, PIL images, uint8 arrays of shape (H, W), (H, W, 3) or (H, W, 4),"
    " batches of them (N, H, W, 3), or uint8 tensors of shape (3, H, W)"
)


@dataclass(frozen=True)
class Given:
    """One image; a file is not read yet.

    Attributes:
        name: what to call it.
        held: its file, or the image itself.
        found: whether it was found in a folder, and not named itself.
    """

    name: str
    held: Path | Picture
    found: bool = False


def given_images(images: Any) -> list[Given]:
    """Split what was given into single images; folders are searched as by `files.find_images`.

    Args:
        images: one, or several in a list or another iterable.

    Raises:
        LifelongError: an object is not an image, or a folder has no image.
    """
    alone = _one("the image", images)
    if alone is not None:
        return alone
    if isinstance(images, dict) or not isinstance(images, Iterable):
        raise LifelongError(f"{_what(images)} is not an image: give {TAKEN}")
    found: list[Given] = []
    for number, image in enumerate(images):
        some = _one(f"image {number}", image)
        if some is None:
            raise LifelongError(f"image {number}: {_what(image)} is not an image: give {TAKEN}")
        found += some
    return found


def decode_given(
    given: Sequence[Given], size: int, tell: Callable[[int], None] | None = None
) -> tuple[UInt8[Tensor, "n 3 s s"], dict[int, str]]:
    """Decode images to RGB squares as a stream does; only some files are held in memory at a time.

    Args:
        given: the images.
        size: height and width of the result in pixels.
        tell: called with the number of images that were finished since the last call.

    Returns:
        The images, and by position the reasons why some cannot be used; these are black.
    """
    images, problems, _ = decode_whole(given, size, tell)
    return images, problems


def decode_whole(given: Sequence[Given], size: int, tell: Callable[[int], None] | None = None) -> Decoded:
    """Do the same as `decode_given`, and return what images lost as well."""
    parts: list[Tensor] = []
    problems: dict[int, str] = {}
    remarks: dict[int, str] = {}
    first = 0
    for pictures in _read(given, problems):
        images, unusable, lost = decode_images(pictures, size)
        parts.append(images)
        for place, reason in unusable.items():
            problems.setdefault(first + place, reason)
        remarks |= {first + place: reason for place, reason in lost.items()}
        first += len(pictures)
        if tell is not None:
            tell(len(pictures))
    whole = torch.cat(parts) if parts else torch.empty((0, 3, size, size), dtype=torch.uint8)
    return Decoded(whole, dict(sorted(problems.items())), remarks)


def unusable_line(problems: Sequence[tuple[str, str]], count: int) -> str:
    """Begin an error line about images that cannot be used: how many, and the first five with their reasons."""
    named = ", ".join(f"{shown(name)} ({reason})" for name, reason in problems[:5])
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return f"{len(problems)} of {count} images cannot be used: {named}{more}"


def _read(given: Sequence[Given], problems: dict[int, str]) -> Iterator[list[Picture]]:
    """Yield batches of images with their files read, about `_BYTES` at a time; a file that cannot be read is a problem."""
    batch: list[Picture] = []
    held = 0
    for position, one in enumerate(given):
        picture = one.held
        if isinstance(picture, Path):
            try:
                picture = read_file(picture)
            except LifelongError as error:
                cause = error.__cause__
                problems[position] = str(getattr(cause, "strerror", None) or "not a file").lower()
                picture = None
        batch.append(picture)
        held += len(picture) if isinstance(picture, bytes) else 0
        if held >= _BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _one(name: str, image: Any) -> list[Given] | None:
    """Return the images that one object holds; None if it is not itself an image (it may be a sequence of them)."""
    if isinstance(image, (str, os.PathLike)):
        if not os.fspath(image):
            raise LifelongError(f"{name}: an empty path; give the path of an image or a folder")
        if why := unusable_name(os.fspath(image)):
            raise LifelongError(f"{name}: its path {why}; give the path of an image")
        path = Path(image)
        files, _ = find_images(path)
        return [Given(str(file), file, path.is_dir()) for file in files]
    if isinstance(image, (bytes, bytearray, memoryview)):
        return [Given(name, bytes(image))]
    if isinstance(image, Image.Image):
        return [Given(name, image)]
    if isinstance(image, io.BytesIO):
        return [Given(name, image.getvalue())]
    if hasattr(image, "read"):
        return [Given(str(getattr(image, "name", name)), _content(name, image))]
    if isinstance(image, Tensor):
        return _of_tensor(name, image)
    return _of_array(name, np.asarray(image)) if hasattr(image, "__array__") else None


def _content(name: str, file: Any) -> bytes:
    try:
        content = file.read()
    except (OSError, ValueError) as error:
        raise LifelongError(f"{name}: cannot be read ({error}); open the file again") from error
    if not isinstance(content, bytes):
        raise LifelongError(f"{name}: a file that gives {type(content).__name__}; open it in binary mode: open(path, 'rb')")
    return content


def _of_tensor(name: str, image: Tensor) -> list[Given]:
    if image.dtype != torch.uint8 or image.ndim not in (3, 4) or image.shape[-3] not in _CHANNELS or not image.numel():
        raise LifelongError(
            f"{name}: a tensor of shape {tuple(image.shape)} and type {image.dtype}: tensors are uint8 of shape (3, H, W) or (N, 3, H, W)"
        )
    return _of_array(name, image.detach().cpu().movedim(-3, -1).numpy())


def _of_array(name: str, array: np.ndarray) -> list[Given]:
    """Return one image, or each image of a batch."""
    shape, kind = array.shape, array.dtype
    whole = array.ndim == 2 or (array.ndim in (3, 4) and shape[-1] in _CHANNELS)
    deep = kind == np.uint16 and (array.ndim == 2 or shape[-1] == 1)
    if not whole or not (kind in (np.uint8, np.bool_) or deep) or not array.size:
        scaled = "; values of 0 to 1 become it by (x * 255).round().astype('uint8')" if kind.kind == "f" else ""
        raise LifelongError(
            f"{name}: an array of shape {shape} and type {kind}: arrays are uint8 of shape (H, W), (H, W, 3) or (H, W, 4),"
            f" or batches (N, H, W, 3){scaled}"
        )
    if kind == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.ndim > 2 and shape[-1] == 1:
        array = array[..., 0]
    if len(shape) < 4:
        return [Given(name, np.ascontiguousarray(array))]
    return [Given(f"{name}, number {number}", np.ascontiguousarray(one)) for number, one in enumerate(array)]


def _what(thing: Any) -> str:
    name = type(thing).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
