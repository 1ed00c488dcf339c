"""Trees of tensors and plain values, as methods save them: what is done to all tensors of one."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from lifelong.storage import Tree


def tensors_of(tree: Tree) -> Iterator[Tensor]:
    """Yield every tensor of a tree."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from tensors_of(item)
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from tensors_of(item)


def tensor_bytes(tree: Tree) -> int:
    """Count the bytes of all tensors of a tree."""
    return sum(tensor.nbytes for tensor in tensors_of(tree))


def mapped(tree: Tree, change: Callable[[Tensor], Tensor]) -> Tree:
    """Return the tree with every tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: mapped(item, change) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(mapped(item, change) for item in tree)
    return tree


def on_device(tree: Tree, device: torch.device | str) -> Tree:
    """Return the tree with every tensor on a device."""
    return mapped(tree, lambda tensor: tensor.to(device))


class Fixed(dict[str, Any]):
    """A dict of a state that never changes once it is made, nor does anything in it: it is stored once, and not looked at again."""


class Weights:
    """A module's weights, in a state that is being saved by who may know them already.

    Args:
        module: whose they are.
        serial: of the last change that was seen; equal ones mean equal weights.

    Attributes:
        known_by: equal for the same weights of the same module, as long as that is kept.
    """

    __slots__ = ("known_by", "module")

    def __init__(self, module: nn.Module, serial: int) -> None:
        self.module, self.known_by = module, (id(module), serial)

    def read(self) -> dict[str, Tensor]:
        """Return the weights."""
        return self.module.state_dict()


_SERIAL: ContextVar[Callable[[nn.Module], int | None] | None] = ContextVar("serial", default=None)


@contextmanager
def known_by(serial: Callable[[nn.Module], int | None]) -> Generator[None]:
    """Enter a block in which `weights_of` does not read what is known.

    Args:
        serial: gives the serial number of a module's last change; None: it is not known.
    """
    before = _SERIAL.set(serial)
    try:
        yield
    finally:
        _SERIAL.reset(before)


# `Any`: `Weights` only where the state is being stored, by what knows them.
def weights_of(module: nn.Module) -> Any:
    """Return a module's weights, as methods save them: a dict of tensors by name."""
    known = _SERIAL.get()
    number = None if known is None else known(module)
    return module.state_dict() if number is None else Weights(module, number)
