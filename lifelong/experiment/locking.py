"""Reserve a run directory for one process: by a system lock or, if the file system has no locks, by a file that names the holder."""

import errno
import json
import os
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lifelong.errors import LifelongError, TakenError, remedy
from lifelong.opening import read_json, refuse_links

try:
    import fcntl
except ImportError:  # Windows has none; filelock uses another lock there
    fcntl = None

LOCK = ".lock"
HELD = ".lock-held"
"""The file that names the process working in the folder, if the file system has no locks."""

JOB = "LIFELONG_JOB"
"""The variable with the name of the job of a batch system of which this process is the only one; it keeps it when it is queued again."""

OWN = (
    *("config.toml", "results.jsonl", "summary.json", "curves.jsonl", "report.html"),
    *("checkpoint", "figures", "tensorboard", "exports", LOCK, HELD),
)
"""Everything that is written or deleted in a run directory; none of it may be a link."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""Errors of file systems that have no locks (NFS without its lock service, FUSE, some cluster file systems)."""

_MOMENT = 0.2  # seconds


@contextmanager
def folder_lock(folder: Path) -> Generator[str]:
    """Keep other processes from working in a folder during the block.

    Args:
        folder: the folder; created if missing.

    Yields:
        A note for the user about the lock, or "".

    Raises:
        TakenError: another process works there.
        LifelongError: the folder cannot be made, or something of ours in it is a link.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    refuse_links(folder, OWN)
    reason = _missing_locks(folder / LOCK)
    with _by_holder(folder) if reason else _by_system(folder):
        yield f"the file system of {folder} has no locks ({reason}); the file {HELD} keeps other processes out instead" if reason else ""


def held(folder: Path) -> TakenError | None:
    """Return what `folder_lock` would raise because another process works in a folder, as far as this machine sees; None if it would not.

    Nothing is waited for or written.
    """
    holder = _holder(folder / HELD)
    if holder is not None and _alive(holder):
        return _taken(folder, holder)
    if fcntl is None:  # whoever wants the folder finds out when it reserves it
        return None
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in _NO_LOCKS else _locked(folder)
    finally:
        os.close(descriptor)
    return None


def _missing_locks(file: Path) -> str:
    """Return why the system cannot lock a file; empty if it can, or if another process holds the lock."""
    if fcntl is None:
        return ""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise _cannot_write(file.parent, error) from error
    try:
        # A shared lock, so that two processes can test this at once; a process that really locks waits `_MOMENT` for them.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return os.strerror(error.errno or 0) if error.errno in _NO_LOCKS else ""
    finally:
        os.close(descriptor)
    return ""


@contextmanager
def _by_system(folder: Path) -> Generator[None]:
    holder = _holder(folder / HELD)
    if holder is not None and _alive(holder):
        raise _taken(folder, holder)
    # The package gives the file these permissions, whatever the umask: those that it has.
    mode = stat.S_IMODE(os.stat(folder / LOCK).st_mode) if (folder / LOCK).exists() else 0o644
    lock = FileLock(folder / LOCK, timeout=_MOMENT, poll_interval=_MOMENT / 10, mode=mode)
    try:
        lock.acquire()
    except Timeout as error:
        raise _locked(folder) from error
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _by_holder(folder: Path) -> Generator[None]:
    file, mine = folder / HELD, _this_process()
    for _ in range(2):
        if _created(file, mine):
            break
        holder = _holder(file)
        if holder is not None and _alive(holder):
            raise _taken(folder, holder)
        _drop(file, holder)
    else:
        raise _taken(folder, _holder(file))
    try:
        yield
    finally:
        if _holder(file) == mine:
            file.unlink(missing_ok=True)


def _created(file: Path, mine: dict[str, Any]) -> bool:
    """Create the file that names this process; return False if it already exists."""
    part = file.with_name(f"{HELD}.{mine['host']}.{mine['process']}")
    try:
        part.write_text(json.dumps(mine), encoding="utf-8")
        try:
            # Atomic: a link to a complete file, which fails if the name is taken.
            os.link(part, file)
        finally:
            part.unlink(missing_ok=True)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK):
            raise _cannot_write(file.parent, error) from error
        return _created_alone(file, mine)
    return True


def _created_alone(file: Path, mine: dict[str, Any]) -> bool:
    """Do the same as `_created` on file systems without hard links."""
    try:
        with file.open("x", encoding="utf-8") as opened:
            json.dump(mine, opened)
    except FileExistsError:
        return False
    except OSError as error:
        raise _cannot_write(file.parent, error) from error
    return True


def _drop(file: Path, holder: dict[str, Any] | None) -> None:
    """Remove the file of a process that has ended, unless another process has already replaced it by its own."""
    aside = file.with_name(f"{HELD}.old.{socket.gethostname()}.{os.getpid()}")
    try:
        os.replace(file, aside)
        # What another process has put there meanwhile is put back; one that is quicker still keeps the place.
        if _holder(aside) != holder:
            _put_back(aside, file)
        aside.unlink(missing_ok=True)
    except OSError:
        return  # already gone: another process was first


def _put_back(aside: Path, file: Path) -> None:
    """Give a file its name again; one that has this name is not replaced where the system can tell."""
    try:
        os.link(aside, file)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not file.exists():
            os.replace(aside, file)


def _holder(file: Path) -> dict[str, Any] | None:
    """Return who holds the folder; None if no one does, or the file cannot be read."""
    try:
        holder = read_json(file, 2**16)
    except (OSError, ValueError):
        return None
    kinds = {"process": int, "host": str, "started": str}
    return holder if isinstance(holder, dict) and all(type(holder.get(key)) is kind for key, kind in kinds.items()) else None


def _this_process() -> dict[str, Any]:
    process = {"process": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
    job = os.environ.get(JOB, "")
    return process | ({"job": job} if job else {})


def _alive(holder: dict[str, Any]) -> bool:
    """Tell whether a holder may still be working; for one on another machine, this is assumed."""
    if holder["host"] != socket.gethostname():
        # This very job, before it was queued again because its node failed: it has one process, and runs once at a time.
        return holder.get("job", "") != os.environ.get(JOB)
    try:
        os.kill(holder["process"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        pass
    # Another process may have the same number by now.
    return holder["started"] in ("", _started(holder["process"]))


def _started(process: int) -> str:
    """Return when a process started, in the system's units; empty if the system does not say."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _locked(folder: Path) -> TakenError:
    return TakenError(f"another process is running in {folder}; wait for it, or use another folder")


def _taken(folder: Path, holder: dict[str, Any] | None) -> TakenError:
    who = f" ({holder['process']} on {holder['host']})" if holder is not None else ""
    return TakenError(
        f"another process{who} is running in {folder}; wait for it, or use another folder; if it has crashed, delete {folder / HELD}"
    )


def _cannot_write(folder: Path, error: OSError) -> LifelongError:
    another = "work on a copy of the run" if (folder / "checkpoint").exists() else "use another folder"
    return LifelongError(f"cannot write to {folder}: {error.strerror}; {remedy(error, f'make it writable, or {another}')}")
