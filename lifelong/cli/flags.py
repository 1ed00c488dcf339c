"""The flags of the commands: hyper-parameters from the settings classes, comma-separated lists, common flags."""

import dataclasses
from collections.abc import Iterable, Sequence
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Group, Parameter

from lifelong.methods.registry import known_methods
from lifelong.settings.fields import Setting, check, expected, registry_of, settings_of, show_default
from lifelong.settings.training import TrainingSettings


def value_of(type_: Any, tokens: Sequence[Any]) -> Any:
    """Convert one value as typed: 3.5 is not an integer, and "none" is an ordinary word.

    Raises:
        ValueError: the value is not of the type.
    """
    kind = without_none(type_)
    text = tokens[0].value
    if get_origin(kind) is Literal:
        return check(kind, text)
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"expected {expected(kind)}, not '{text}'") from None


def comma_list(type_: Any, tokens: Sequence[Any]) -> list[Any]:
    """Split the values of a flag that takes several: separated by commas, by spaces, or both.

    Raises:
        ValueError: a part is not of the element's type.
    """
    element = get_args(without_none(type_))[0]
    parts = [part.strip() for token in tokens for part in token.value.split(",")]
    try:
        return [element(part) for part in parts if part]
    except ValueError:
        raise ValueError(f"expected a list, each {expected(element)}, not '{','.join(parts)}'") from None


LIST = Parameter(consume_multiple=True, converter=comma_list, negative_iterable="")
"""A flag that takes several values."""

ONE = Parameter(converter=value_of)
"""A flag that takes one value."""


def without_none(hint: Any) -> Any:
    """Return the type of an optional flag without None."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if get_origin(hint) in (Union, UnionType) and len(kinds) == 1 else hint


def _bare(hint: Any) -> Any:
    """Return a type without its range."""
    return hint.__origin__ if get_origin(hint) is Annotated else hint


def _list_of(element: type[Any]) -> Any:
    return GenericAlias(list, (element,))


def owners(methods: Iterable[str] | None = None) -> dict[str, dict[str, Setting]]:
    """Return the hyper-parameters of some methods, or of all, by key, then by method; a key that several methods share appears once."""
    table: dict[str, dict[str, Setting]] = {}
    for method in known_methods() if methods is None else methods:
        for name, item in settings_of(known_methods()[method].settings).items():
            table.setdefault(name, {})[method] = item
    return table


def _by_value(values: dict[str, str]) -> str:
    """Return "x" where all methods agree, else "par: x; lwf: y"."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    groups: dict[str, list[str]] = {}
    for method, value in values.items():
        groups.setdefault(value, []).append(method)
    return "; ".join(f"{', '.join(methods)}: {value}" for value, methods in groups.items())


def _hint(items: dict[str, Setting]) -> Any:
    """Return the type of a flag; a choice that methods share takes every value that any of them accepts."""
    hints = [item.hint for item in items.values()]
    named = [hint for hint in hints if registry_of(hint) is not None]
    if named:
        return named[0]
    if any(get_origin(hint) is not Literal for hint in hints):
        return hints[0]
    return Literal.__getitem__(tuple(dict.fromkeys(value for hint in hints for value in get_args(hint))))


def _field(name: str, items: dict[str, Setting], panel: Group) -> tuple[str, Any, Any]:
    """Make one field of the dataclass of flags; its range is checked with the rest of the configuration."""
    ranged = _hint(items)
    hint: Any = _bare(ranged)
    text = _by_value({method: item.help for method, item in items.items()})
    default = _by_value({method: show_default(item.default) for method, item in items.items()})
    accepts = f" ({expected(ranged)})" if get_origin(ranged) is Annotated else ""
    parameter = Parameter(help=f"{text}{accepts} [default: {default}]", group=panel, show_default=False)
    if get_origin(hint) is tuple:
        hint = _list_of(_bare(get_args(hint)[0]))
        parameter = Parameter.combine(parameter, LIST)
    elif hint is not bool:
        parameter = Parameter.combine(parameter, ONE)
    return name, Annotated[hint | None, parameter], dataclasses.field(default=None)


def make_flags(only: Iterable[str] | None = None, methods: Iterable[str] | None = None) -> type[Any]:
    """Make a dataclass with one optional field per hyper-parameter; None: not given.

    Args:
        only: keys of the hyper-parameters to have; None: all, those of training too.
        methods: names of the methods whose hyper-parameters to have; None: all.
    """
    wanted = None if only is None else set(only)
    # Settings of the requested methods come before those of every method.
    training = Group("Training (every method)", sort_key=3 + len(known_methods()) if methods else 1)
    fields = [_field(name, {"training": item}, training) for name, item in settings_of(TrainingSettings).items() if wanted is None]
    for name, items in owners(methods).items():
        if wanted is None or name in wanted:
            everyone = len(items) == len(known_methods())
            title = "every method" if everyone else ", ".join(items)
            fields.append(_field(name, items, Group(f"Hyper-parameters of {title}", sort_key=2 + len(known_methods()) - len(items))))
    # The class's module must be ours: cyclopts takes a class of the module "types" for a plain value.
    return dataclasses.make_dataclass("HyperParameters", fields, kw_only=True, frozen=True, namespace={"__module__": __name__})


def given(flags: Any) -> dict[str, Any]:
    """Return the hyper-parameters that were given, by key."""
    values = {} if flags is None else {field.name: getattr(flags, field.name) for field in dataclasses.fields(flags)}
    return {key: value for key, value in values.items() if value is not None}
