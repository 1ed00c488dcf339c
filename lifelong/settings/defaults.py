"""The defaults of every registered method's settings, for readers of results, which do not import methods."""

from collections.abc import Mapping
from typing import Any

from lifelong.settings.fields import as_lists, settings_of
from lifelong.settings.training import TrainingSettings

SETTINGS: dict[str, type[Any]] = {}
"""The settings class of each registered method, by the method's name; the registry of methods fills it."""


def defaults_of(method: str) -> dict[str, Any]:
    """Return the default of every setting of a method and of training, as JSON and TOML types.

    Args:
        method: its name.

    Returns:
        Defaults by key; empty for a method that is not registered in this process.
    """
    if method not in SETTINGS:
        return {}
    known = settings_of(TrainingSettings) | settings_of(SETTINGS[method])
    return {key: as_lists(item.default) for key, item in known.items()}


def split_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split settings into those that differ from their defaults, or have none, and those that equal them."""
    equal = {key: value for key, value in values.items() if key in defaults and as_lists(value) == defaults[key]}
    return {key: value for key, value in values.items() if key not in equal}, equal
