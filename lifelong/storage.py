"""Files that are whole or absent, and trees of tensors and plain values in one safe file.

A file is written under a temporary name next to its final one, synced to the disk and renamed, so that a process killed at any moment
leaves the old file or the new one, never half of one. A tree (nested dicts, lists and tuples of tensors, numbers, strings, booleans and
None) is stored as one safetensors file whose header carries the structure as JSON: nothing that is read can run code.

Every file that is read is checked against the digest that it carries (`lifelong.digests`). A tree has two, both in the header: one of
the tensors' bytes ("body"), and one of everything before them ("digest": the header's length and the header, with zeros in place of the
digest).
"""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from lifelong.digests import DIGEST
from lifelong.errors import DamagedError, ForeignError, LifelongError
from lifelong.opening import check_regular, check_replaceable, open_regular

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


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Create or replace `path` in one step: `write` fills a temporary file next to it, which is synced and renamed.

    Its permissions follow the umask of the process.

    Raises:
        LifelongError: the folder cannot be written to, or the disk is full; the old file is still there.
    """
    path = Path(path)
    try:
        check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = beside(path)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            write(part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LifelongError(f"cannot write {path}: {reason}; free space there or choose another folder") from error


def remove(path: Path) -> None:
    """Delete a file, if it is there.

    Raises:
        LifelongError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise LifelongError(f"cannot delete {path}: {error.strerror}; make its folder writable and run the same command again") from error


def beside(path: Path) -> Path:
    """Return a unique name for a temporary file next to a file."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk."""
    if os.name == "posix":  # Windows does not open folders.
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Create or replace a UTF-8 text file in one step (see `write_file`); characters that UTF-8 cannot encode become question marks."""
    write_bytes(path, text.encode(errors="replace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Create or replace a file of these bytes in one step (see `write_file`)."""
    write_file(path, lambda part: _write_all(part, content))


def _write_all(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)


@dataclass(frozen=True)
class Seal:
    """What binds the files of a run to it, and each to its place.

    Attributes:
        run: digest of the run's identity; empty: what is saved is bound to nothing.
        root: the folder below which places are told apart.
        made_with: what computes: recorded in each file.
        required: whether a file without a digest is refused; if not, it may be one of an earlier version.
        say: called with notes about files that were read.
    """

    run: str = ""
    root: Path = Path()
    made_with: Mapping[str, str] = field(default_factory=dict)
    required: bool = False
    say: Callable[[str], None] = lambda text: None

    def owner(self, path: Path) -> str:
        """Whose file it is that lies at a path."""
        return f"{self.run}/{path.relative_to(self.root).as_posix()}" if self.run else ""


@dataclass(frozen=True)
class Stored:
    """What `save_tree` stored.

    Attributes:
        tree: as it was given.
        checked: whether the file carried a digest; one of an earlier version does not.
        owner: whose it is (see `Seal.owner`); empty where that is not known.
        made_with: what computed it; empty where that is not known.
    """

    tree: Tree
    checked: bool = False
    owner: str = ""
    made_with: Mapping[str, str] = field(default_factory=dict)


