"""Which hyper-parameters are chosen while a stream is learned, among which values, and how one is taken.

A grid is written as ``lr=0.01,0.1 penalty_weight=1,10,100``, or with ranges to draw from as ``lr=0.001..0.1``.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_origin

from annotated_types import Ge, Lt

from lifelong.settings.fields import Setting, check, expected, show_default

FORM = "KEY=VALUE,VALUE,... or KEY=LOW..HIGH, separated by spaces"

TUNING_KEYS: dict[str, Any] = {"grid": str, "tolerance": Annotated[float, Ge(0), Lt(1)], "trials": Annotated[int, Ge(0)]}
"""The keys of tuning, with their types; a grid may be a dict too."""

ABOUT_TUNING: dict[str, str] = {
    "grid": f"the values to choose from for each task: {FORM}",
    "tolerance": "take the first candidate that is at most this much less accurate than the best, in [0, 1) [default: 0]",
    "trials": "try this many candidates, proposed by Optuna, for each task; 0: every combination [default: 0]",
}
"""One line about each key, for help texts."""


@dataclass(frozen=True)
class Range:
    """Numbers to draw from: integers evenly, others evenly in their logarithm (evenly if they begin at zero).

    Attributes:
        low, high: both included; both integers for a setting that is one.
    """

    low: int | float
    high: int | float

    def __str__(self) -> str:
        return f"{show_default(self.low)}..{show_default(self.high)}"


Values = tuple[Any, ...] | Range
"""What a setting is chosen from."""


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """How hyper-parameters are chosen for each task by its validation images.

    Attributes:
        grid: settings of the method or of training with their values, in the order in which they are tried.
        tolerance: the first candidate is taken whose validation accuracy is at least the best one's less this.
        trials: candidates per task, proposed by Optuna; 0: every combination of the grid.
    """

    grid: tuple[tuple[str, Values], ...]
    tolerance: float = 0.0
    trials: int = 0

    @property
    def keys(self) -> tuple[str, ...]:
        """The settings that are chosen."""
        return tuple(key for key, _ in self.grid)

    def combinations(self) -> list[dict[str, Any]]:
        """Every combination of the values, the last key's changing fastest; of a range, its ends."""
        sets = [(values.low, values.high) if isinstance(values, Range) else values for _, values in self.grid]
        return [dict(zip(self.keys, chosen, strict=True)) for chosen in itertools.product(*sets)]

    def flat(self) -> dict[str, Any]:
        """As JSON and TOML know it."""
        return {"grid": " ".join(f"{key}={_text(values)}" for key, values in self.grid), "tolerance": self.tolerance, "trials": self.trials}


def _text(values: Values) -> str:
    return str(values) if isinstance(values, Range) else show_default(values)


def parts_of(given: Any) -> dict[str, Any]:
    """The keys of a grid, with underscores, and what was given for each.

    Args:
        given: a text, or a dict from keys to lists of values or to texts such as ``"0.001..0.1"``.

    Raises:
        ValueError: it is neither, or empty, or has a key twice.
    """
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, str):
        pairs = [_pair(word) for word in given.split()]
    else:
        raise ValueError(f"expected {FORM}")
    if not pairs:
        raise ValueError(f"names no setting; expected {FORM}")
    found: dict[str, Any] = {}
    for name, values in pairs:
        key = str(name).replace("-", "_")
        if key in found:
            raise ValueError(f"{key} stands there twice")
        found[key] = values
    return found


def _pair(word: str) -> tuple[str, str]:
    key, sign, values = word.partition("=")
    if not (key and sign and values):
        raise ValueError(f"expected {FORM}, not '{word}'")
    return key, values


def values_of(item: Setting, given: Any) -> Values:
    """The values to choose a setting from.

    Args:
        item: the setting.
        given: a list of values, or a text such as ``0.01,0.1`` or ``0.001..0.1``.

    Raises:
        ValueError: the setting cannot be chosen task by task, or a value is not accepted.
    """
    if get_origin(item.hint) is tuple:
        raise ValueError(f"{item.name} is a list itself, and cannot be tuned")
    if not item.tunable:
        raise ValueError(f"{item.name} must be the same for all tasks (what is kept of earlier ones depends on it), and cannot be tuned")
    if isinstance(given, str) and ".." in given:
        return _range(item, *(_value(item, end) for end in given.split("..", 1)))
    listed = given.split(",") if isinstance(given, str) else list(given) if isinstance(given, (list, tuple)) else [given]
    values = tuple(_value(item, value) for value in listed)
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{item.name}: give at least one value, and none twice")
    return values


def _range(item: Setting, low: Any, high: Any) -> Range:
    if _kind(item.hint) not in (int, float):
        raise ValueError(f"{item.name}: a range needs numbers; list its values, separated by commas")
    if not low < high:
        raise ValueError(f"{item.name}: the range {low:g}..{high:g} must rise")
    return Range(low, high)


def _value(item: Setting, given: Any) -> Any:
    try:
        return check(item.hint, _from_text(_kind(item.hint), given) if isinstance(given, str) else given)
    except ValueError as error:
        reason = str(error) if str(error).startswith("expected") else f"expected {expected(item.hint)}"
        raise ValueError(f"{item.name}={show_default(given)}: {reason}") from None


def _kind(hint: Any) -> Any:
    """A type without its range."""
    return hint.__origin__ if get_origin(hint) is Annotated else hint


def _from_text(kind: Any, text: str) -> Any:
    """A value as it was typed.

    Raises:
        ValueError: it is not of its kind.
    """
    text = text.strip()
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    return text if kind is str or get_origin(kind) is Literal else kind(text)
