"""Public functions check their arguments against their annotations, as the command line checks its flags."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache, wraps
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le, Lt

from lifelong.errors import LifelongError, of_system
from lifelong.opening import unusable_name
from lifelong.settings.fields import check, expected, flag, unboxed

P = ParamSpec("P")
R = TypeVar("R")

Place = str | os.PathLike[str]
"""Path of a file or folder."""

Seed = Annotated[int, Ge(0), Lt(2**32)]
MOST_WORKERS = 1024
"""Largest number of parallel runs, each in its own process."""

MOST_THREADS = 1024
"""Largest number of CPU threads: many more than there are cores crash the process."""

Threads = Annotated[int, Ge(0), Le(MOST_THREADS)]
Seconds = Annotated[float, Ge(0)]
Workers = Annotated[int, Ge(1), Le(MOST_WORKERS)]
Share = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(0)]


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a function strictly against its annotations: types, choices and ranges.

    Numbers, strings, booleans, `Literal`, `Annotated` with bounds, paths, lists of these, mappings, callables, dataclasses and unions are
    checked; other annotations are not. NumPy numbers become Python numbers.

    Raises:
        LifelongError: on a call, an argument does not match its annotation; the message names the function, the argument and what is
            accepted.
        TypeError: it has no such argument, or lacks one; the message names the function.
    """
    signature = inspect.signature(function)
    name_of = getattr(function, "__qualname__", "call")
    known, own = name_of.removesuffix(".__init__"), name_of.rpartition(".")[2]
    method = next(iter(signature.parameters), "") == "self" and own != "__init__"

    @cache
    def hints() -> dict[str, Any]:
        try:
            return get_type_hints(function, include_extras=True)
        except NameError:  # a type imported for type checkers only; an annotation that names it cannot be checked here
            return {name: hint for name, hint in function.__annotations__.items() if not isinstance(hint, str)}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # Of a method the class that it was called on: that of the caller, not one that it inherits from.
        title = f"{type(args[0]).__name__}.{own}" if method and args else known
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{title}: {error}") from None
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if name in hints() and kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                bound.arguments[name] = argument(title, name, hints()[name], value)
        try:
            return function(*bound.args, **bound.kwargs)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise of_system(error) from error

    return call


@cache
def hints_of(cls: type[Any]) -> Mapping[str, Any]:
    """Return the annotations of a class with their ranges, by name."""
    return get_type_hints(cls, include_extras=True)


def argument(function: str, name: str, hint: Any, value: Any) -> Any:
    """Check one argument against its annotation.

    Args:
        function: whose argument it is, for the message; empty: it is a flag.
        name: of the argument.
        hint: its annotation.
        value: what was given.

    Raises:
        LifelongError: the argument does not match its annotation.
    """
    try:
        return hold(hint, value)
    except ValueError as error:
        place = f"{function}: {name} = {_shown(value)}" if function else f"{flag(name)} {_shown(value)}"
        raise LifelongError(f"{place}: {error}") from None


def hold(hint: Any, value: Any) -> Any:
    """Check a value against a type.

    Raises:
        ValueError: the type does not accept it; the message says what it accepts.
    """
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _one_of(get_args(hint), value)
    if hint is NoneType or hint is None:
        if value is not None:
            raise ValueError("expected None")
        return value
    if hint is os.PathLike or origin is os.PathLike:
        if not isinstance(value, os.PathLike):
            raise ValueError(f"expected {words(hint)}")
        return value
    if origin in (Sequence, list):
        return _each(hint, value)
    if origin in (Mapping, dict) or origin is Callable:
        if not (callable(value) if origin is Callable else isinstance(value, Mapping)):
            raise ValueError(f"expected {words(hint)}")
        return value
    if hint in (int, float, bool, str) or origin in (Annotated, Literal):
        return check(hint, value)
    if is_dataclass(hint) and isinstance(hint, type) and not isinstance(value, hint):
        raise ValueError(f"expected {words(hint)}")
    return value


def words(hint: Any) -> str:
    """Describe what a type accepts."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        # A string is also a path.
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        paths = any(kind is os.PathLike or get_origin(kind) is os.PathLike for kind in kinds)
        said = dict.fromkeys(words(kind) for kind in kinds if not (paths and kind is str))
        return " or ".join([*said, *(["None"] if NoneType in get_args(hint) else [])])
    if hint is os.PathLike or origin is os.PathLike:
        return "a path"
    if origin in (Sequence, list):
        return f"a list, each {words(get_args(hint)[0])}"
    if origin in (Mapping, dict):
        return "a dict"
    if origin is Callable:
        return "a function"
    if is_dataclass(hint):
        return f"{hint.__name__}(...)"
    return expected(hint) if hint in (int, float, bool, str) or origin in (Annotated, Literal) else getattr(hint, "__name__", str(hint))


def _one_of(kinds: Sequence[Any], value: Any) -> Any:
    reasons = []
    if os.PathLike in (get_origin(kind) or kind for kind in kinds) and isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
        if not text:
            raise ValueError("expected a path, not an empty one")
        if isinstance(text, str) and (why := unusable_name(text)):
            raise ValueError(f"expected a path; this one {why}")
    for kind in kinds:
        try:
            return hold(kind, value)
        except ValueError as error:
            reasons.append(str(error))
    others = [kind for kind in kinds if kind is not NoneType]
    # Of an optional type, its own message is the clearest: a near miss, the element of a list.
    raise ValueError(reasons[list(kinds).index(others[0])] if len(others) == 1 else f"expected {words(Union[tuple(kinds)])}")  # noqa: UP007


def _each(hint: Any, value: Any) -> list[Any]:
    """Check each element of a list against its type; a string does not count as a list."""
    value = unboxed(value)
    if isinstance(value, (str, bytes, PurePath, Mapping)) or not isinstance(value, Sequence):
        example = f"; write [{value!r}]" if isinstance(value, (str, int)) else ""
        raise ValueError(f"expected {words(hint)}{example}")
    element = get_args(hint)[0]
    try:
        return [hold(element, one) for one in value]
    except ValueError:
        raise ValueError(f"expected {words(hint)}") from None


def _shown(value: Any) -> str:
    """Show a value on one line, shortened to 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
