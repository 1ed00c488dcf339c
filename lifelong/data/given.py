"""Read images in any form that a caller may have: files, folders, bytes, PIL images, arrays, tensors.

Like `decoding`, this module does without PyTorch; whoever has a tensor has imported it.
"""

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lifelong.data.decoding import Decoded, Picture, decode_squares
from lifelong.data.files import find_images, read_file
from lifelong.data.naming import shown
from lifelong.errors import LifelongError
from lifelong.opening import unusable_name

if TYPE_CHECKING:
    import torch

_BYTES = 64 * 2**20  # of encoded images read at a time, about
_CHANNELS = (1, 3, 4)
_NUMBERS = "iufb"  # kinds of NumPy types that pixels may have
_FULL = 128  # a set of floats of 0..255 has a pixel this bright; digits of 0..16 do not
_ALONE = "the image"

TAKEN = (
    "paths of files and folders, bytes, files opened in binary mode, PIL images, arrays of shape (H, W), (H, W, 3) or (H, W, 4),"
    " batches of them (N, H, W, 3), or tensors of shape (3, H, W) or (N, 3, H, W)"
)


@dataclass
class Scale:
    """How the numbers of a set of arrays become bytes: decided by the first of them, and held for all.

    Attributes:
        dark: whether integers of 0 and 1 are nearly black pixels; to be learned they are refused, as they are likelier truth values.
        rule: by kind of number, what was decided: "unit" (0..1), "bytes" (0..255) or "words" (of 16 bits, of which the upper 8 are kept).
    """

    dark: bool = False
    rule: dict[str, str] = field(default_factory=dict)

    def to_bytes(self, array: np.ndarray, what: str) -> np.ndarray:
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
        rule = self.rule.setdefault(array.dtype.kind, _rule(array, low, high, what, self.dark))
        most = {"unit": 1, "bytes": 255, "words": 65535}[rule]
        if not 0 <= low <= high <= most:
            raise LifelongError(f"{what}: values from {low:g} to {high:g}, where those before are of 0..{most}; give all in one range")
        if rule == "unit":
            return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
        return (array >> 8 if rule == "words" else np.rint(array) if array.dtype.kind == "f" else array).astype(np.uint8)


def _rule(array: np.ndarray, low: float, high: float, what: str, dark: bool) -> str:
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
    if high <= 1 and not dark:
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
    if 0 in shape[1:]:
        raise LifelongError(f"{what} of shape {shape}: images without pixels; leave them out")
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


def of_one(array: np.ndarray, is_tensor: bool, what: str) -> np.ndarray:
    """Put the channels of a single image last, and return it as (H, W) or (H, W, C); arguments as of `in_rows`.

    Raises:
        LifelongError: its shape is not (H, W), (H, W, C) or (C, H, W).
    """
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[0] not in _CHANNELS and shape[2] not in _CHANNELS):
        raise LifelongError(f"{what} of shape {shape}: expected (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels")
    if not array.size:
        raise LifelongError(f"{what} of shape {shape}: an image without pixels; leave it out")
    return in_rows(array[None], is_tensor, what)[0]


# `Any`: whatever holds images.
def array_of(images: Any, what: str) -> tuple[np.ndarray | None, bool]:
    """Return a tensor or array in this machine's memory, and whether it was a tensor; None if it is neither.

    Raises:
        LifelongError: a tensor holds no values, or not one for every place.
    """
    if is_tensor(images):
        check_dense(images, what)
        dense = images.detach().cpu()
        try:
            return (dense.float() if dense.is_floating_point() and dense.element_size() < 4 else dense).numpy(), True
        except (TypeError, RuntimeError) as error:  # of types that NumPy has not
            raise LifelongError(f"{what}: a tensor of type {dense.dtype}; give uint8 of 0..255, or floats of 0..1") from error
    if isinstance(images, (list, tuple, Image.Image)) or not hasattr(images, "__array__"):
        return None, False
    return np.asarray(images), False


def check_dense(tensor: "torch.Tensor", what: str) -> None:
    """Check that a tensor holds a value for every place.

    Raises:
        LifelongError: it is sparse, or on the meta device.
    """
    if tensor.is_meta:
        raise LifelongError(f"{what}: a tensor on the meta device, which holds no values; give one on the CPU or a GPU")
    if tensor.is_nested or str(tensor.layout) != "torch.strided":
        kind = "nested" if tensor.is_nested else "sparse"
        raise LifelongError(f"{what}: a {kind} tensor; give {'a list of its parts' if tensor.is_nested else 'tensor.to_dense()'}")


# `Any`: whatever holds images; what is none is left as it is, to be named when it is read.
def as_pictures(images: Any) -> Any:
    """Divide an array or tensor of any form that `Task.from_arrays` takes into pictures: uint8 arrays (H, W) or (H, W, C).

    A single image becomes one picture, several a list; everything else is returned as it is, and so are uint8 tensors (3, H, W) and
    (N, 3, H, W), which may be what a network takes.

    Raises:
        LifelongError: the numbers of an array are not those of images, or it may be one image as well as several.
    """
    if _is_plain(images):
        check_dense(images, "images")
        return images
    array, tensor = array_of(images, "images")
    if array is None or not array.ndim:
        return images
    if not len(array) or array.dtype == object:
        return list(array)
    if array.dtype.kind not in _NUMBERS or array.ndim not in (2, 3, 4):
        return images
    if array.ndim == 2 or (array.ndim == 3 and _is_one(array.shape, tensor)):
        return np.ascontiguousarray(Scale(dark=True).to_bytes(of_one(array, tensor, "the image"), "the image"))
    return list(Scale(dark=True).to_bytes(in_rows(array, tensor, "images"), "images"))


