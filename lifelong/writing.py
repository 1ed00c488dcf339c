"""Files that are whole or absent: written beside, synced to the disk and renamed.

A process that is killed at any moment leaves the old file or the new one, never half of one.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from lifelong.errors import LifelongError, remedy
from lifelong.opening import check_replaceable


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Create or replace `path` in one step: `write` fills a temporary file next to it, which is synced and renamed.

    Its permissions follow the umask of the process.

    Raises:
        LifelongError: the folder cannot be written to, or the disk is full; the old file is still there.
    """
    path = Path(path)
    try:
        check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = beside(path)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            write(part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        what = remedy(error, f"make {path.parent} writable, or use another folder")
        raise LifelongError(f"cannot write {path}: {reason}; {what}") from error


def remove(path: Path) -> None:
    """Delete a file, if it is there.

    Raises:
        LifelongError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise LifelongError(f"cannot delete {path}: {error.strerror}; make its folder writable and run the same command again") from error


def beside(path: Path) -> Path:
    """Return a unique name for a temporary file next to a file."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk."""
    if os.name == "posix":  # Windows does not open folders.
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Create or replace a UTF-8 text file in one step (see `write_file`); characters that UTF-8 cannot encode become question marks."""
    write_bytes(path, text.encode(errors="replace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Create or replace a file of these bytes in one step (see `write_file`)."""
    write_file(path, lambda part: _write_all(part, content))


def _write_all(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
