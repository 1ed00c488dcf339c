"""Consoles whose output never fails for its characters, whatever the encoding of the terminal, the pipe or the file behind it."""

import sys
from typing import Any

from rich.console import Console

PLAIN = str.maketrans({"±": "+-", "×": "x", "→": "->", "≤": "<=", "–": "-", "…": "...", "·": "-", "α": "alpha", "β": "beta", "─": "-"})
"""What stands for our own signs where they cannot be written; a question mark stands for anything else."""


def make_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console on stdout or stderr.

    Args:
        stderr: whether it is that one.
        width: in characters; None: the terminal's.
    """
    # A stream in all that rich asks of one.
    return Console(file=Tolerant("stderr" if stderr else "stdout"), width=width)  # ty: ignore[invalid-argument-type]


class Tolerant:
    """One of the process's standard streams, whichever object that is at the moment; what it cannot encode is replaced.

    Args:
        name: "stdout" or "stderr".
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, text: str) -> int:
        """Write text, if there is a stream at all."""
        stream = getattr(sys, self._name)
        if stream is None:
            return len(text)
        try:
            return stream.write(text)
        except UnicodeEncodeError:
            return stream.write(encodable(text, stream.encoding or "ascii"))

    def flush(self) -> None:
        """Flush the stream, if there is one."""
        if (stream := getattr(sys, self._name)) is not None:
            stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)


def encodable(text: str, encoding: str) -> str:
    """Replace characters that an encoding lacks."""
    kept = "".join(letter if _has(encoding, letter) else letter.translate(PLAIN) for letter in text)
    return kept.encode(encoding, "replace").decode(encoding)


def _has(encoding: str, letter: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