def _is_plain(images: Any) -> bool:
    """Tell whether something is a uint8 tensor of RGB images, one or several."""
    return is_tensor(images) and str(images.dtype) == "torch.uint8" and images.ndim in (3, 4) and images.shape[-3] == 3 and len(images) > 0


def _is_one(shape: tuple[int, ...], tensor: bool) -> bool:
    """Tell whether an array of three axes is one image, not several grey ones. A tensor (3, H, W) is one RGB image, as everywhere.

    Raises:
        LifelongError: it may be either; to guess would lose images.
    """
    first, last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
    if shape[0] == 1 or (tensor and shape[0] == 3):
        return True
    # Images of one to four columns are rare, but grey squares of that size are not rarer.
    if (first and not last) or (last and shape[1] == shape[2]):
        channels = shape[0] if first and not last else shape[2]
        raise LifelongError(
            f"images of shape {shape}: either {shape[0]} grey images or one image with {channels} channels;"
            " give images[..., None] for grey images, or image[None] for one"
        )
    return last


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
    images, scale = as_pictures(images), Scale(dark=True)
    alone = _one(_ALONE, images, scale)
    if alone is not None:
        return alone
    if isinstance(images, dict) or not isinstance(images, Iterable):
        raise LifelongError(f"{_what(images)} is not an image: give {TAKEN}")
    found: list[Given] = []
    for number, image in enumerate(images):
        some = _one(f"image {number}", image, scale)
        if some is None:
            raise LifelongError(f"image {number}: {_what(image)} is not an image: give {TAKEN}")
        found += some
    return found


def decode_given(given: Sequence[Given], size: int, tell: Callable[[int], None] | None = None) -> tuple[np.ndarray, dict[int, str]]:
    """Decode images to RGB squares as a stream does; only some files are held in memory at a time.

    Args:
        given: the images.
        size: height and width of the result in pixels.
        tell: called with the number of images that were finished since the last call.

    Returns:
        The images, uint8 of shape (n, 3, size, size), and by position the reasons why some cannot be used; these are black.
    """
    images, problems, _ = decode_whole(given, size, tell)
    return images, problems


def decode_whole(given: Sequence[Given], size: int, tell: Callable[[int], None] | None = None) -> Decoded:
    """Do the same as `decode_given`, and return what images lost as well."""
    parts: list[np.ndarray] = []
    problems: dict[int, str] = {}
    remarks: dict[int, str] = {}
    first = 0
    for pictures in _read(given, problems):
        images, unusable, lost = decode_squares(pictures, size)
        parts.append(images)
        for place, reason in unusable.items():
            problems.setdefault(first + place, reason)
        remarks |= {first + place: why for place, why in lost.items()}
        first += len(pictures)
        if tell is not None:
            tell(len(pictures))
    whole = np.concatenate(parts) if parts else np.empty((0, 3, size, size), np.uint8)
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


def _one(name: str, image: Any, scale: Scale) -> list[Given] | None:
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
    array, tensor = array_of(image, name)
    return None if array is None else _of_array(name, array, tensor, scale)


def _content(name: str, file: Any) -> bytes:
    try:
        content = file.read()
    except (OSError, ValueError, TypeError) as error:  # the last of an object whose `read` is another
        raise LifelongError(f"{name}: cannot be read ({error}); open the file again") from error
    if not isinstance(content, bytes):
        raise LifelongError(f"{name}: a file that gives {type(content).__name__}; open it in binary mode: open(path, 'rb')")
    return content


def is_tensor(thing: Any) -> bool:
    """Tell whether something is a tensor of PyTorch, without importing it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, torch.Tensor)


def _of_array(name: str, array: np.ndarray, tensor: bool, scale: Scale) -> list[Given]:
    """Return one image, or each image of a batch."""
    if array.dtype.kind not in _NUMBERS or array.ndim not in (2, 3, 4):
        raise LifelongError(
            f"{name}: an array of shape {array.shape} and type {array.dtype}: expected (H, W), (H, W, C) or (N, H, W, C),"
            " of uint8 of 0..255 or floats of 0..1"
        )
    if array.ndim < 4:
        return [Given(name, np.ascontiguousarray(scale.to_bytes(of_one(array, tensor, name), name)))]
    rows = scale.to_bytes(in_rows(array, tensor, name), name) if len(array) else array
    of_these = "image" if name == _ALONE else f"{name}, number"
    return [Given(f"{of_these} {number}", np.ascontiguousarray(one)) for number, one in enumerate(rows)]


def _what(thing: Any) -> str:
    name = type(thing).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
