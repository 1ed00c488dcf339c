"""Consoles that can print any character, whatever the encoding of the terminal, pipe or file that they write to."""

import os
import sys
from typing import Any, NoReturn

from rich.console import Console

PLAIN = str.maketrans({"±": "+-", "×": "x", "→": "->", "≤": "<=", "–": "-", "…": "...", "·": "-", "α": "alpha", "β": "beta", "─": "-"})
"""Replacements for our own symbols where they cannot be encoded; anything else becomes a question mark."""


BROKEN_PIPE = 128 + 13
"""The exit code of a process whose output nobody reads any more: that of SIGPIPE, which Windows does not have."""

WIDTH = 120
"""Characters of a line of results where there is no terminal."""


def make_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console on stdout or stderr.

    Args:
        stderr: use stderr instead of stdout.
        width: width in characters; None: the terminal's.
    """
    # It has everything that rich needs of a stream.
    return _Console(file=Tolerant("stderr" if stderr else "stdout"), width=width)  # ty: ignore[invalid-argument-type]


def result_console() -> Console:
    """Return a console on stdout for results: as wide as the terminal, or `WIDTH` where there is none."""
    return make_console(width=None if sys.stdout is not None and sys.stdout.isatty() else WIDTH)


def discard(stream: Any) -> None:
    """Let a stream whose reader is gone lead nowhere: the interpreter's last flush must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Console(Console):
    """Ends the process as SIGPIPE would where its reader is gone; the exit code of rich has another meaning here."""

    def on_broken_pipe(self) -> NoReturn:
        """See `rich.console.Console.on_broken_pipe`."""
        self.quiet = True
        discard(self.file)
        raise SystemExit(BROKEN_PIPE)


class Tolerant:
    """Writes to one of the process's current standard streams, and replaces what it cannot encode.

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
