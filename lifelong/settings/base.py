"""How a setting is declared: a typed, documented dataclass field that is config key, command-line flag and help at once."""

import dataclasses
from typing import Any


def setting(default: Any, text: str) -> Any:
    """A dataclass field with its documentation.

    Args:
        default: the value when nothing is given.
        text: what the setting does, with its unit or range: the help of its flag.
    """
    return dataclasses.field(default=default, metadata={"help": text})


def help_of(field: dataclasses.Field) -> str:
    """The documentation of a field that was made by `setting`."""
    return field.metadata.get("help", "")
