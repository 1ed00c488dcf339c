"""Validation of a tree of tensors and plain values against a type, before anything is built from it."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import jaxtyped
from torch import Tensor, nn

from lifelong.settings.fields import expected
from lifelong.storage import Tree
from lifelong.trees import Weights

PLAIN = (bool, int, float, str)
"""Types without bounds: of one of these, a value has nothing more to hold."""


class MisfitError(ValueError):
    """A tree does not match its form; the message says where and what was expected."""


# `Any`: Python has no type for a form such as `int | None` or `Annotated[...]`.
def hold_tree(form: Any, tree: Tree, where: str = "") -> None:
    """Check that a tree matches a form.

    Args:
        form: a type: int, float, str, bool, numbers with bounds (`Annotated`: they are finite, too), None, unions, `Literal`, lists,
            tuples, dicts, a `TypedDict`, or a tensor as jaxtyping writes it (its numbers must be finite).
        tree: the tree, as read.
        where: its position, for the message.

    Raises:
        MisfitError: it does not match.
    """
    if type(tree) is form and form in PLAIN:
        return
    kind, parts = _read(form)
    match kind:
        case "any":
            return
        case "keys":
            _hold_keys(form, tree, where)
        case "one of":
            _hold_one_of(parts, tree, where)
        case "dict":
            _require(isinstance(tree, dict), where, "a dict", tree)
            if parts == (str, Tensor) and _usual_weights(tree):
                return
            for key, value in tree.items():
                if type(key) is not parts[0]:
                    hold_tree(parts[0], key, f"a key of {where}")
                hold_tree(parts[1], value, f"{where}/{key}")
        case "list" | "tuple of any length":
            container = list if kind == "list" else tuple
            _require(type(tree) is container, where, f"a {container.__name__}", tree)
            if not _all_numbers(parts[0], tree):
                for place, value in enumerate(tree):
                    hold_tree(parts[0], value, f"{where}/{place}")
        case "tuple":
            _require(type(tree) is tuple and len(tree) == len(parts), where, f"a tuple of {len(parts)}", tree)
            for place, (part, value) in enumerate(zip(parts, tree, strict=True)):
                hold_tree(part, value, f"{where}/{place}")
        case "nothing":
            _require(tree is None, where, "nothing", tree)
        case "tensor":
            _hold_tensor(form, tree, where)
        case _:
            _hold_value(form, tree, where)


_READ: dict[int, tuple[Any, tuple[str, tuple[Any, ...]]]] = {}
"""What is known of forms, by their ids; each with its form, so that no other gets its id."""


# `Any`: as of `hold_tree`.
def _read(form: Any) -> tuple[str, tuple[Any, ...]]:
    """Return of which kind a form is, and what it consists of."""
    known = _READ.get(id(form))
    if known is None:
        known = _READ[id(form)] = form, (_kind_of(form), get_args(form))
    return known[1]


# `Any`: as of `hold_tree`.
def _kind_of(form: Any) -> str:
    origin = get_origin(form)
    if form is Any:
        return "any"
    if is_typeddict(form):
        return "keys"
    if origin in (Union, UnionType):
        return "one of"
    if origin is tuple and get_args(form)[-1] is Ellipsis:
        return "tuple of any length"
    if origin in (dict, list, tuple):
        return origin.__name__
    if form in (None, NoneType):
        return "nothing"
    return "tensor" if form is Tensor or hasattr(form, "array_type") else "value"


@cache
def _hints(form: Any) -> dict[str, Any]:
    return get_type_hints(form, include_extras=True)


def _hold_keys(form: Any, tree: Tree, where: str) -> None:
    """Check a dict with known keys."""
    _require(isinstance(tree, dict), where, "a dict", tree)
    hints = {key: get_args(hint)[0] if get_origin(hint) is NotRequired else hint for key, hint in _hints(form).items()}
    missing = [key for key in form.__required_keys__ if key not in tree]
    unknown = [key for key in tree if key not in hints]
    if missing or unknown:
        raise MisfitError(f"{where or 'it'}: " + (f"'{missing[0]}' is missing" if missing else f"{unknown[0]!r} is not known"))
    for key, value in tree.items():
        hold_tree(hints[key], value, f"{where}/{key}")


def _hold_one_of(forms: tuple[Any, ...], tree: Tree, where: str) -> None:
    if type(tree) in forms and type(tree) in PLAIN:
        return None
    failures = []
    for form in forms:
        try:
            return hold_tree(form, tree, where)
        except MisfitError as error:
            failures.append(error)
    # For an optional value, the error of the first form is the informative one.
    raise failures[0]


def _hold_tensor(form: Any, tree: Tree, where: str) -> None:
    if form is Tensor:
        fits = isinstance(tree, Tensor)
    else:
        with jaxtyped("context"):  # a caller whose shapes are executed may have sizes of its own under the same names
            fits = isinstance(tree, form)
    _require(fits and not tree.is_complex(), where, "a tensor" if form is Tensor else _words(form), tree)
    _require(bool(torch.isfinite(tree).all()), where, "numbers that are finite", tree)
    # Integers among weights are counts.
    counts = form is Tensor and not tree.is_floating_point()
    _require(not counts or bool((tree >= 0).all()), where, "counts, which are not negative", tree)


def _usual_weights(tree: Mapping[Any, Any]) -> bool:
    """Tell whether a dict holds tensors by names, as a module's weights are: finite floats, and counts. All are looked at together."""
    if {*map(type, tree)} != {str} or {*map(type, tree.values())} != {Tensor} or len({tensor.device for tensor in tree.values()}) > 1:
        return False
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tree.values():
        by_type.setdefault(tensor.dtype, []).append(tensor.flatten())
    if any(dtype.is_complex for dtype in by_type):
        return False
    joined = {dtype: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for dtype, tensors in by_type.items()}
    return all(bool((found.isfinite() if dtype.is_floating_point else found >= 0).all()) for dtype, found in joined.items())


