"""A segment: a file of parts of states, nodes of trees and tensors, each under the digest of its content.

    parts/000007.safetensors     what the eighth save added (a segment): "nodes", one line each, and tensors
    mirror/000007.safetensors    the same once more: what is damaged in one is read from the other

A node is the JSON text of a tree, in which large parts of it are named by their digests. Its name is the digest of that text, and a
tensor's that of its type, its shape and its bytes: where a thing stands does not matter, and what is read is what was meant.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lifelong.errors import DamagedError
from lifelong.headers import made, parse_start, read_start, readable, understood
from lifelong.opening import open_regular, parse_json

FOLDERS = ("parts", "mirror")
"""Where segments stand, each in both."""

NODES = "nodes"
"""The name of the tensor that holds a segment's nodes."""

HEX = 32
"""Hexadecimal digits of a name: 128 bits of SHA-256."""


def name_of_node(text: str) -> str:
    """Return the name of a node."""
    return hashlib.sha256(text.encode()).hexdigest()[:HEX]


def name_of_tensor(dtype: str, shape: list[int], content: Any) -> str:
    """Return the name of a tensor.

    Args:
        dtype: its type, as safetensors names it.
        shape: of it.
        content: its bytes.
    """
    digest = hashlib.sha256(f"{dtype}{shape}".encode())
    digest.update(content)
    return digest.hexdigest()[:HEX]


@dataclass
class Segment:
    """A file of parts that can be read.

    Attributes:
        path: of the file.
        header: where its tensors are, by name.
        about: what else its header says.
        start: bytes before the tensors.
        size: bytes of the tensors.
        held: what stands behind them, if it is in memory.
    """

    path: Path
    header: dict[str, Any]
    about: dict[str, str]
    start: int
    size: int
    held: bytes | None = None

    @classmethod
    def open(cls, path: Path, owner: str | None) -> "Segment":
        """Open a segment.

        Raises:
            LifelongError: it is damaged, another's, or not there.
        """
        with readable(path), open_regular(path) as file:
            start = read_start(file)
            if start is None:
                raise ValueError("it carries no digest")
            header, about = parse_start(start, file, path, owner)
            if NODES not in header:
                raise ValueError("it has no nodes")
            return cls(path, header, about, len(start), os.fstat(file.fileno()).st_size - len(start))

    @cached_property
    def nodes(self) -> dict[str, str]:
        """The texts of its nodes by name; they are checked when they are used."""
        lines = bytes(self.read(NODES)).decode(errors="replace").split("\n")
        return {line[:HEX]: line[HEX + 1 :] for line in lines if line}

    @property
    def made_with(self) -> dict[str, str]:
        """What computed it."""
        with understood(self.path):
            return {str(key): str(value) for key, value in parse_json(self.about["made_with"]).items()}

    def hold(self) -> None:
        """Read it into memory."""
        with readable(self.path), open_regular(self.path) as file:
            file.seek(self.start)
            self.held = file.read(self.size)

    def read(self, name: str) -> bytes | memoryview:
        """Return the bytes of a tensor, as they stand there."""
        first, last = self.header[name]["data_offsets"]
        if self.held is not None:
            return memoryview(self.held)[first:last]
        with readable(self.path), open_regular(self.path) as file:
            file.seek(self.start + first)
            return file.read(last - first)

    def bytes_of(self, name: str) -> int:
        """Return how many bytes a tensor takes."""
        first, last = self.header[name]["data_offsets"]
        return last - first

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor.

        Raises:
            DamagedError: it is not what its name says.
        """
        about = self.header[name]
        content = self.read(name)
        if name_of_tensor(about["dtype"], about["shape"], content) != name:
            raise DamagedError(f"cannot read {self.path}: a tensor does not fit its digest")
        return made(about["shape"], about["dtype"], content)

    def node(self, name: str) -> str:
        """Return the text of a node.

        Raises:
            DamagedError: it is not what its name says.
        """
        text = self.nodes.get(name)
        if text is None or name_of_node(text) != name:
            raise DamagedError(f"cannot read {self.path}: a node does not fit its digest")
        return text

    def check(self) -> None:
        """See that all of it is as it was written.

        Raises:
            DamagedError: it is not.
        """
        body = hashlib.sha256()
        with readable(self.path), open_regular(self.path) as file:
            file.seek(self.start)
            while piece := file.read(2**20):
                body.update(piece)
            if body.hexdigest() != self.about["body"]:
                raise ValueError("its tensors do not fit their digest")
        for name in self.nodes:
            self.node(name)


def place_of(path: Path) -> str:
    """Return where a segment stands, below the folder of states."""
    return f"{path.parent.name}/{path.name}"
