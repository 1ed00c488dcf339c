"""Register things of one kind by name: those of this library, of a plugin file, and of installed packages.

Everything exchangeable (a measure, a regularizer, a network, an extractor) is in a registry. A setting that names one is declared with
its registry, which checks the value, writes the help and suggests the nearest name:

    measure: Annotated[str, MEASURES] = setting("prototype-kl", "...")
"""

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import isabstract
from typing import Any, Generic, TypeVar, cast

from lifelong.errors import LifelongError, near_miss
from lifelong.plugins import load_installed

NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
"""The form of a name."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Entry(Generic[Item]):
    """Something that is registered.

    Attributes:
        name: its name on the command line.
        item: what was registered; "module:name" of what is imported when it is asked for.
        summary: one line of what it is.
        source: its paper.
    """

    name: str
    item: Item | str
    summary: str
    source: str


class Registry(Generic[Item], Mapping[str, Item]):
    """The things of one kind, by name, in the order in which they were registered.

    Args:
        kind: what they are, as it stands in messages: "measure".
        built_in: those of this library.
        families: by a prefix, "module:name" of a function from what follows the prefix and a colon to the thing: "timm:resnet18".
    """

    def __init__(self, kind: str, *built_in: Entry[Item], families: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self.families = dict(families or {})
        self._entries = {entry.name: entry for entry in built_in}

    def register(self, name: str, item: Item, *, summary: str = "", source: str = "") -> None:
        """Register something under a name.

        Raises:
            LifelongError: the name is taken or invalid.
        """
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            raise LifelongError(f"{self.kind} {name!r}: its name must be letters, digits, '-' and '_', such as 'my-{self.kind}'")
        if name in self._entries:
            raise LifelongError(f"a {self.kind} named '{name}' is registered already; give it another name")
        self._entries[name] = Entry(name, item, summary, source)

    def register_class(self, name: str, given: object, base: type[Any], *, summary: str = "", source: str = "") -> None:
        """Make a class known by its name.

        Args:
            name: as for `register`.
            given: a subclass of `base` that has all its abstract methods, and is made without arguments.
            base: what the things of this kind are.
            summary: one line of what it is.
            source: its paper.

        Raises:
            LifelongError: the name is taken or is none, or the class is none or not complete.
        """
        abstract = [method for method in vars(base) if method in getattr(base, "__abstractmethods__", ())]
        whole = isinstance(given, type) and issubclass(given, base) and not isabstract(given)
        self.require(whole, given, f"a subclass of {base.__name__}" + (f" that has {' and '.join(abstract)}" if abstract else ""))
        self.register(name, cast("Item", given), summary=summary, source=source)

    def require(self, fits: bool, given: object, wanted: str) -> None:
        """Raise a `LifelongError` that says what to give, unless what was given fits."""
        if not fits:
            raise LifelongError(f"register_{self.kind}: {given!r}: give {wanted}")

    def entry(self, name: str) -> Entry[Item]:
        """Return what is registered under a name, with its summary and source.

        Raises:
            LifelongError: nothing has this name.
        """
        if name not in self._entries:
            load_installed()
        if name not in self._entries:
            own = " (one of your own: --plugin FILE.py, import its module, or install its package)"
            raise LifelongError(f"unknown {self.kind} '{name}'{near_miss(name, self._entries) or own}")
        return self._entries[name]

    def built_in(self, name: str) -> bool:
        """Return whether a name belongs to this library, and not to a family or a plugin."""
        return self._of_family(name) is None and isinstance(self.entry(name).item, str)

    def _of_family(self, name: str) -> tuple[str, str] | None:
        """Split "timm:resnet18" into the function of its family and the name there; None for other names."""
        prefix, _, member = name.partition(":")
        return (self.families[prefix], member) if member and prefix in self.families else None

    def __getitem__(self, name: str) -> Item:
        found = self._of_family(name)
        if found is not None:
            return _imported(found[0])(found[1])
        item = self.entry(name).item
        return _imported(item) if isinstance(item, str) else item

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        return name in self._entries or self._of_family(name) is not None or name in list(self)

    def __iter__(self) -> Iterator[str]:
        load_installed()
        return iter(self._entries)

    def __len__(self) -> int:
        load_installed()
        return len(self._entries)


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