def _hold_value(form: Any, tree: Tree, where: str) -> None:
    """Check a number, a string, a boolean or a choice."""
    kind, bounds = _kind(form)
    if get_origin(kind) is Literal:
        fits = isinstance(tree, str) and tree in get_args(kind)
    else:
        fits = isinstance(tree, (int, float) if kind is float else kind) and isinstance(tree, bool) == (kind is bool)
    if not (fits and all(_within(bound, tree) for bound in bounds)):
        _require(False, where, expected(form), tree)


def _kind(form: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the type of a value, and its bounds."""
    return (get_args(form)[0], form.__metadata__) if get_origin(form) is Annotated else (form, ())


def _all_numbers(form: Any, values: Sequence[Tree]) -> bool:
    """Tell whether all values are numbers as a form wants them: of long lists, looking at each by itself takes seconds."""
    kind, bounds = _kind(form)
    kinds = {int, float} if kind is float else {int} if kind is int else set()
    if not kinds.issuperset(map(type, values)):
        return False
    if not bounds or not values:
        return True
    ends = min(values), max(values)
    return all(map(math.isfinite, values)) and all(_within(bound, end) for bound in bounds for end in ends)


def _within(bound: object, value: Any) -> bool:
    """Tell whether a number is finite and within a bound."""
    if not math.isfinite(value):
        return False
    match bound:
        case Ge():
            return value >= bound.ge
        case Gt():
            return value > bound.gt
        case Le():
            return value <= bound.le
    return True


def same_form(
    one: Tree, other: Tree, where: str = "", made_of: Callable[[nn.Module, object], bool] = lambda module, weights: False
) -> None:
    """Check that another tree has everything that a tree has: containers, keys, kinds of values, shapes of tensors.

    Floats may have another width, as when the tree was written under another default dtype.

    Args:
        one: the tree.
        other: the other one.
        where: their position, for the message.
        made_of: tells whether a module is known to have the form of these weights.

    Raises:
        MisfitError: it does not.
    """
    if isinstance(other, Weights):
        if made_of(other.module, one):
            return
        other = other.read()
    if isinstance(one, Tensor):
        alike = isinstance(other, Tensor) and one.shape == other.shape and _category(one) == _category(other)
        _require(alike, where, f"shape {tuple(other.shape)} of {other.dtype}" if isinstance(other, Tensor) else "no tensor", one)
    elif isinstance(one, Mapping):
        _require(isinstance(other, Mapping), where, _words(type(other)), one)
        for key, value in one.items():
            _require(key in other, where, "no such key", key)
            same_form(value, other[key], f"{where}/{key}", made_of)
    elif isinstance(one, (list, tuple)):
        _require(isinstance(other, (list, tuple)) and len(one) == len(other), where, _words(type(other)), one)
        for place, (value, theirs) in enumerate(zip(one, other, strict=True)):
            same_form(value, theirs, f"{where}/{place}", made_of)
    else:
        _require(type(one) is type(other) and (one == other), where, _shown(other), one)


def _category(tensor: Tensor) -> str:
    return "float" if tensor.is_floating_point() else str(tensor.dtype)


def _require(holds: bool, where: str, expected: str, found: Tree) -> None:
    if not holds:
        raise MisfitError(f"{where or 'it'}: {_shown(found)}, expected {expected}")


def _words(form: Any) -> str:
    return str(getattr(form, "__name__", form)).replace("Tensor, ", "")


def _shown(value: Tree) -> str:
    """Describe a value in a few words."""
    if isinstance(value, Tensor):
        shape = f"shape {tuple(value.shape)}" if value.ndim <= 8 else f"{value.ndim} dimensions"
        return f"a tensor of {shape} and {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, (dict, list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."
