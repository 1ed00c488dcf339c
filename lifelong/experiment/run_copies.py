"""Copies of run directories, put in place in one step."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from lifelong.errors import LifelongError
from lifelong.experiment.locking import HELD, LOCK, folder_lock
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.saved import open_run


def put_copy(run: Path, target: Path, names: Sequence[str]) -> None:
    """Put a copy of a run into a folder's place.

    Args:
        run: the run directory.
        target: a folder that is new or empty, or holds an earlier state of the same run.
        names: of the run's tasks.

    Raises:
        LifelongError: the folder holds something else, or cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        _check_earlier(run, target, names)
        with folder_lock(target):
            _replace(run, target)
    else:
        _replace(run, target)


def copy_run(run: Path, target: Path) -> None:
    """Copy a run directory to a new folder, without what only its own processes use.

    Raises:
        LifelongError: the run is gone, or the folder cannot be written.
    """
    if not run.is_dir():
        raise LifelongError(f"{run} is no longer there; put it back, or open another run")
    try:
        shutil.copytree(run, target, ignore=shutil.ignore_patterns(LOCK, HELD, ".*.part"))
    except (shutil.Error, OSError) as error:
        raise LifelongError(
            f"cannot write {target}: {getattr(error, 'strerror', None) or error}; give another folder, or free space"
        ) from error


def _check_earlier(run: Path, target: Path, names: Sequence[str]) -> None:
    try:
        before = open_run(target)
    except LifelongError as error:
        raise LifelongError(f"{target} is not empty, and holds no run that could be replaced; choose another folder") from error
    if RunDirectory(run).identity() != before.identity or before.names != list(names)[: len(before.names)]:
        raise LifelongError(f"{target} holds another run, of {', '.join(before.names[:5])}; choose another folder")


def _replace(run: Path, target: Path) -> None:
    part, old = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.old")
    for left in (part, old):
        shutil.rmtree(left, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_run(run, part)
    if target.exists():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)
