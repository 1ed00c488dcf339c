"""Let go of what a run must not keep any more, so that a process which is killed meanwhile leaves something that can be finished.

What a run will be without a task is prepared beside everything else, in `checkpoint/forgetting/`: the files that will change, and
`plan.json`, written last, with the number of the version without it and what the caller is told. Then that version becomes the state of
the run, in one step. From there on the forgetting is done; what is left of the task is removed by `finish`, here or in whatever next takes
the run's lock. Without that step, `finish` drops what was prepared, and the run is as it was.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.kept_versions import Kept
from lifelong.headers import Part, Tree
from lifelong.json_files import read_record
from lifelong.opening import refuse_links
from lifelong.storage import read_root, remove, save_tree, sync_folder

if TYPE_CHECKING:
    from lifelong.experiment.results import RunDirectory

FOLDER = "forgetting"
"""Below `checkpoint`."""

PLAN = "plan.json"

PREPARED = ("curves.jsonl", "results.jsonl", "summary.json", "added.json")
"""Files that are prepared as they will be; the last one's place is below `checkpoint`."""

DERIVED = ("report.html", "figures", "tensorboard", "exports")
"""What is made from a run, shows all its tasks, and can be made again."""

UPLOADS = "uploads"
"""Where a served run keeps the images that it was sent, in a folder for each task."""

MUCH = 1 / 3
"""The share of the store from which on old versions are let go of for what only they need. A method with one network for all tasks comes to
a half as soon as there are twice as many versions as are kept."""

DRAFT = re.compile(r"[0-9a-f]{16}")
"""How these folders are named."""


def keep_only(directory: "RunDirectory", kept: Sequence[Kept]) -> None:
    """Drop all parts but those of some versions and of the two states, and the other versions.

    Raises:
        LifelongError: something cannot be read or written.
    """
    needed = _parts_of(directory, [*(each.state for each in kept), *_roots(directory)])
    # The list first: what it names is there at any time.
    directory.journal.write(kept)
    directory.parts.keep(*needed)


def due(count: int, keep: int) -> bool:
    """Tell whether to see if old versions take much: whenever there are twice as many as at the last time, so that it costs little.

    Args:
        count: how many versions there are.
        keep: how many are kept in any case; 0: all.
    """
    times, rest = divmod(count, keep) if keep else (0, 0)
    return rest == 0 and times > 1 and times & (times - 1) == 0


def let_go_of_oldest(directory: "RunDirectory", keep: int) -> None:
    """Let go of all versions but the last ones, if what only they need is a good part of the store.

    Args:
        directory: of the run, whose last state has just been stored.
        keep: how many versions are kept.

    Raises:
        LifelongError: something cannot be read or written.
    """
    versions = directory.journal.kept()
    old, kept = versions[:-keep], versions[-keep:]
    nodes, tensors = _parts_of(directory, [*(each.state for each in kept), *_roots(directory)])
    old_nodes, old_tensors = _parts_of(directory, [each.state for each in old])
    parts, freed = directory.parts.droppable(old_nodes - nodes, old_tensors - tensors)
    if freed < MUCH * directory.parts.bytes():
        return
    # The list first: what it names is there at any time.
    directory.journal.write(kept)
    directory.parts.drop(parts)


def _roots(directory: "RunDirectory") -> list[Tree]:
    """Return the two states that the run has."""
    return [read_root(file).tree for file in (directory.state_file, directory.previous_file) if file.exists()]


def _parts_of(directory: "RunDirectory", roots: Iterable[Mapping[str, Tree]]) -> tuple[set[str], set[str]]:
    """Return the names of all nodes and of all tensors of some states."""
    nodes: set[str] = set()
    tensors: set[str] = set()
    for root in roots:
        for value in root.values():
            if isinstance(value, Part):
                directory.parts.below(value.name, nodes, tensors)
    return nodes, tensors


def pending(directory: "RunDirectory") -> bool:
    """Tell whether a task was being forgotten when a process ended."""
    return (directory.checkpoint / FOLDER).is_dir()


def decided(directory: "RunDirectory") -> dict | None:
    """Return what a process would have said of the task that it was forgetting when it was killed; None if that was not decided yet."""
    plan = _plan(directory.checkpoint / FOLDER) if pending(directory) else None
    return plan.get("told") if plan is not None and plan["version"] == directory.version() else None


def finish(directory: "RunDirectory") -> None:
    """Finish the forgetting that a killed process began, or drop what it prepared; only with the run's lock.

    Raises:
        LifelongError: something cannot be read or written.
    """
    folder = directory.checkpoint / FOLDER
    if not folder.is_dir():
        return
    # What the killed process was writing may hold something of the task.
    directory.drop_parts()
    try:
        _go_on(directory, folder)
    except OSError as error:
        raise LifelongError(
            f"cannot finish forgetting a task of {directory.path}: {error.strerror}; solve that, and run the same command again"
        ) from error


def _go_on(directory: "RunDirectory", folder: Path) -> None:
    plan = _plan(folder)
    current = directory.version() if plan is not None else 0
    if plan is not None and current == plan["version"]:
        _finish(directory, folder, current, plan["uploads"])
    elif plan is not None:
        directory.journal.write(directory.journal.kept(current))
    for file in sorted(folder.iterdir(), key=lambda each: each.name == PLAN):
        remove(file)
    folder.rmdir()
    sync_folder(directory.checkpoint)


def _plan(folder: Path) -> dict | None:
    """Return what was planned; None: the preparation did not come to its end."""
    try:
        plan = read_record(folder / PLAN)[0]
    except FileNotFoundError:
        return None
    except LifelongError as error:
        raise DamagedError(f"{error}; delete {folder}, and call: lifelong forget again") from error
    version, uploads, told = plan.get("version"), plan.get("uploads"), plan.get("told")
    named = isinstance(uploads, list) and all(isinstance(each, str) and DRAFT.fullmatch(each) for each in uploads)
    if type(version) is not int or not named or not (told is None or _is_told(told)):
        raise DamagedError(f"cannot read {folder / PLAN}: it is not of its form; delete {folder}, and call: lifelong forget again")
    return plan


def _is_told(value: object) -> bool:
    """Tell whether a value is a record of names and lines."""
    if not isinstance(value, dict) or value.keys() != {"task", "tasks", "removed", "left"} or not isinstance(value["task"], str):
        return False
    lists = [value[key] for key in ("tasks", "removed", "left")]
    return all(isinstance(each, list) and all(isinstance(line, str) for line in each) for each in lists)


def _finish(directory: "RunDirectory", folder: Path, current: int, uploads: Sequence[str]) -> None:
    for name in PREPARED:
        if (folder / name).exists():
            place = directory.checkpoint if name == "added.json" else directory.path
            os.replace(folder / name, place / name)
    root = read_root(directory.state_file)
    save_tree(directory.previous_file, root.tree, directory.seal.owner(directory.state_file), root.made_with)
    directory.parts.repair()
    keep_only(directory, [each for each in directory.journal.kept() if each.version == current])
    directory.clear_stages()
    refuse_links(directory.path, (UPLOADS,))
    for place in [*(directory.path / name for name in DERIVED), *(directory.path / UPLOADS / name for name in uploads)]:
        if place.is_dir():
            shutil.rmtree(place)
        else:
            remove(place)
    sync_folder(directory.path)
