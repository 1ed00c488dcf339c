"""Executes the types and shapes that `lifelong` declares, at the price of beartype alone where no shape is declared.

jaxtyping's own hook checks the parameters and the result by two made functions, and binds the signature in every call: a third of the whole
suite's time, most of it in functions without any array. Shapes are checked in the first calls of a function in each test, and then in every
`SELDOM`th: a network's operations are called a hundred thousand times with the same few shapes.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping
from beartype import beartype

whole = jaxtyping.jaxtyped

ALWAYS = 20
"""Calls of a function with shapes that are all checked, from where they are counted anew."""

SELDOM = 200
"""Of how many later calls one is."""

CALLS: Counter[Callable[..., Any]] = Counter()
"""Calls of the functions with shapes; the fixtures clear it for each test."""


def install() -> None:
    """Check every function and dataclass of `lifelong` that is imported from now on."""
    jaxtyping.jaxtyped = jaxtyped  # by this name the hook's decorators find it
    jaxtyping.install_import_hook("lifelong", "beartype.beartype")


def jaxtyped(*block: str, typechecker: Any = None) -> Any:
    """Stand in for `jaxtyping.jaxtyped` in the decorators that the hook writes.

    Args:
        block: "context", where the library itself asks for a block with its own sizes: as jaxtyping gives it.
        typechecker: what jaxtyping would check with: beartype.
    """
    if block:
        return whole(*block)

    def decorate(target: Any) -> Any:
        if isinstance(target, type):
            if dataclasses.is_dataclass(target) and "__init__" in vars(target):
                target.__init__ = decorate(target.__init__)
            return target
        if target.__name__ == "__torch_function__":
            return target  # PyTorch calls it in each of its own calls
        hints = list(getattr(target, "__annotations__", {}).values())
        if any(isinstance(hint, str) for hint in hints):
            return whole(target, typechecker=typechecker)  # it knows which names are only for the type checker
        checked = beartype(target)
        return in_context(target, checked) if any(map(has_shape, hints)) else checked

    return decorate


def in_context(function: Callable[..., Any], checked: Callable[..., Any]) -> Callable[..., Any]:
    """Give each call that is checked its own sizes: an axis has one size in all parameters and the result."""

    @functools.wraps(checked)
    def call(*args: Any, **kwargs: Any) -> Any:
        CALLS[function] += 1
        if CALLS[function] > ALWAYS and CALLS[function] % SELDOM:
            return function(*args, **kwargs)
        with whole("context"):
            return checked(*args, **kwargs)

    return call


def has_shape(hint: Any) -> bool:
    """Whether an annotation declares an array's shape, anywhere in it."""
    if isinstance(hint, list | tuple):
        return any(map(has_shape, hint))
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(has_shape, get_args(hint)))
