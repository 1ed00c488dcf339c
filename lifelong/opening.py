"""Open files that may come from others: only regular files of a bounded size, and no links where we write or delete.

A folder of images or of a run can come from an untrusted source. Reading a pipe in it would block, a device never ends, and a link may
lead to either, or out of the folder. Everything of that kind is read through this module. For reading, links to regular files are
followed, because people link their data sets.

What cannot be read raises an `OSError` whose `strerror` says why in words, as for a missing file.
"""

import errno
import json
import os
import stat
import tomllib
from io import BufferedReader
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError

MOST_IMAGE = 512 * 2**20
"""Bytes of one encoded image; an uncompressed one of the most pixels that are decoded has as many."""

MOST_TEXT = 512 * 2**20
"""Bytes of one text: of a list of images, of the curves of a run."""

MOST_SETTINGS = 16 * 2**20
"""Bytes of one file of settings, or that says what a run is."""

INTEGERS = range(-(2**63), 2**63)
"""The integers that TOML knows, and that tensors hold."""

_PIECE = 2**20
_DEEPEST = 64  # tables and lists within each other in a file of settings


def open_regular(path: os.PathLike[str] | str) -> BufferedReader:
    """Open a regular file for reading, or a link to one.

    Raises:
        OSError: it is not there or may not be read; it is a folder, a pipe, a device or a socket; its name cannot be a file's.
    """
    try:
        # First without opening: a device may act on being opened.
        _check(os.stat(path).st_mode, path)
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL, or half a character
        raise OSError(errno.EINVAL, "its name holds a character that no file's name has", str(path)) from error
    try:
        # And again after opening: another process may have replaced the file meanwhile.
        _check(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def unusable_name(name: str) -> str:
    """Return why no file can have this name, in a few words; empty if one can."""
    if "\0" in name:
        return "holds a NUL character"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return "holds half a character"
    return ""


def _check(mode: int, path: os.PathLike[str] | str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder, not a file", str(path))
    what = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
    raise OSError(errno.EINVAL, f"{what}, not a file", str(path))


def check_regular(path: os.PathLike[str] | str) -> None:
    """Check that a path is a regular file, for libraries that open files by their paths.

    Raises:
        OSError: as `open_regular`.
    """
    open_regular(path).close()


def check_replaceable(path: os.PathLike[str] | str) -> None:
    """Check that a new file would replace a file, a link or nothing: root could replace `/dev/null`.

    Raises:
        OSError: it is a folder, a pipe, a device or a socket.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISLNK(mode):
        _check(mode, path)


def read_bytes(path: os.PathLike[str] | str, most: int) -> bytes:
    """Read a regular file.

    Args:
        path: of the file, or of a link to it.
        most: bytes that it may have.

    Raises:
        OSError: as `open_regular`; or it has more bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"larger than {most // 2**20} MB", str(path))
        content = file.read(size + 1) or b""
        # It grows while it is read, or is a kernel file, which reports 0 bytes and may never end.
        while len(content) > size and len(content) <= most and (more := file.read(_PIECE)):
            content += more
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most // 2**20} MB", str(path))
    return content


def read_text(path: os.PathLike[str] | str, most: int = MOST_TEXT, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Read a regular text file; see `read_bytes`.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: it is in another encoding.
    """
    # Line ends as `Path.read_text` gives them.
    return read_bytes(path, most).decode(encoding, errors).replace("\r\n", "\n").replace("\r", "\n")


def read_toml(path: os.PathLike[str] | str) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        OSError: as `read_bytes`.
        ValueError: it is not valid TOML, is nested too deeply, or has an integer of more than 64 bits, which TOML does not allow.
    """
    return parse_toml(read_text(path, MOST_SETTINGS))


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML, which may begin with a byte order mark, as some editors write it; see `read_toml`.

    Raises:
        ValueError: as `read_toml`.
    """
    try:
        content = tomllib.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_values(content, 0)
    return content


def _check_values(value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, int) and value not in INTEGERS:
        raise ValueError("an integer of more than 64 bits")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_values(inner, depth + 1)


def read_json(path: os.PathLike[str] | str, most: int = MOST_TEXT) -> Any:
    """Read a JSON file.

    Raises:
        OSError: as `read_bytes`.
        ValueError: it is no JSON, or nested too deeply.
    """
    return parse_json(read_text(path, most))


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def refuse_links(folder: Path, names: tuple[str, ...]) -> None:
    """Check that nothing that we write or delete in a folder is a link, because we would then change its target.

    The folder itself may be a link, because the user named it.

    Args:
        folder: where we write.
        names: our files and folders in it; missing ones are skipped.

    Raises:
        LifelongError: one of them, or something in one of the folders, is a link, or a folder cannot be read.
    """
    waiting = [str(Path(folder) / name) for name in names]
    while waiting:
        path = waiting.pop()
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                raise LifelongError(f"{path} is a link, through which nothing is written or deleted; put what it leads to into its place")
            if stat.S_ISDIR(mode):
                with os.scandir(path) as found:
                    waiting += [entry.path for entry in found]
        except FileNotFoundError:
            continue  # missing, or deleted meanwhile
        except OSError as error:
            raise LifelongError(f"cannot look into {path}: {error.strerror}; make it readable, or choose another folder") from error
