"""The fields of a settings class as data: what each accepts, and whether a value is valid."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from lifelong.errors import near_miss
from lifelong.opening import INTEGERS
from lifelong.registry import Registry
from lifelong.settings.base import help_of, tunable_of


@dataclass(frozen=True)
class Setting:
    """One hyper-parameter.

    Attributes:
        name: key; the flag is the same with dashes.
        hint: type, with its range (`Annotated`).
        default: value when none is given.
        help: what the setting does.
        tunable: whether it may differ between tasks.
    """

    name: str
    hint: Any
    default: Any
    help: str
    tunable: bool = True

    @property
    def flag(self) -> str:
        """The command-line flag of the setting."""
        return flag(self.name)


def flag(key: str) -> str:
    """Return the command-line flag of a key: ``batch_size`` is ``--batch-size``."""
    return "--" + key.replace("_", "-")


@cache  # Each configuration that is read asks for those of its values by name.
def settings_of(cls: type[Any]) -> MappingProxyType[str, Setting]:
    """Return the hyper-parameters of a settings class by name, in order of declaration."""
    hints = get_type_hints(cls, include_extras=True)
    found = {f.name: Setting(f.name, hints[f.name], f.default, help_of(f), _tunable(cls, f.name)) for f in dataclasses.fields(cls)}
    return MappingProxyType(found)


def _tunable(cls: type[Any], name: str) -> bool:
    """Tell whether every class that declares a setting makes it tunable: a subclass with another default does not change that."""
    declared = [base.__dataclass_fields__.get(name) for base in cls.__mro__ if dataclasses.is_dataclass(base)]
    return all(tunable_of(field) for field in declared if field is not None)


def as_lists(value: Any) -> Any:
    """Convert a value to JSON and TOML types: tuples become lists."""
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def show(value: Any) -> str:
    """Write a value as TOML: like JSON, except for one character that TOML requires escaped."""
    return json.dumps(as_lists(value), ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def show_default(value: Any) -> str:
    """Write a value as on the command line; an empty list is "none"."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(show_default, value)) or "none"
    return value if isinstance(value, str) else show(value)


@dataclass(frozen=True)
class Words:
    """What a type accepts, where that is best said in words of its own: ``Annotated[str, ..., Words("a text that is not empty")]``."""

    text: str


_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
_BOUNDS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}


def expected(hint: Any) -> str:
    """Describe what a type accepts, such as "an integer >= 1"."""
    if get_origin(hint) is Annotated and (said := [item.text for item in hint.__metadata__ if isinstance(item, Words)]):
        return said[0]
    if get_origin(hint) is Annotated and registry_of(hint) is not None:
        registry = registry_of(hint)
        assert registry is not None
        return "one of " + ", ".join(f"'{name}'" for name in [*registry, *(f"{prefix}:NAME" for prefix in registry.families)])
    if get_origin(hint) is Annotated:
        bounds = [f"{_BOUNDS[type(m)][0]} {getattr(m, _BOUNDS[type(m)][1])}" for m in hint.__metadata__ if type(m) in _BOUNDS]
        return " ".join([expected(hint.__origin__), " and ".join(bounds)]).rstrip()
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f"'{choice}'" for choice in get_args(hint))
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return f"a list{'' if kinds[-1] is ... else f' of {len(kinds)}'}, each {expected(kinds[0])}"
    return _WORDS.get(hint, str(hint))


def registry_of(hint: Any) -> Registry[Any] | None:
    """Return the registry that a type takes its names from (`Annotated[str, MEASURES]`), or None."""
    found = hint.__metadata__ if get_origin(hint) is Annotated else ()
    return next((item for item in found if isinstance(item, Registry)), None)


def check(hint: Any, value: Any) -> Any:
    """Check a value strictly against a type and its range: no string for a number, no ``true`` or 3.5 for an integer.

    Args:
        hint: the type; may be `Annotated` with bounds.
        value: the value to check. Integers count as numbers, and as the choice that is written so; lists count as tuples, and NumPy values
            as Python values.

    Returns:
        The value, converted to the type.

    Raises:
        ValueError: the value is not valid; the message says what is.
    """
    from pydantic import ValidationError

    value = unboxed(value)
    registry = registry_of(hint)
    if registry is not None:
        if value in registry:
            return value
        raise ValueError("expected " + expected(hint) + _suggestion(value, registry))
    if get_origin(hint) is Literal and type(value) is int and str(value) in get_args(hint):
        return str(value)
    if isinstance(value, str) and not value.isascii() and _torn(value):
        raise ValueError("expected valid UTF-8; rename the file")
    if isinstance(value, int) and value not in INTEGERS:
        raise ValueError(f"expected {expected(hint)}, of at most 64 bits")
    if isinstance(value, list) and get_origin(hint.__origin__ if get_origin(hint) is Annotated else hint) is tuple:
        value = tuple(value)
    try:
        return _adapter(hint).validate_python(value, strict=True)
    except ValidationError:
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        raise ValueError("expected " + expected(hint) + _suggestion(value, choices)) from None


# `Any`: what makes a value of a type, for any type; made once, since a stream of a thousand tasks has ten thousand values.
@cache
def _adapter(hint: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))


def _torn(text: str) -> bool:
    """Tell whether a string holds bytes that are not valid UTF-8, as file names can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def unboxed(value: Any) -> Any:
    """Convert NumPy numbers and arrays to Python numbers and lists; return anything else unchanged."""
    return value.tolist() if type(value).__module__ == "numpy" and hasattr(value, "tolist") else value


def _suggestion(value: Any, choices: Iterable[Any]) -> str:
    """Suggest the closest choice, if one is close."""
    text = near_miss(value, map(str, choices)) if isinstance(value, str) else ""
    return text if "did you mean" in text else ""
