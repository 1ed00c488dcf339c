"""Trees of tensors and plain values, as methods save them: what is done to all tensors of one."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

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
