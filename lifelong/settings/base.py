"""How a setting is declared: a typed, documented dataclass field that is config key, command-line flag and help at once."""

import dataclasses
from typing import Any


def setting(default: Any, text: str, *, tunable: bool = True) -> Any:
    """A dataclass field with its documentation.

    Args:
        default: the value when nothing is given.
        text: what the setting does, with its unit or range: the help of its flag.
        tunable: whether it may differ from task to task. False for what the networks' shapes, the form of the saved state or the
            answers for earlier tasks depend on: a method must be able to load its state, and to answer as before, under any
            other value of a tunable setting.
    """
    return dataclasses.field(default=default, metadata={"help": text, "tunable": tunable})


def help_of(field: dataclasses.Field) -> str:
    """The documentation of a field that was made by `setting`."""
    return field.metadata.get("help", "")


def tunable_of(field: dataclasses.Field) -> bool:
    """Whether a field that was made by `setting` may differ from task to task."""
    return field.metadata.get("tunable", True)
