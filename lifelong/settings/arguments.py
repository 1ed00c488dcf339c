"""Public functions check what they are given by their own annotations, as the command line checks its flags by theirs."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le, Lt

from lifelong.errors import LifelongError, of_system
from lifelong.opening import unusable_name
from lifelong.settings.fields import check, expected, unboxed

P = ParamSpec("P")
R = TypeVar("R")

Place = str | os.PathLike[str]
"""A file or a folder."""

Seed = Annotated[int, Ge(0), Lt(2**32)]
MOST_WORKERS = 1024
"""Runs at once, each in a process of its own."""

MOST_THREADS = 1024
"""Threads of a processor: many more than it has cores end the process."""

Threads = Annotated[int, Ge(0), Le(MOST_THREADS)]
Seconds = Annotated[float, Ge(0)]
Workers = Annotated[int, Ge(1), Le(MOST_WORKERS)]
Share = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(0)]


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Hold the arguments of a function against its annotations: types, choices and ranges, strictly.

    Checked are numbers, texts, truth values, `Literal`, `Annotated` with bounds, paths, lists of these, mappings, callables and unions;
    what is annotated otherwise passes. A number of numpy becomes one of Python.

    Raises:
        LifelongError: on a call, an argument is not what its annotation says; the line names the function, the argument and what is
            accepted.
    """
    signature = inspect.signature(function)
    title = getattr(function, "__qualname__", "call").removesuffix(".__init__")

    @cache
    def hints() -> dict[str, Any]:
        try:
            return get_type_hints(function, include_extras=True)
        except NameError:  # a type that is imported for type checkers alone; an annotation that names it says nothing here
            return {name: hint for name, hint in function.__annotations__.items() if not isinstance(hint, str)}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
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


def argument(function: str, name: str, hint: Any, value: Any) -> Any:
    """One argument, held against its annotation.

    Raises:
        LifelongError: it is not what the annotation says.
    """
    try:
        return hold(hint, value)
    except ValueError as error:
        raise LifelongError(f"{function}: {name} = {_shown(value)}: {error}") from None


def hold(hint: Any, value: Any) -> Any:
    """A value, held against a type.

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
    return value


def words(hint: Any) -> str:
    """What a type accepts, in words."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        # A text is a path, too.
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
    # Of one kind that may be absent its own words are the clearest: a near miss, the element of a list.
    raise ValueError(reasons[list(kinds).index(others[0])] if len(others) == 1 else f"expected {words(Union[tuple(kinds)])}")  # noqa: UP007


def _each(hint: Any, value: Any) -> list[Any]:
    """The elements of a list, each held against its type; a text is no list, whatever Python says of it."""
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
    """A value on one line, not too long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
