"""Know many modules, and find what has changed of them, without reading their weights.

PyTorch counts the changes of each tensor in place, and a module's tensors and submodules stand in dicts. Of a block of modules both are
compared in a few calls that loop in C: 30 microseconds for a network of 200 tensors, one for a head.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain, compress
from operator import attrgetter, is_, ne
from threading import Lock
from typing import Any, NamedTuple

from torch import Tensor, nn

BLOCK = 64
"""Modules that are compared together."""

_VERSION = attrgetter("_version")


class Size(NamedTuple):
    """What modules hold.

    Attributes:
        parameters: how many numbers their parameters have, each parameter once, however often it is shared.
        bytes: that these take.
    """

    parameters: int
    bytes: int


class Inventory:
    """Knows modules, and which of them have changed. Copies know nothing yet."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        # Of which dicts of parameters the size is known, and what was counted.
        self._counted: list[dict[int, tuple[int, int]]] = []
        self._ids: set[int] = set()
        self._size = Size(0, 0)

    def __reduce__(self) -> tuple[type["Inventory"], tuple[()]]:
        return Inventory, ()

    def look(self, modules: Sequence[nn.Module]) -> list[nn.Module]:
        """Look at modules; return those that are new, or have other tensors, or changed ones, than when they were last looked at.

        Changes behind PyTorch's back (`tensor.data`, NumPy views) are not seen.

        Args:
            modules: each once. It is cheap where they stand as they did the last time, with new ones at the end.
        """
        changed: list[nn.Module] = []
        for number, start in enumerate(range(0, len(modules), BLOCK)):
            if number == len(self._blocks):
                self._blocks.append(_Block())
            changed += self._blocks[number].look(modules[start : start + BLOCK])
        del self._blocks[-(-len(modules) // BLOCK) :]
        return changed

    def holds(self, modules: Sequence[nn.Module]) -> bool:
        """Tell whether these modules were looked at last."""
        known = list(chain.from_iterable(block.modules for block in self._blocks))
        return len(known) == len(modules) and all(map(is_, known, modules))

    def size(self) -> Size:
        """Return what the modules hold that were looked at last."""
        held = list(chain.from_iterable(block.parameters for block in self._blocks))
        known = len(self._counted)
        if len(held) < known or not all(map(is_, held, self._counted)):
            known, self._ids, self._size = 0, set(), Size(0, 0)
        for parameters in held[known:]:
            found = [size for key, size in parameters.items() if key not in self._ids]
            self._ids.update(parameters)
            self._size = Size(self._size.parameters + sum(count for count, _ in found), self._size.bytes + sum(size for _, size in found))
        self._counted = held
        return self._size


class _Block:
    """Some modules, with all their dicts one after the other.

    Attributes:
        modules: the modules.
        parameters: of each the number of elements and the bytes of its parameters, by their ids.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.modules: list[nn.Module] = []
        self.parameters: list[dict[int, tuple[int, int]]] = []
        # Dicts that hold something, what they hold, and those that hold nothing.
        self._held: list[dict[str, Any]] = []
        self._values: list[Any] = []
        self._empty: list[dict[str, Any]] = []
        # Tensors whose changes are counted, the counts, and whose tensors they are.
        self._tensors: list[Tensor] = []
        self._versions: list[int] = []
        self._owners: list[nn.Module] = []
        # Where the values and the tensors of each module end.
        self._ends: list[tuple[int, int]] = [(0, 0)]

    def look(self, modules: Sequence[nn.Module]) -> list[nn.Module]:
        """See `Inventory.look`."""
        known = len(self.modules)
        if len(modules) < known or not all(map(is_, self.modules, modules)) or not self._laid_out_as_before():
            return self._look_anew(modules)
        versions, changed = list(map(_VERSION, self._tensors)), dict[int, nn.Module]()
        if versions != self._versions:
            changed = {id(module): module for module in compress(self._owners, map(ne, versions, self._versions))}
            self._versions = versions
        for module in modules[known:]:
            self._add(module)
        return [*changed.values(), *modules[known:]]

    def _laid_out_as_before(self) -> bool:
        values = list(chain.from_iterable(map(dict.values, self._held)))
        return len(values) == len(self._values) and all(map(is_, values, self._values)) and not any(self._empty)

    def _look_anew(self, modules: Sequence[nn.Module]) -> list[nn.Module]:
        before = {id(module): self._seen(place) for place, module in enumerate(self.modules)}
        kept = self.modules  # So that no other gets the id of one of them.
        self._clear()
        changed = []
        for place, module in enumerate(modules):
            self._add(module)
            old, new = before.get(id(module)), self._seen(place)
            same = old is not None and len(old[0]) == len(new[0]) and all(map(is_, old[0], new[0])) and old[1] == new[1]
            changed += [] if same else [module]
        del kept
        return changed

    def _seen(self, place: int) -> tuple[list[Any], list[int]]:
        """Return what the dicts of a module held, and the counts of its tensors."""
        (value, tensor), (value_end, tensor_end) = self._ends[place : place + 2]
        return self._values[value:value_end], self._versions[tensor:tensor_end]

    def _add(self, module: nn.Module) -> None:
        inner = list(module.modules())
        parameters, buffers = [each._parameters for each in inner], [each._buffers for each in inner]
        dicts = [*parameters, *buffers, *(each._modules for each in inner)]
        self._held += filter(None, dicts)
        self._empty += (each for each in dicts if not each)
        self._values += chain.from_iterable(map(dict.values, dicts))
        tensors = [each for each in chain.from_iterable(map(dict.values, parameters + buffers)) if each is not None]
        counted = [each for each in tensors if not each.is_inference()]
        self._tensors += counted
        self._versions += map(_VERSION, counted)
        self._owners += [module] * len(counted)
        self._ends.append((len(self._values), len(self._tensors)))
        found = chain.from_iterable(map(dict.values, parameters))
        self.parameters.append({id(each): (each.numel(), each.nbytes) for each in found if each is not None})
        self.modules.append(module)


_SETTLED: ContextVar[Inventory | None] = ContextVar("settled", default=None)
_LOCK = Lock()


@contextmanager
def settled(known: Inventory) -> Generator[None]:
    """Enter a block in which no module gets or loses a tensor, so that those which were looked at need not be looked at again.

    Args:
        known: knows them.
    """
    before = _SETTLED.set(known)
    try:
        yield
    finally:
        _SETTLED.reset(before)


def size_of(modules: Iterable[nn.Module], own: Inventory | None = None) -> Size:
    """Count the parameters of some modules.

    Args:
        modules: may name some several times.
        own: knows what was counted the last time.
    """
    distinct = list({id(module): module for module in modules}.values())
    known = _SETTLED.get()
    with _LOCK:  # Threads of a server may ask one model.
        if known is None or not known.holds(distinct):
            known = Inventory() if own is None else own
            known.look(distinct)
        return known.size()
