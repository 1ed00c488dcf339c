"""Run a command line and return its exit code.

0: done; 1: damaged (verify); 2: bad input (one line); 130 and 143: stopped by Ctrl-C and SIGTERM; 141: nobody reads its output.
"""

import importlib
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from cyclopts import App, CycloptsError
from cyclopts.exceptions import MissingArgumentError, UnknownCommandError, UnknownOptionError, UnusedCliTokensError

from lifelong.cli import commands, completion, publish, reproduce, serve, sweep, transfer, use, versions
from lifelong.cli.help import with_help
from lifelong.cli.meant import meant_flag
from lifelong.errors import OUT_OF_MEMORY, LifelongError, of_system, one_line
from lifelong.experiment.console import BROKEN_PIPE, discard, make_console
from lifelong.methods.registry import known_methods
from lifelong.opening import unusable_name
from lifelong.plugins import load_plugin

BAD_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
CONTINUED = frozenset(("run", "tune", "compare", "learn", "reproduce", "sweep", "transfer"))
"""The commands that continue where they were stopped."""


class Terminated(KeyboardInterrupt):
    """SIGTERM was received."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after the program name; None: those of this process.

    Returns:
        The exit code. An unexpected error is a bug and is raised with its traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    code: Any = None
    try:
        with _stop_on_sigterm():
            # A new console for each call: cyclopts caches one, with the width it first had.
            words = _with_plugins(_usable(words))
            app = with_help(_app(), words)
            code = app(words, console=make_console(), exit_on_error=False, print_error=False, verbose=False, result_action="return_value")
        if sys.stdout is not None:  # It is None where it was closed when the process began.
            sys.stdout.flush()
    except CycloptsError as error:
        return _say(_explain(error, words), BAD_INPUT)
    except LifelongError as error:
        return _say(str(error), BAD_INPUT)
    except MemoryError:
        return _say(OUT_OF_MEMORY, BAD_INPUT)
    except KeyboardInterrupt as stop:
        again = "; the same command continues" if CONTINUED.intersection(words[:1]) else ""
        return _say(f"stopped{again}", TERMINATED if isinstance(stop, Terminated) else INTERRUPTED)
    except BrokenPipeError:
        discard(sys.stdout)
        return BROKEN_PIPE
    except OSError as error:
        return _say(str(of_system(error)), BAD_INPUT)
    return code if isinstance(code, int) else 0


def _usable(words: list[str]) -> list[str]:
    """Check that no word is empty or unusable: as a path, an empty word would be the current folder."""
    for before, word in zip(["lifelong", *words], words, strict=False):
        if not word.strip():
            raise LifelongError(f"'{before}' is followed by an empty value; give one")
        why = unusable_name(word)
        if why:
            raise LifelongError(f"'{word}' {why}; use another")
    return words


def _with_plugins(words: Sequence[str]) -> list[str]:
    """Load the files of --plugin, which any command takes, and return the other words."""
    rest, left = [], iter(words)
    for word in left:
        flag, sign, value = word.partition("=")
        if flag != "--plugin":
            rest.append(word)
            continue
        file = value if sign else next(left, "")
        if not file:
            raise LifelongError("--plugin needs a value: a Python file that registers your own methods")
        load_plugin(Path(file))
    return rest


def _app() -> App:
    """Return the commands, with a flag for every setting of every registered method."""
    if frozenset(known_methods()) != commands.KNOWN:
        for module in (commands, use, reproduce, sweep, transfer, serve, publish, versions, completion):
            importlib.reload(module)
    return commands.app


def _say(text: str, code: int) -> int:
    """Print one line on stderr and return the exit code."""
    print(f"lifelong: {' '.join(one_line(text).split())}", file=sys.stderr)
    return code


def _explain(error: CycloptsError, words: Sequence[str]) -> str:
    """Explain in one line why the command line could not be parsed."""
    command = " ".join(error.command_chain or [])
    help_ = f"see: {' '.join(filter(None, ('lifelong', command, '--help')))}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{error.keyword or error.argument.name} needs a value; {help_}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected '{error.unused_tokens[0]}'; {help_}"
    if isinstance(error, UnknownCommandError) and words[0].startswith("-"):
        return f"unknown flag {words[0]}; {help_}"
    if isinstance(error, UnknownOptionError):
        flag = error.token.keyword or error.token.value
        known = [name for argument in error.argument_collection for name in argument.names if name.startswith("--")]
        meant = meant_flag(flag, known)
        return f"unknown flag {flag}; " + (f"did you mean {meant}?" if meant else help_)
    return str(error).strip().rstrip(".")


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


@contextmanager
def _stop_on_sigterm() -> Generator[None, None, None]:
    """Make SIGTERM end the work like Ctrl-C, with clean-up. Only the main thread can handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
