"""See which modules have changed, without reading their weights.

PyTorch counts the changes of each tensor in place, and a module's tensors and submodules stand in dicts that can be compared by identity.
Looking at both takes a few microseconds a module; reading and hashing its weights takes a hundred times as long. Changes behind PyTorch's
back (`tensor.data`, NumPy views) are not counted: so a few modules are read all the same each time (`Watch.doubt`), and all of them
before a run ends.
"""

import hashlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from operator import attrgetter, is_
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor, nn

from lifelong.headers import at_rest, bytes_of

Modules = tuple[nn.Module, ...]
"""What answers for a task."""


_VERSION = attrgetter("_version")

COLUMNS = (1021, 1019)
"""Words of a row when a mark is made. Both are primes: values that trade places are in one column of both only if they are megabytes
apart."""

LARGE = 8 * max(COLUMNS)
"""Words of a tensor above which a mark takes sums."""


class _Layout:
    """Which tensors a module has, and where. It does not refer to the module itself.

    Args:
        module: the module.
    """

    def __init__(self, module: nn.Module) -> None:
        inner = list(module.modules())
        self._nested = [each._modules for each in inner]
        self._submodules = list(chain.from_iterable(map(dict.values, self._nested)))
        self._parameters = [each._parameters for each in inner]
        self._held = self._parameters + [each._buffers for each in inner]
        self.tensors = list(chain.from_iterable(map(dict.values, self._held)))
        self._counted = [tensor for tensor in self.tensors if tensor is not None and not tensor.is_inference()]
        found = chain.from_iterable(map(dict.values, self._parameters))
        self.parameters = {id(each): (each.numel(), each.nbytes) for each in found if each is not None}

    def current(self) -> bool:
        """Whether it is still so."""
        tensors = list(chain.from_iterable(map(dict.values, self._held)))
        submodules = list(chain.from_iterable(map(dict.values, self._nested)))
        return (
            len(tensors) == len(self.tensors)
            and len(submodules) == len(self._submodules)
            and all(map(is_, tensors, self.tensors))
            and all(map(is_, submodules, self._submodules))
        )

    def versions(self) -> list[int]:
        """Return the counts of changes of its tensors, as far as they are counted."""
        return list(map(_VERSION, self._counted))


_LAYOUTS: WeakKeyDictionary[nn.Module, _Layout] = WeakKeyDictionary()


class Settled:
    """What was counted of modules last, so that only new ones are counted the next time."""

    def __init__(self) -> None:
        self._layouts: list[_Layout] = []
        self._found: dict[int, tuple[int, int]] = {}

    def parameters(self, layouts: list[_Layout]) -> dict[int, tuple[int, int]]:
        """Return the parameters of some modules (see `distinct_parameters`)."""
        known = len(self._layouts)
        if len(layouts) < known or not all(map(is_, layouts, self._layouts)):
            known, self._found = 0, {}
        for layout in layouts[known:]:
            self._found |= layout.parameters
        self._layouts = layouts
        return self._found


_SETTLED: ContextVar[Settled | None] = ContextVar("settled", default=None)


@contextmanager
def settled(how: Settled) -> Generator[None]:
    """Enter a block in which no module gets or loses a tensor, so that it need not be looked for.

    Args:
        how: what was counted in an earlier block.
    """
    before = _SETTLED.set(how)
    try:
        yield
    finally:
        _SETTLED.reset(before)


def _layout(module: nn.Module) -> _Layout:
    known = _LAYOUTS.get(module)
    if known is None or (_SETTLED.get() is None and not known.current()):
        known = _LAYOUTS[module] = _Layout(module)
    return known


def distinct_parameters(modules: Iterable[nn.Module]) -> dict[int, tuple[int, int]]:
    """Return number of elements and bytes of each parameter of some modules, by its id: each once, however often it is shared."""
    layouts = [_layout(module) for module in {id(module): module for module in modules}.values()]
    return (_SETTLED.get() or Settled()).parameters(layouts)


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


class _Seen:
    """A module as it was last seen.

    Args:
        module: the module.
        serial: of its last change.

    Attributes:
        mark: of its values when its digest was made; None: not yet.
    """

    mark: bytes | None = None

    def __init__(self, module: nn.Module, serial: int) -> None:
        self.module, self.serial = module, serial
        self.layout = _layout(module)
        self._versions = self.layout.versions()

    def same(self) -> bool:
        """Whether it is still so."""
        return self.layout.current() and self.layout.versions() == self._versions


class Watch:
    """Knows the modules of a method, and which of them have changed.

    Attributes:
        trusting: whether changes are found by their counts; once one was missed, everything is read every time.
    """

    def __init__(self) -> None:
        self.trusting = True
        self._serial = 0
        self._seen: dict[int, _Seen] = {}
        self._digests: list[tuple[tuple[int, ...], str]] = []
        self._begun: dict[tuple[int, ...], Any] = {}
        self._next = 0

    def look(self, tasks: Sequence[Modules]) -> list[nn.Module]:
        """Look at the modules of all tasks; return those that are new or may have changed since the last look.

        Where one module of a task has changed, its others may have changed as well, behind PyTorch's back: they are read again, too. If it
        is merely new, as the head of a new task is, frozen ones are not.
        """
        changed: list[nn.Module] = []
        seen: dict[int, _Seen] = {}
        for module in chain.from_iterable(tasks):
            if id(module) in seen:
                continue
            known = self._seen.get(id(module))
            if known is None or known.module is not module or not self.trusting or not known.same():
                self._serial += 1
                known = _Seen(module, self._serial)
                changed.append(module)
            seen[id(module)] = known
        new = frozenset(map(id, changed))
        before = self._seen.keys()
        touched: dict[int, nn.Module] = {}
        for modules in tasks:
            if its_new := new.intersection(map(id, modules)):
                spared = its_new.isdisjoint(before)
                touched |= {id(module): module for module in modules if not (spared and is_frozen(module))}
        for module in touched.values():
            if id(module) not in new:
                self._serial += 1
                seen[id(module)] = _Seen(module, self._serial)
                changed.append(module)
        self._seen = seen
        return changed

    def serial(self, module: nn.Module) -> int | None:
        """Return the serial number of a module's last change that was seen; None for a module that is not of a task."""
        known = self._seen.get(id(module))
        return None if known is None else known.serial

    def digests(self, tasks: Sequence[Modules]) -> list[str]:
        """Return the digest of each task's modules, as `digest_of_modules`; to be called after `look`."""
        current = {known.serial for known in self._seen.values()}
        self._begun = begun = {key: digest for key, digest in self._begun.items() if current.issuperset(key)}
        for index, modules in enumerate(tasks):
            key = tuple(self._seen[id(module)].serial for module in modules)
            if index < len(self._digests) and self._digests[index][0] == key:
                continue
            self._digests[index : index + 1] = [(key, self._digest(modules, key, begun))]
            for known in (self._seen[id(module)] for module in modules):
                known.mark = known.mark or _mark(known.module)
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
        first, self._next = self._next, self._next + min(count, len(tasks))
        doubted = chain.from_iterable(tasks[index % len(tasks)] for index in range(first, self._next))
        if all(_mark(known.module) == known.mark for known in {id(module): self._seen[id(module)] for module in doubted}.values()):
            return False
        self.trusting = False
        self._digests = []
        return True


def kept_tensors(modules: Iterable[nn.Module]) -> Iterable[Tensor]:
    """Yield the tensors of modules that are saved."""
    return (tensor for module in modules for tensor in module.state_dict().values())
