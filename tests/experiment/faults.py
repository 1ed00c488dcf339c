"""Faults in what the operating system is asked for: an error, a write that ends half way, death of the process.

Counted are the calls that change something below one folder: opening a file to write, writing, syncing, renaming, linking, removing,
making folders, changing modes. From its death on a process changes nothing any more, not even to clean up.
"""

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

Kind = Literal["no space", "device error", "short write", "death", "death in the middle", "SIGKILL"]
KINDS: tuple[Kind, ...] = ("no space", "device error", "short write", "death", "death in the middle")
"""What a process can survive to be looked at; "SIGKILL" is for one that was forked."""

CALLS = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "link", "symlink", "truncate", "chmod")
"""Functions of `os` whose first argument is a path."""


class Death(BaseException):
    """The process is gone."""


class Faults:
    """What is asked for below a folder, and what goes wrong with it.

    Args:
        folder: other paths are left alone.
        at: the number of the call, from 0, that goes wrong; None: none does.
        kind: how.

    Attributes:
        seen: the calls so far, in words.
        happened: whether the fault has come.
    """

    def __init__(self, folder: Path, at: int | None = None, kind: Kind = "death") -> None:
        self.folder, self.at, self.kind = os.path.realpath(folder), at, kind
        self.seen: list[str] = []
        self.happened = self.dead = False

    def concerns(self, path: object) -> bool:
        """Whether a path, or the file of a descriptor, lies in the folder."""
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return False
        place = os.path.realpath(os.fspath(path)) if isinstance(path, (str, bytes, os.PathLike)) else ""
        return isinstance(place, str) and place.startswith(self.folder) and not place.endswith(".lock")

    def pass_by(self, what: str, half: Callable[[], object] | None = None) -> None:
        """A call is made.

        Args:
            what: in words.
            half: does half of what is asked for.

        Raises:
            Death: the process dies now, or has died before.
            OSError: the call fails.
        """
        if self.dead:
            raise Death
        number = len(self.seen)
        self.seen.append(what)
        if number != self.at:
            return
        self.happened = True
        if self.kind == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if half is not None and self.kind in ("short write", "death in the middle"):
            half()
        if self.kind.startswith("death"):
            self.dead = True
            raise Death
        code = errno.EIO if self.kind == "device error" else errno.ENOSPC
        raise OSError(code, os.strerror(code))


class _File:
    """A file that is written, whose writes may fail."""

    def __init__(self, file: Any, faults: Faults, name: str) -> None:
        self._file, self._faults, self._name = file, faults, name

    def write(self, content: Any) -> int:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._faults.pass_by(f"write {self._name}", half)
        return self._file.write(content)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def faulty(faults: Faults) -> Iterator[Faults]:
    """A block in which calls are counted, and one goes wrong."""

    def named(path: object) -> str:
        # The random part of a temporary file's name says nothing.
        name = Path(os.fsdecode(os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path)).name  # ty: ignore
        return ".".join(name.split(".")[:3]) + ".part" if name.endswith(".part") else name

    def of_path(call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def asked(path: Any, *args: Any, **kwargs: Any) -> Any:
            place = path
            if kwargs.get("dir_fd") is not None:  # as `shutil.rmtree` does
                place = os.path.join(os.readlink(f"/proc/self/fd/{kwargs['dir_fd']}"), os.fsdecode(path))
            if faults.concerns(place):
                faults.pass_by(f"{call} {named(place)}")
            return real(path, *args, **kwargs)

        return asked

    def opened(real: Callable[..., Any]) -> Callable[..., Any]:
        def asked(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if set(mode) & set("wax+") and faults.concerns(file):
                faults.pass_by(f"open {named(file)}")
                return _File(real(file, mode, *args, **kwargs), faults, named(file))
            return real(file, mode, *args, **kwargs)

        return asked

    def os_opened(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and faults.concerns(path):
            faults.pass_by(f"create {named(path)}")
        return real_open(path, flags, *args, **kwargs)

    real_open = os.open
    with pytest.MonkeyPatch.context() as patched:
        for call in CALLS:
            patched.setattr(os, call, of_path(call, getattr(os, call)))
        patched.setattr(os, "fsync", of_path("fsync", os.fsync))
        patched.setattr(os, "open", os_opened)
        patched.setattr(io, "open", opened(io.open))
        patched.setattr(builtins, "open", opened(builtins.open))
        yield faults
