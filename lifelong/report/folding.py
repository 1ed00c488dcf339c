"""The settings of a run as the page shows them: those that differ from their defaults first, the others folded."""

from collections.abc import Mapping
from typing import Any

from lifelong.report.page import in_words
from lifelong.report.wording import clean
from lifelong.settings.defaults import defaults_of, split_defaults


def folded(method: str, values: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Split and format the settings of a run.

    Args:
        method: its name, by which the defaults are found.
        values: its settings.

    Returns:
        "changed", with the default after each value that has one, and "equal": names and values.
    """
    defaults = defaults_of(method)
    changed, equal = split_defaults(values, defaults)
    told = {key: f" (default: {in_words(defaults[key])})" if key in defaults else "" for key in changed}
    return {
        "changed": [(clean(key), in_words(value) + told[key]) for key, value in changed.items()],
        "equal": [(clean(key), in_words(value)) for key, value in equal.items()],
    }
