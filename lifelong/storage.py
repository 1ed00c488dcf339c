"""Trees of tensors and plain values in safe files, which are whole or absent.

A tree (nested dicts, lists and tuples of tensors, numbers, strings, booleans and None) is stored as one safetensors file whose header
carries the structure as JSON: nothing that is read can run code. What a tree has in common with an earlier one may stand in parts beside
the file (`lifelong.parts`).

Every file that is read is checked against the digest that it carries (`lifelong.digests`). A tree has two, both in the header: one of
the tensors' bytes ("body"), and one of everything before them ("digest": the header's length and the header, with zeros in place of the
digest).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from lifelong.headers import Body, Part, Tree, made, pack, parse_start, read_start, readable, unpack
from lifelong.opening import open_regular, parse_json
from lifelong.segments import Segments
from lifelong.writing import beside as beside
from lifelong.writing import remove as remove
from lifelong.writing import sync_folder as sync_folder
from lifelong.writing import write_bytes as write_bytes
from lifelong.writing import write_file
from lifelong.writing import write_text as write_text


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
        tree: what to store; a `Part` in it stands in a segment beside the file.
        owner: whose it is (see `Seal.owner`).
        made_with: what computed it.

    Raises:
        TypeError: a value in the tree is neither a tensor nor plain (a bug of the caller).
        LifelongError: the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    about = {"owner": owner, "made_with": json.dumps(dict(made_with or {})), "tree": json.dumps(pack(tree, tensors))}
    body = Body(tensors)

    def write(part: Path) -> None:
        with part.open("wb") as file:
            body.write(file, about)

    write_file(path, write)


def load_tree(path: Path, device: torch.device | str = "cpu") -> Tree:
    """Read what `save_tree` stored, regardless of its owner.

    Raises:
        LifelongError: the file is missing, damaged, or not one of ours.
    """
    return read_tree(path, device).tree


def read_tree(
    path: Path, device: torch.device | str = "cpu", owner: str | None = None, *, required: bool = False, parts: Segments | None = None
) -> Stored:
    """Read what `save_tree` stored, and check its digest and its owner.

    Args:
        path: of the file.
        device: where to put its tensors.
        owner: the required owner; None: any.
        required: whether a file without a digest is refused.
        parts: where its parts are; None: beside it, whoever's they are.

    Raises:
        ForeignError: it belongs to another owner.
        DamagedError: it is not as it was written, or not a tree file.
        LifelongError: it does not exist or cannot be read.
    """
    with readable(path):
        with open_regular(path) as file:
            start = read_start(file)
            if start is None:
                return _read_earlier(path, device, required)
            header, about = parse_start(start, file, path, owner)
            body = np.fromfile(file, np.uint8)
        if about["body"] != hashlib.sha256(body.data).hexdigest():
            raise ValueError("its tensors do not fit their digest")

        def tensor(name: str) -> torch.Tensor:
            about = header[name]
            first, last = about["data_offsets"]
            # A copy: the whole file is let go.
            return made(about["shape"], about["dtype"], body[first:last].data).to(device)

        beside = parts or Segments(path.parent)
        return _stored(about, tensor, lambda name: beside.tree(name, lambda inner: beside.tensor(inner).to(device)))


def read_plain(path: Path, owner: str | None = None, *, parts: Segments | None = None) -> Stored:
    """Return the plain values of what `save_tree` stored, with None for each tensor: only the beginning of the file is read, and checked.

    Args:
        path, owner, parts: as of `read_tree`.

    Raises:
        ForeignError, DamagedError, LifelongError: as `read_tree`.
    """
    with readable(path), open_regular(path) as file:
        start = read_start(file)
        if start is not None:
            beside = parts or Segments(path.parent)
            about = parse_start(start, file, path, owner)[1]
            return _stored(about, lambda name: None, lambda name: beside.tree(name, lambda inner: None))
        with safe_open(path, framework="pt") as opened:
            return Stored(_unpacked(parse_json((opened.metadata() or {})["tree"]), lambda name: None))


def read_root(path: Path, owner: str | None = None) -> Stored:
    """As `read_plain`, with a `Part` where a part stands: nothing beside the file is read.

    Raises:
        ForeignError, DamagedError, LifelongError: as `read_tree`.
    """
    with readable(path), open_regular(path) as file:
        start = read_start(file)
        if start is None:
            return read_plain(path, owner)
        return _stored(parse_start(start, file, path, owner)[1], lambda name: None, Part)


def _stored(about: Mapping[str, str], tensor: Callable[[str], Any], part: Callable[[str], Tree]) -> Stored:
    def numbers(name: str) -> list[float]:
        raise ValueError("it has numbers where only parts have them")

    tree = unpack(parse_json(about["tree"]), tensor, part, numbers)
    return Stored(tree, True, about["owner"], parse_json(about["made_with"]))


def _unpacked(structure: Tree, tensor: Callable[[str], Any]) -> Tree:
    """Return a tree as earlier versions stored it."""

    def none(name: str) -> Tree:
        raise ValueError("it has parts, and carries no digest")

    return unpack(structure, tensor, none, none)


def _read_earlier(path: Path, device: torch.device | str, required: bool) -> Stored:
    """Return a tree as earlier versions stored it, without digests."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        structure = parse_json((file.metadata() or {})["tree"])
        if required:
            raise ValueError("it carries no digest, as the files of this run do")
        # A clone, since safetensors may hand out views of the mapped file.
        return Stored(_unpacked(structure, lambda name: file.get_tensor(name).clone()))
