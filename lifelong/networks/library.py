"""A library of learned, frozen modules by position, from which networks are put together.

Methods that grow differ in how they find which modules a task uses and which it adds. What they share stands here: modules are added once,
frozen for good, known by position and number, and rebuilt from a saved state.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from lifelong.networks.frozen import freeze
from lifelong.storage import Tree

Path = tuple[int, ...]
"""For each position, the number of a module of the library."""


class ModuleLibrary:
    """Frozen modules, several for each position of a chain.

    Args:
        make: gives an untrained module for a position, which a saved state is loaded into.
        positions: how many there are.

    Attributes:
        modules: by position, in the order in which they came.
    """

    def __init__(self, make: Callable[[int], nn.Module], positions: int) -> None:
        self._make = make
        self.modules = [nn.ModuleList() for _ in range(positions)]

    def add(self, position: int, module: nn.Module) -> int:
        """Freeze a module and keep it; returns its number."""
        freeze(module)
        self.modules[position].append(module)
        return len(self.modules[position]) - 1

    def chain(self, path: Sequence[int]) -> list[nn.Module]:
        """The modules of a path, which may end before the last position."""
        return [self.modules[position][number] for position, number in enumerate(path)]

    def state_dict(self) -> Tree:
        """The weights of every module."""
        return [[module.state_dict() for module in modules] for modules in self.modules]

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Hold what `state_dict` described instead of what is held, on a device."""
        for position, saved in enumerate(state):
            self.modules[position] = nn.ModuleList()
            for weights in saved:
                module = self._make(position).to(device)
                module.load_state_dict(weights)
                self.add(position, module)
