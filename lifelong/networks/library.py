"""A library of learned, frozen modules by position, from which networks are put together.

Growing methods differ in how they choose which modules a task uses and adds. Their common part is here: modules are added once, frozen
permanently, identified by position and number, and rebuilt from a saved state.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from lifelong.networks.copies import LoadedModules
from lifelong.networks.frozen import freeze
from lifelong.storage import Tree
from lifelong.trees import weights_of

ModulePath = tuple[int, ...]
"""For each position, the number of a module of the library."""


class ModuleLibrary:
    """Frozen modules, several for each position of a chain.

    Args:
        make: makes an untrained module for a position, into which a saved state is loaded.
        positions: how many there are.

    Attributes:
        modules: by position, in the order in which they came.
    """

    def __init__(self, make: Callable[[int], nn.Module], positions: int) -> None:
        self._make = make
        self.modules = [nn.ModuleList() for _ in range(positions)]

    def add(self, position: int, module: nn.Module) -> int:
        """Freeze a module and keep it; return its number."""
        freeze(module)
        self.modules[position].append(module)
        return len(self.modules[position]) - 1

    def chain(self, path: Sequence[int]) -> list[nn.Module]:
        """Return the modules of a path, which may end before the last position."""
        return [self.modules[position][number] for position, number in enumerate(path)]

    def along(self, paths: Sequence[ModulePath], inputs: Shaped[Tensor, "n ..."]) -> list[Shaped[Tensor, "n ..."]]:
        """Compute what each path gives for the same inputs; what a path begins with in common with the one before it is not computed again.

        Args:
            paths: sorted, so that those that begin alike follow one another.
            inputs: of the first position.
        """
        last: ModulePath = ()
        outputs, found = [inputs], []
        for path in paths:
            common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(last, path, strict=False)))
            del outputs[common + 1 :]
            for module in self.chain(path)[common:]:
                outputs.append(module(outputs[-1]))
            last = path
            found.append(outputs[-1])
        return found

    def state_dict(self) -> Tree:
        """Return the weights of every module."""
        return [[weights_of(module) for module in modules] for modules in self.modules]

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Replace all modules by those that `state_dict` returned, on a device."""
        loaded = LoadedModules(device)
        for position, saved in enumerate(state):
            self.modules[position] = nn.ModuleList(loaded(position, partial(self._make, position), weights) for weights in saved)
