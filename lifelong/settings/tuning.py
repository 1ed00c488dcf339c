"""Which hyper-parameters are tuned while a stream is learned, over which values, and how one is chosen.

A grid is written as ``lr=0.01,0.1 penalty_weight=1,10,100``, or with ranges to sample from as ``lr=0.001..0.1``.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_origin

from annotated_types import Ge, Lt

from lifelong.settings.fields import Setting, check, expected, show_default

FORM = "KEY=VALUE,VALUE,... or KEY=LOW..HIGH, separated by spaces"

TUNING_KEYS: dict[str, Any] = {"grid": str, "tolerance": Annotated[float, Ge(0), Lt(1)], "trials": Annotated[int, Ge(0)]}
"""The keys of tuning, with their types; a grid may also be a dict."""

ABOUT_TUNING: dict[str, str] = {
    "grid": f"values to choose from for each task: {FORM}",
    "tolerance": "accuracy, in [0, 1), that may be given up: the first candidate at most this much below the best is chosen [default: 0]",
    "trials": "number of candidates per task, proposed by Optuna; 0: every combination [default: 0]",
}
"""One line per key, for help texts."""


@dataclass(frozen=True)
class Range:
    """A range of numbers to sample: integers uniformly, others log-uniformly (uniformly if the range starts at zero).

    Attributes:
        low, high: bounds, both included; integers for an integer setting.
    """

    low: int | float
    high: int | float

    def __str__(self) -> str:
        return f"{show_default(self.low)}..{show_default(self.high)}"


Values = tuple[Any, ...] | Range
"""The candidates for a setting."""


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """How hyper-parameters are tuned for each task on its validation images.

    Attributes:
        grid: settings of the method or of training with their values, in the order in which they are tried.
        tolerance: the first candidate whose validation accuracy is at most this much below the best is chosen.
        trials: candidates per task, proposed by Optuna; 0: every combination of the grid.
    """

    grid: tuple[tuple[str, Values], ...]
    tolerance: float = 0.0
    trials: int = 0

    @property
    def keys(self) -> tuple[str, ...]:
        """The settings that are tuned."""
        return tuple(key for key, _ in self.grid)

    def combinations(self) -> list[dict[str, Any]]:
        """List every combination of the values, the last key changing fastest; a range contributes its ends."""
        sets = [(values.low, values.high) if isinstance(values, Range) else values for _, values in self.grid]
        return [dict(zip(self.keys, chosen, strict=True)) for chosen in itertools.product(*sets)]

    def flat(self) -> dict[str, Any]:
        """Return the settings as JSON and TOML types."""
        return {"grid": " ".join(f"{key}={_text(values)}" for key, values in self.grid), "tolerance": self.tolerance, "trials": self.trials}


def _text(values: Values) -> str:
    return str(values) if isinstance(values, Range) else show_default(values)


def parts_of(given: Any) -> dict[str, Any]:
    """Split a grid into its keys, with underscores, and what was given for each.

    Args:
        given: a string, or a dict from keys to lists of values or to strings such as ``"0.001..0.1"``.

    Raises:
        ValueError: the grid is neither, is empty, or repeats a key.
    """
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, str):
        pairs = [_pair(word) for word in given.split()]
    else:
        raise ValueError(f"expected {FORM}")
    if not pairs:
        raise ValueError(f"the grid is empty; expected {FORM}")
    found: dict[str, Any] = {}
    for name, values in pairs:
        key = str(name).replace("-", "_")
        if key in found:
            raise ValueError(f"{key} is given twice")
        found[key] = values
    return found


def _pair(word: str) -> tuple[str, str]:
    key, sign, values = word.partition("=")
    if not (key and sign and values):
        raise ValueError(f"expected {FORM}, not '{word}'")
    return key, values


def values_of(item: Setting, given: Any) -> Values:
    """Parse the candidates for a setting.

    Args:
        item: the setting.
        given: a list of values, or a string such as ``0.01,0.1`` or ``0.001..0.1``.

    Raises:
        ValueError: the setting is not tunable, or a value is not valid.
    """
    if get_origin(item.hint) is tuple:
        raise ValueError(f"{item.name} is a list and cannot be tuned")
    if not item.tunable:
        raise ValueError(f"{item.name} cannot be tuned: it must be the same for all tasks, because the stored state depends on it")
    if isinstance(given, str) and ".." in given:
        return _range(item, *(_value(item, end) for end in given.split("..", 1)))
    listed = given.split(",") if isinstance(given, str) else list(given) if isinstance(given, (list, tuple)) else [given]
    values = tuple(_value(item, value) for value in listed)
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{item.name}: give at least one value, without repetition")
    return values


def _range(item: Setting, low: Any, high: Any) -> Range:
    if _kind(item.hint) not in (int, float):
        raise ValueError(f"{item.name}: a range needs a numeric setting; list the values, separated by commas")
    if not low < high:
        raise ValueError(f"{item.name}: the range {low:g}..{high:g} must be increasing")
    return Range(low, high)


def _value(item: Setting, given: Any) -> Any:
    try:
        return check(item.hint, _from_text(_kind(item.hint), given) if isinstance(given, str) else given)
    except ValueError as error:
        reason = str(error) if str(error).startswith("expected") else f"expected {expected(item.hint)}"
        raise ValueError(f"{item.name}={show_default(given)}: {reason}") from None


def _kind(hint: Any) -> Any:
    """Return a type without its range."""
    return hint.__origin__ if get_origin(hint) is Annotated else hint


def _from_text(kind: Any, text: str) -> Any:
    """Convert a value as typed.

    Raises:
        ValueError: the value is not of this type.
    """
    text = text.strip()
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    return text if kind is str or get_origin(kind) is Literal else kind(text)
