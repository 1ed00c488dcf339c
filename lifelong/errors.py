"""Errors that a user can fix: one clear line that says what, where and what to do."""

import difflib
import errno
from collections.abc import Iterable


class ConformanceError(AssertionError):
    """A user's extension (a method, a measure, ...) breaks the contract of its kind."""


def require(holds: bool, broken: str) -> None:
    """Raise a `ConformanceError` that says what is broken, unless something holds."""
    if not holds:
        raise ConformanceError(broken)


def one_line(text: str) -> str:
    """Put text that may come from data on one line: line ends become spaces, other control characters question marks."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)


OUT_OF_MEMORY = "out of memory; use smaller images, a smaller --batch-size or --init-channels, or fewer --workers"


class LifelongError(Exception):
    """Trouble with an input, a setting, a file or a disk; never a bug of the library.

    The message is one line: what is wrong, where, and what to do about it. The command line prints it and exits with code 2.

    Args:
        message: the line; names in it may come from data (see `one_line`).
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


def of_system(error: OSError) -> LifelongError:
    """Turn a system error about a file into one line: names that are too long, folders without permission, failing disks."""
    name = str(error.filename or "")
    place = name if len(name) <= _LONG else f"{name[: _LONG // 2]}...{name[-_LONG // 2 :]}"
    # A stream of the process has no name of a file.
    what = place or ("cannot write the output" if error.errno in _FULL else "cannot read or write")
    otherwise = "give another path, or make this one readable" if place else "check the disk, and where the output goes"
    return LifelongError(f"{what}: {error.strerror or error}; {remedy(error, otherwise)}")


def remedy(error: Exception, otherwise: str) -> str:
    """Return what to do about a system error: free space if the disk is full, else what is given."""
    return "free space there" if getattr(error, "errno", None) in _FULL else otherwise


_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_LONG = 120


class DivergedError(LifelongError):
    """A loss became NaN or infinite: other hyper-parameters may do better.

    Args:
        message: one line.
        epoch: the epoch in which it happened, from 1.
    """

    def __init__(self, message: str, epoch: int) -> None:
        super().__init__(message)
        self.epoch = epoch


class DamagedError(LifelongError):
    """A file of a run is not as it was written: its content does not match its digest, or cannot be read at all."""


class ForeignError(DamagedError):
    """A file of a run is intact, but belongs to another run or to another place in this one."""


class TakenError(LifelongError):
    """Another process works on the same run at this moment; it can be waited for."""


class MissingDataError(LifelongError):
    """The images of a source are not on this machine.

    Args:
        source: its name.
        why: where they were looked for, and what to do; the end of the line.
    """

    def __init__(self, source: str, why: str) -> None:
        super().__init__(f"no images for source '{source}': {why}")
        self.source = source


def near_miss(word: str, known: Iterable[str]) -> str:
    """Word the end of an error line about an unknown name: the closest known name if there is one, else all of them.

    Args:
        word: what was given.
        known: what could have been given.

    Returns:
        For example ``"; did you mean 'digits'?"`` or ``"; known: cifar100-10, digits"``.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""
