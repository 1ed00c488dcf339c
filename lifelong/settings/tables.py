"""Read a TOML table into a dataclass: its annotations say what each key accepts, as those of a settings class do."""

import dataclasses
import difflib
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lifelong.errors import LifelongError, near_miss
from lifelong.settings.fields import check, expected, show

T = TypeVar("T")

_LONG = 80  # characters of a value in an error line


def read_table(cls: type[T], values: Mapping[str, object], where: str = "") -> T:
    """Read a table; every error names the table, the key and the value.

    Args:
        cls: a dataclass. A field with a default may be absent; one whose annotation is a dataclass is a table within the table. None
            in an annotation stands for an absent key: TOML has no such value.
        values: the table.
        where: what the table is called in messages; empty for the whole file.

    Raises:
        LifelongError: a key is missing or unknown, or a value is not accepted.
    """
    at = f"{where}, " if where else ""
    hints = get_type_hints(cls, include_extras=True)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # ty: ignore[invalid-argument-type]
        if field.name in values:
            given[field.name] = _value(hints[field.name], values[field.name], f"{at}{field.name}")
        elif field.default is dataclasses.MISSING:
            close = difflib.get_close_matches(field.name, [key for key in values if key not in hints], n=1)
            remedy = f"is '{close[0]}' meant to be it?" if close else "add it"
            raise LifelongError(f"{at}the key '{field.name}' is missing; {remedy}")
    for key in values:
        if key not in hints:
            raise LifelongError(f"{at}unknown key '{key}'{near_miss(key, hints)}")
    return cls(**given)


def _value(hint: Any, value: object, where: str) -> Any:
    kinds = _kinds(hint)
    if isinstance(value, dict):
        for kind in kinds:
            if dataclasses.is_dataclass(kind):
                return read_table(kind, value, where)
    for kind in kinds:
        if dataclasses.is_dataclass(kind):
            continue
        try:
            return check(kind, value)
        except ValueError:
            continue
    shown = show(value)
    shown = shown if len(shown) <= _LONG else f"{shown[: _LONG - 3]}..."
    raise LifelongError(f"{where} = {shown}: expected {_words(hint)}{_meant(kinds, value)}")


def _kinds(hint: Any) -> list[Any]:
    """Return the types that a union is of, whether or not it has words of its own; any other type alone."""
    inner = hint.__origin__ if get_origin(hint) is Annotated else hint
    if get_origin(inner) not in (Union, UnionType):
        return [] if hint is NoneType else [hint]
    return [kind for part in get_args(inner) for kind in _kinds(part)]


def _words(hint: Any) -> str:
    """Return what a type accepts, in words; of a union with None, what else it accepts."""
    if dataclasses.is_dataclass(hint):
        return "a table with " + ", ".join(field.name for field in dataclasses.fields(hint))
    if get_origin(hint) in (Union, UnionType):
        return ", or ".join(_words(kind) for kind in get_args(hint) if kind is not NoneType)
    return expected(hint)


def _meant(kinds: list[Any], value: object) -> str:
    """Return the near miss among the words that are accepted, if there is one."""
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    text = near_miss(value, choices) if isinstance(value, str) else ""
    return text if "did you mean" in text else ""
