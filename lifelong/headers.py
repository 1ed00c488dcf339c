"""The form of our safetensors files: the header with its digests, and how trees become JSON and tensors.

A header's metadata have "digest" (of the header's length and the header, with zeros in its own place), "body" (SHA-256 of all bytes
behind it), "owner", "made_with", and "tree" (the structure of a tree, or nothing).
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError

from lifelong.digests import DIGEST
from lifelong.errors import DamagedError, ForeignError, LifelongError
from lifelong.opening import check_regular, parse_json

Tree = Any
"""A tensor, a plain value, or a dict, list or tuple of trees."""

LEAD = b'{"__metadata__":{"digest":"'
"""How the header of a tree's file begins that carries digests."""

MOST_HEADER = 100_000_000
"""Bytes of a header, at most: as safetensors has it."""

DIGEST_AT = 8 + len(LEAD)
DIGEST_END = DIGEST_AT + 64

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "C64": torch.complex64,
}
"""The types of tensors by the names that safetensors has for them."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Part:
    """A place in a tree whose content stands in a part beside the tree's file.

    Args:
        name: of the part: the digest of its content.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Body:
    """The tensors of a safetensors file with their digest, which is made once for all copies of the file.

    Args:
        tensors: by name; on the CPU and contiguous.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        # The widest first, as safetensors has it: each begins at a multiple of its width.
        ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
        self._pieces = [bytes_of(tensor) for tensor in ordered.values()]
        self._places: dict[str, Any] = {}
        digest, at = hashlib.sha256(), 0
        for (name, tensor), data in zip(ordered.items(), self._pieces, strict=True):
            digest.update(data)
            self._places[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + len(data)]}
            at += len(data)
        self._digest = digest.hexdigest()

    def write(self, file: BinaryIO, about: Mapping[str, str]) -> None:
        """Write the file with its digests.

        Args:
            file: opened to write.
            about: the other metadata.
        """
        header = {"__metadata__": {DIGEST: "0" * 64, "body": self._digest, **about}, **self._places}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        start = len(text).to_bytes(8, "little") + text
        file.write(start[:DIGEST_AT] + digest_of_start(start) + start[DIGEST_END:])
        for piece in self._pieces:
            file.write(piece)


def read_start(file: BinaryIO) -> bytes | None:
    """Return what stands before the tensors of a file, which is left there; None if it carries no digest."""
    length = file.read(8)
    text = file.read(min(int.from_bytes(length, "little"), MOST_HEADER))
    return length + text if text.startswith(LEAD) else None


def digest_of_start(start: bytes) -> bytes:
    """Return the digest of what stands before the tensors, as it stands there itself."""
    return hashlib.sha256(start[:DIGEST_AT] + b"0" * 64 + start[DIGEST_END:]).hexdigest().encode()


def parse_start(start: bytes, file: BinaryIO, path: Path, owner: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the header of a file that carries digests: where its tensors are, and what else it says.

    A digest can be forged. So that nothing is allocated or read that is not there, the tensors' sizes must fit one another and the file.

    Args:
        start: what stands before the tensors.
        file: whose start it is.
        path: of the file.
        owner: the required owner; None: any.

    Raises:
        ValueError: it is not as it was written.
        ForeignError: it belongs to another owner than the one that is given.
    """
    if digest_of_start(start) != start[DIGEST_AT:DIGEST_END]:
        raise ValueError("its header does not fit its digest")
    header = parse_json(start[8:].decode())
    about = header.pop("__metadata__")
    if not {"owner", "made_with", "tree", "body"} <= about.keys() or not all(isinstance(value, str) for value in about.values()):
        raise ValueError("its header is not one of ours")
    if owner is not None and about["owner"] != owner:
        raise ForeignError(f"{path} belongs to another run, or to another place of this one")
    size = max((_end_of(entry) for entry in header.values()), default=0)
    if os.fstat(file.fileno()).st_size != len(start) + size:
        raise ValueError("it is longer or shorter than its header says")
    return header, about


