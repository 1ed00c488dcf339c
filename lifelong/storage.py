"""Files that are whole or absent, and trees of tensors and plain values in one safe file.

A file is written beside its place, synced to the disk and renamed, so that a process killed at any moment leaves the old file
or the new one, never half of one. A tree (nested dicts, lists and tuples of tensors, numbers, strings, booleans and None) is
stored as one safetensors file whose header carries the structure as JSON: nothing that is read can run code, and a truncated
file is found out.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lifelong.errors import LifelongError
from lifelong.opening import check_regular, check_replaceable, parse_json, read_text

Tree = Any
"""A tensor, a plain value, or a dict, list or tuple of trees."""


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Create or replace `path` in one step: `write` fills a temporary file beside it, which is synced and renamed.

    Raises:
        LifelongError: the folder cannot be written to, or the disk is full; the old file is still there.
    """
    path = Path(path)
    try:
        check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(descriptor)
        part = Path(name)
        try:
            write(part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.chmod(0o644)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if os.name == "posix":  # Windows does not open folders.
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
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


def write_text(path: Path, text: str) -> None:
    """Create or replace a UTF-8 text file in one step (see `write_file`); of a file's name that is no text, what is none is replaced."""
    write_bytes(path, text.encode(errors="replace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Create or replace a file of these bytes in one step (see `write_file`)."""
    write_file(path, lambda part: _write_all(part, content))


def _write_all(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)


def read_lines(path: Path) -> tuple[list[Any], bool]:
    """The values of a JSON-lines file, as far as it is whole.

    Returns:
        The values (none where there is no file), and whether that is all: a line that was being written when the power failed may be torn.

    Raises:
        LifelongError: the file cannot be read.
    """
    try:
        text = read_text(path, errors="replace")
    except FileNotFoundError:
        return [], True
    except OSError as error:
        raise LifelongError(f"cannot read {path}: {error.strerror}; delete it and run again") from error
    found = []
    for line in text.splitlines(keepends=True):
        try:
            found.append(parse_json(line))
        except ValueError:
            return found, False
    return found, text.endswith("\n") or not text


def save_tree(path: Path, tree: Tree) -> None:
    """Store a tree of tensors and plain values in one file, in one step.

    Raises:
        TypeError: a value in the tree is neither a tensor nor plain (a bug of the caller).
        LifelongError: the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    structure = _pack(tree, tensors)
    header = {"tree": json.dumps(structure)}
    write_file(path, lambda part: save_file(tensors, part, metadata=header))


def load_tree(path: Path, device: torch.device | str = "cpu") -> Tree:
    """Read what `save_tree` stored.

    Raises:
        LifelongError: the file is missing, truncated, or not one of ours.
    """
    try:
        check_regular(path)
        with safe_open(path, framework="pt", device=str(device)) as file:
            structure = json.loads((file.metadata() or {})["tree"])
            # A clone, since safetensors may hand out views of the mapped file.
            return _unpack(structure, lambda name: file.get_tensor(name).clone())
    except FileNotFoundError as error:
        raise LifelongError(f"cannot read {path}: no such file") from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise LifelongError(f"cannot read {path}: damaged or not a lifelong file ({error}); delete it and run again") from error


def _pack(tree: Tree, tensors: dict[str, torch.Tensor]) -> Tree:
    """The JSON form of a tree: containers are tagged (JSON knows neither tuples nor keys that are numbers)."""
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


def _unpack(structure: Tree, tensor: Callable[[str], torch.Tensor]) -> Tree:
    if not isinstance(structure, dict):
        return structure
    ((kind, value),) = structure.items()
    if kind == "tensor":
        return tensor(value)
    if kind == "dict":
        return {_unpack(key, tensor): _unpack(item, tensor) for key, item in value}
    items = [_unpack(item, tensor) for item in value]
    return tuple(items) if kind == "tuple" else items
