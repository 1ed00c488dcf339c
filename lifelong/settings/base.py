"""How a setting is declared: a typed, documented dataclass field that is config key, command-line flag and help at once."""

import dataclasses
from typing import Any


def setting(default: Any, text: str, *, tunable: bool = True) -> Any:
    """Make a dataclass field with its documentation.

    Args:
        default: the value when none is given.
        text: what the setting does, with its unit or range: the help of its flag, complete without the flag's name.
        tunable: whether it may differ between tasks. False if network shapes, the format of the saved state or the predictions
            for earlier tasks depend on it: a method must load its state and predict as before under any other value of a
            tunable setting.
    """
    return dataclasses.field(default=default, metadata={"help": text, "tunable": tunable})


def help_of(field: dataclasses.Field) -> str:
    """Return the documentation of a field made by `setting`."""
    return field.metadata.get("help", "")


def tunable_of(field: dataclasses.Field) -> bool:
    """Tell whether a field made by `setting` may differ between tasks."""
    return field.metadata.get("tunable", True)
