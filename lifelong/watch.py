"""See which modules have changed, without reading their weights.

Changes are found by PyTorch's counts and by identity (`lifelong.inventory`); reading and hashing the weights takes a hundred times as
long. Changes behind PyTorch's back (`tensor.data`, NumPy views) are not counted: so a few modules are read all the same each time
(`Watch.doubt`), and all of them before a run ends.
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from torch import Tensor, nn

from lifelong.headers import at_rest, bytes_of
from lifelong.inventory import Inventory

Modules = tuple[nn.Module, ...]
"""What answers for a task."""

COLUMNS = (1021, 1019)
"""Words of a row when a mark is made. Both are primes: values that trade places are in one column of both only if they are megabytes
apart."""

LARGE = 8 * max(COLUMNS)
"""Words of a tensor above which a mark takes sums."""


def digest_of_modules(modules: Iterable[nn.Module]) -> str:
    """Return a hash over all parameters and buffers of some modules, in order."""
    digest = hashlib.sha256()
    for module in modules:
        _update(digest, module)
    return digest.hexdigest()


def _update(digest: Any, module: nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(bytes_of(at_rest(tensor)))


def _mark(module: nn.Module) -> bytes:
    """Return a checksum of a module, ten times as fast as its digest: the sums of columns stand for what is large.

    Changes that cancel each other are not seen, so it is good against mistakes, and for nothing that is kept.
    """
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        content = bytes_of(at_rest(tensor))
        digest.update(name.encode())
        words = np.frombuffer(content, np.uint64, len(content) // 8)
        sums = 0
        for columns in COLUMNS if len(words) > LARGE else ():
            sums = len(words) // columns * columns
            digest.update(words[:sums].reshape(-1, columns).sum(0))
        digest.update(content[8 * sums :])
    return digest.digest()


def is_frozen(module: nn.Module) -> bool:
    """Tell whether nothing of a module is trained."""
    return not any(parameter.requires_grad for parameter in module.parameters())


class Watch:
    """Knows the modules of a method, and which of them have changed.

    Attributes:
        trusting: whether changes are found by their counts; once one was missed, everything is read every time.
        inventory: has the modules of the last look.
    """

    def __init__(self) -> None:
        self.trusting = True
        self.inventory = Inventory()
        self._serial = 0
        self._serials: dict[int, int] = {}
        self._digests: list[tuple[tuple[int, ...], str]] = []
        self._begun: dict[tuple[int, ...], Any] = {}
        # Of each module's values when its digest was made, by serial number.
        self._marks: dict[int, bytes] = {}
        self._next = 0

    def look(self, tasks: Sequence[Modules]) -> list[nn.Module]:
        """Look at the modules of all tasks; return those that are new or may have changed since the last look.

        Where one module of a task has changed, its others may have changed as well, behind PyTorch's back: they are read again, too, and
        named if they have. If it is merely new, as the head of a new task is, frozen ones are not.
        """
        modules = {id(module): module for module in chain.from_iterable(tasks)}
        found = self.inventory.look(list(modules.values()))
        changed = {id(module): module for module in (found if self.trusting else modules.values())}
        before, touched = self._serials.keys(), dict[int, nn.Module]()
        for its in [its for its in tasks if not changed.keys().isdisjoint(map(id, its))] if changed else ():
            spared = before.isdisjoint(changed.keys() & set(map(id, its)))
            touched |= {id(module): module for module in its if not (spared and is_frozen(module))}
        changed |= {key: module for key, module in touched.items() if key not in changed and not self._as_marked(module)}
        if len(before) + len(changed) > len(modules):
            self._serials = {key: serial for key, serial in self._serials.items() if key in modules}
        self._serials |= zip(changed, range(self._serial + 1, self._serial + 1 + len(changed)), strict=True)
        self._serial += len(changed)
        return list(changed.values())

    def _as_marked(self, module: nn.Module) -> bool:
        """Tell whether a module holds what it held when it was last marked."""
        known = self._marks.get(self._serials.get(id(module), 0))
        return known is not None and known == _mark(module)

    def serial(self, module: nn.Module) -> int | None:
        """Return the serial number of a module's last change that was seen; None for a module that is not of a task."""
        return self._serials.get(id(module))

    def _key(self, modules: Modules) -> tuple[int, ...]:
        return tuple(map(self._serials.__getitem__, map(id, modules)))

    def digests(self, tasks: Sequence[Modules]) -> list[str]:
        """Return the digest of each task's modules, as `digest_of_modules`; to be called after `look`."""
        current = set(self._serials.values())
        self._begun = begun = {key: digest for key, digest in self._begun.items() if current.issuperset(key)}
        self._marks = {serial: mark for serial, mark in self._marks.items() if serial in current}
        for index, modules in enumerate(tasks):
            key = self._key(modules)
            if index < len(self._digests) and self._digests[index][0] == key:
                continue
            self._digests[index : index + 1] = [(key, self._digest(modules, key, begun))]
            self._marks |= {serial: _mark(module) for serial, module in zip(key, modules, strict=True) if serial not in self._marks}
        del self._digests[len(tasks) :]
        return [digest for _, digest in self._digests]

    @staticmethod
    def _digest(modules: Modules, key: tuple[int, ...], begun: dict[tuple[int, ...], Any]) -> str:
        """Return the digest of modules; what tasks begin with in common, such as a frozen network, is read once."""
        digest = hashlib.sha256()
        for number, module in enumerate(modules, 1):
            known = begun.get(key[:number])
            if known is not None:
                digest = known.copy()
                continue
            _update(digest, module)
            if number < len(modules):
                begun[key[:number]] = digest.copy()
        return digest.hexdigest()

    def doubt(self, tasks: Sequence[Modules], count: int) -> bool:
        """Read the modules of so many tasks, others each time; return whether a change had been missed, and then trust no count any more.

        To be called after `digests`, whose last answer is then not to be used.
        """
        places = [(self._next + number) % len(tasks) for number in range(min(count, len(tasks)))]
        self._next = places[-1] + 1 if places else 0
        doubted = {id(module): module for place in places for module in tasks[place]}
        if all(_mark(module) == self._marks[self._serials[key]] for key, module in doubted.items()):
            return False
        self.trusting = False
        self._digests = []
        return True


def kept_tensors(modules: Iterable[nn.Module]) -> Iterable[Tensor]:
    """Yield the tensors of modules that are saved."""
    return (tensor for module in modules for tensor in module.state_dict().values())