def _end_of(entry: Any) -> int:
    """Return where a tensor ends, behind the header, as its entry in the header says."""
    shape, (first, last) = entry["shape"], entry["data_offsets"]
    numbers = [*shape, first, last]
    if not isinstance(shape, list) or {*map(type, numbers)} != {int} or min(numbers) < 0:
        raise ValueError("its header has a tensor of no size")
    if prod(shape) * DTYPES[entry["dtype"]].itemsize != last - first:
        raise ValueError("its header has a tensor whose size does not fit its bytes")
    return last


@contextmanager
def readable(path: Path) -> Generator[None]:
    """Enter a block that reads a tree's file: whatever is wrong with it becomes one line."""
    with understood(path):
        check_regular(path)
        yield


@contextmanager
def understood(path: Path) -> Generator[None]:
    """Enter a block that reads what stands in a file or a folder of ours: whatever is wrong with it becomes one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise LifelongError(f"cannot read {path}: no such file") from error
    except OSError as error:
        # What a disk cannot read is damaged; what a process may not read is not.
        kind = DamagedError if error.errno == errno.EIO else LifelongError
        raise kind(f"cannot read {path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise DamagedError(f"cannot read {path}: damaged or not a lifelong file (nested too deeply); delete it and run again") from error
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedError(f"cannot read {path}: damaged or not a lifelong file ({error}); delete it and run again") from error


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, where they lie."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def made(shape: list[int], dtype: str, content: Any) -> torch.Tensor:
    """Return a tensor of these bytes, which are copied.

    Raises:
        ValueError: PyTorch has no tensors of this shape.
    """
    try:
        found = torch.empty(shape, dtype=DTYPES[dtype])
    except RuntimeError as error:
        raise ValueError(f"no tensor has the shape {shape[:8]}") from error
    bytes_of(found)[:] = content
    return found


def at_rest(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous tensor on the CPU with the values of another; itself, where it is one."""
    return tensor.detach().to("cpu").contiguous()


def pack(tree: Tree, tensors: dict[str, torch.Tensor]) -> Tree:
    """Return the JSON form of a tree: containers are tagged (JSON knows neither tuples nor keys that are numbers).

    Args:
        tree: what to pack.
        tensors: gets its tensors, each under a name of its own.
    """
    if isinstance(tree, torch.Tensor):
        name = f"t{len(tensors)}"
        # Clones: safetensors refuses tensors that share memory, and wants them contiguous.
        tensors[name] = tree.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(tree, Part):
        return {"part": tree.name}
    if isinstance(tree, Mapping):
        return {"dict": [[pack(key, tensors), pack(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [pack(value, tensors) for value in tree]}
    check_plain(tree)
    return tree


def check_plain(value: Tree) -> None:
    """Check that a value can be stored.

    Raises:
        TypeError: it is neither a tensor nor plain (a bug of the caller).
    """
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise TypeError(f"a {type(value).__name__} cannot be stored: only tensors, numbers, strings, None and containers of them")


def unpack(structure: Tree, tensor: Callable[[str], Any], part: Callable[[str], Tree], numbers: Callable[[str], Any]) -> Tree:
    """Return the tree of a JSON form.

    Args:
        structure: as `pack` made it, or `lifelong.parts`.
        tensor: gives the tensor of a name.
        part: gives the tree of a part's name.
        numbers: gives the list of numbers that stands as a tensor of a name.
    """
    if not isinstance(structure, dict):
        return structure
    ((kind, value),) = structure.items()
    if kind in ("tensor", "part", "numbers") and not isinstance(value, str):
        raise ValueError(f"it names a {kind} by no name")
    match kind:
        case "tensor":
            return tensor(value)
        case "part":
            return part(value)
        case "numbers":
            return numbers(value)
        case "long":
            pieces, tail = (unpack(each, tensor, part, numbers) for each in value)
            return [item for piece in pieces for item in piece] + tail
        case "dict":
            return {unpack(key, tensor, part, numbers): unpack(item, tensor, part, numbers) for key, item in value}
        case "list" | "tuple":
            items = [unpack(item, tensor, part, numbers) for item in value]
            return tuple(items) if kind == "tuple" else items
    raise ValueError(f"it holds a '{kind}', which this version does not know")