def save_tree(path: Path, tree: Tree, owner: str = "", made_with: Mapping[str, str] | None = None) -> None:
    """Store a tree of tensors and plain values in one file, in one step.

    Args:
        path: of the file.
        tree: what to store.
        owner: whose it is (see `Seal.owner`).
        made_with: what computed it.

    Raises:
        TypeError: a value in the tree is neither a tensor nor plain (a bug of the caller).
        LifelongError: the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    structure = json.dumps(_pack(tree, tensors))
    about = {DIGEST: "0" * 64, "body": "", "owner": owner, "made_with": json.dumps(dict(made_with or {})), "tree": structure}
    # The widest first, as safetensors has it: each begins at a multiple of its width.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    header: dict[str, Any] = {"__metadata__": about}
    body, at = hashlib.sha256(), 0
    for name, tensor in ordered.items():
        content = _bytes_of(tensor)
        body.update(content)
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + len(content)]}
        at += len(content)
    about["body"] = body.hexdigest()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = len(text).to_bytes(8, "little") + text
    start = start[:DIGEST_AT] + _digest_start(start) + start[DIGEST_END:]

    def write(part: Path) -> None:
        with part.open("wb") as file:
            file.write(start)
            for tensor in ordered.values():
                file.write(_bytes_of(tensor))

    write_file(path, write)


def load_tree(path: Path, device: torch.device | str = "cpu") -> Tree:
    """Read what `save_tree` stored, regardless of its owner.

    Raises:
        LifelongError: the file is missing, damaged, or not one of ours.
    """
    return read_tree(path, device).tree


def read_tree(path: Path, device: torch.device | str = "cpu", owner: str | None = None, *, required: bool = False) -> Stored:
    """Read what `save_tree` stored, and check its digest and its owner.

    Args:
        path: of the file.
        device: where to put its tensors.
        owner: the required owner; None: any.
        required: whether a file without a digest is refused.

    Raises:
        ForeignError: it belongs to another owner.
        DamagedError: it is not as it was written, or not a tree file.
        LifelongError: it does not exist or cannot be read.
    """
    with _readable(path):
        with open_regular(path) as file:
            content = np.fromfile(file, np.uint8)
        start = _start(content[:8].tobytes(), lambda size: content[8 : 8 + size].tobytes())
        if start is None:
            return _read_earlier(path, device, required)
        header, about = _header(start, path, owner)
        body = content[len(start) :]
        if about["body"] != hashlib.sha256(body.data).hexdigest():
            raise ValueError("its tensors do not fit their digest")

        def tensor(name: str) -> torch.Tensor:
            about = header[name]
            first, last = about["data_offsets"]
            # A copy: the whole file is let go.
            found = torch.empty(about["shape"], dtype=DTYPES[about["dtype"]])
            _bytes_of(found)[:] = body[first:last].data
            return found.to(device)

        return _stored(about, tensor)


def read_plain(path: Path, owner: str | None = None) -> Stored:
    """Return the plain values of what `save_tree` stored, with None for each tensor: only the beginning of the file is read, and checked.

    Raises:
        ForeignError, DamagedError, LifelongError: as `read_tree`.
    """
    with _readable(path), open_regular(path) as file:
        start = _start(file.read(8), file.read)
        if start is not None:
            about = _header(start, path, owner)[1]
            return _stored(about, lambda name: None)
        with safe_open(path, framework="pt") as opened:
            return Stored(_unpack(json.loads((opened.metadata() or {})["tree"]), lambda name: None))


def _stored(about: Mapping[str, str], tensor: Callable[[str], Any]) -> Stored:
    return Stored(_unpack(json.loads(about["tree"]), tensor), True, about["owner"], json.loads(about["made_with"]))


def _start(length: bytes, read: Callable[[int], bytes]) -> bytes | None:
    """Return what stands before the tensors; None if it carries no digest."""
    text = read(min(int.from_bytes(length, "little"), MOST_HEADER))
    return length + text if text.startswith(LEAD) else None


def _digest_start(start: bytes) -> bytes:
    """Return the digest of what stands before the tensors, as it stands there itself."""
    return hashlib.sha256(start[:DIGEST_AT] + b"0" * 64 + start[DIGEST_END:]).hexdigest().encode()


def _header(start: bytes, path: Path, owner: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the header of a file that carries digests: where its tensors are, and what else it says."""
    if _digest_start(start) != start[DIGEST_AT:DIGEST_END]:
        raise ValueError("its header does not fit its digest")
    header = json.loads(start[8:])
    about = header.pop("__metadata__")
    if owner is not None and about["owner"] != owner:
        raise ForeignError(f"{path} belongs to another run, or to another place of this one")
    return header, about


def _read_earlier(path: Path, device: torch.device | str, required: bool) -> Stored:
    """Return a tree as earlier versions stored it, without digests."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        structure = json.loads((file.metadata() or {})["tree"])
        if required:
            raise ValueError("it carries no digest, as the files of this run do")
        # A clone, since safetensors may hand out views of the mapped file.
        return Stored(_unpack(structure, lambda name: file.get_tensor(name).clone()))


@contextmanager
def _readable(path: Path) -> Generator[None]:
    """Enter a block that reads a tree's file: whatever is wrong with it becomes one line."""
    try:
        check_regular(path)
        yield
    except FileNotFoundError as error:
        raise LifelongError(f"cannot read {path}: no such file") from error
    except OSError as error:
        # What a disk cannot read is damaged; what a process may not read is not.
        kind = DamagedError if error.errno == errno.EIO else LifelongError
        raise kind(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamagedError(f"cannot read {path}: damaged or not a lifelong file ({error}); delete it and run again") from error


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor, where they lie."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def _pack(tree: Tree, tensors: dict[str, torch.Tensor]) -> Tree:
    """Return the JSON form of a tree: containers are tagged (JSON knows neither tuples nor keys that are numbers)."""
    if isinstance(tree, torch.Tensor):
        name = f"t{len(tensors)}"
        # Clones: safetensors refuses tensors that share memory, and wants them contiguous.
        tensors[name] = tree.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(tree, Mapping):
        return {"dict": [[_pack(key, tensors), _pack(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [_pack(value, tensors) for value in tree]}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    raise TypeError(f"a {type(tree).__name__} cannot be stored: only tensors, numbers, strings, None and containers of them")


def _unpack(structure: Tree, tensor: Callable[[str], Any]) -> Tree:
    if not isinstance(structure, dict):
        return structure
    ((kind, value),) = structure.items()
    if kind == "tensor":
        return tensor(value)
    if kind == "dict":
        return {_unpack(key, tensor): _unpack(item, tensor) for key, item in value}
    items = [_unpack(item, tensor) for item in value]
    return tuple(items) if kind == "tuple" else items
