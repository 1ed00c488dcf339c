"""Forget a task of a run: nothing of it stays in the run's files, and all other answers stay as they are, to the bit.

Whether that is possible, the method says (`Method.forgettable`). What is known of the other tasks stays, but for what says something of the
forgotten one: distances to it, reasons and notes that name it, and how well tasks were told apart while it was among them.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lifelong.data.address import PYTHON
from lifelong.data.cache import cache_folder
from lifelong.data.naming import unique
from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
from lifelong.experiment.accuracies import steps_of
from lifelong.experiment.added_tasks import AddedTask, read_added
from lifelong.experiment.curves import read_curves
from lifelong.experiment.derived import head_of, summary_of
from lifelong.experiment.letting_go import DERIVED, DRAFT, FOLDER, PLAN, UPLOADS, decided, finish
from lifelong.experiment.outcome import results_content, summary_content
from lifelong.experiment.remaining import FORGOTTEN, fingerprint_with, fingerprint_without, places_left
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.saved import SavedRun, open_run
from lifelong.experiment.versions import learned_directory
from lifelong.json_files import as_lines, write_record
from lifelong.methods.frozen_network import OnFrozenNetwork
from lifelong.opening import MOST_SETTINGS, read_text
from lifelong.records.base import plain
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.settings.arguments import Place, checked
from lifelong.storage import Tree, read_root, remove, write_text
from lifelong.training.process import as_found
from lifelong.trees import Fixed
from lifelong.words import counted

REASON = "decided while a task was known that is forgotten now"
"""Replaces a reason that says something of a forgotten task."""


@dataclass(frozen=True)
class Forgotten:
    """What `forget` came to.

    Attributes:
        task: the name of the task.
        tasks: the names of those that are left, in order.
        removed: what was deleted besides the task's own weights, statistics and records, in words.
        left: what the run cannot reach, in words.
    """

    task: str
    tasks: tuple[str, ...]
    removed: tuple[str, ...]
    left: tuple[str, ...]


@checked
def forget(run: Place, task: str, dry_run: bool = False) -> Forgotten:
    """Forget a task of a finished run, if all that is kept of it is its own.

    Other tasks answer as before, to the bit; those behind it move up by one. Earlier versions of the run hold the task, and go with it. The
    report, figures, exports and TensorBoard's files in the run directory show all tasks: they are deleted, and can be made again.

    Where a process was killed while it forgot a task, the same call finishes.

    Args:
        run: the run directory.
        task: the name of the task.
        dry_run: only say what would be removed; the run stays as it is.

    Returns:
        What was removed, and what is left.

    Raises:
        LifelongError: the run has no such task, is not finished, or is damaged; or the task cannot be forgotten: the line says why, and
            which tasks would have to be learned again. The run is then as it was.
    """
    with as_found():
        directory = learned_directory(Path(run))
        told = decided(directory)
        with directory.locked():
            if told is not None and told["task"] == task:
                return Forgotten(task, *(tuple(told[key]) for key in ("tasks", "removed", "left")))
            if not dry_run:
                directory.drop_parts()
                directory.recover()
            saved = open_run(directory.path)
            index = saved.task_index(task)
            _check(saved, index)
            going = _Going(saved, index)
            return going.told() if dry_run else _forget(going)


class _Going:
    """What goes with a task, besides its own weights, statistics and records.

    Args:
        saved: the run.
        index: of the task.

    Attributes:
        its_own: how the task was added, if it is not one of the run's stream.
        added: the other tasks that were added.
        uploads: folders of images that the served run was sent for it.
        copies: files of the cache that are made of its images, if these are in files of their own.
        features: the folder of features that do not say whose they are; None: there are none.
    """

    def __init__(self, saved: SavedRun, index: int) -> None:
        self.saved, self.index, self.name = saved, index, saved.names[index]
        self.added = [task for task in read_added(saved.directory) if task.name in saved.names]
        base = len(saved.names) - len(self.added)
        self.its_own = None if index < base else self.added.pop(index - base)
        self.uploads = list(_uploads(saved.directory.path, self.name, self.its_own))
        self.copies = _copies(self.its_own, saved.entries[index].side)
        features = cache_folder() / "features"
        self.features = features if isinstance(saved.method, OnFrozenNetwork) and features.is_dir() else None

    def told(self) -> Forgotten:
        """Say it in words."""
        directory = self.saved.directory
        removed = [f"{place} in the run directory" for place in DERIVED if (directory.path / place).exists()]
        removed += [f"{counted(len(self.uploads), 'folder')} of uploaded images"] if self.uploads else []
        removed += [f"decoded copies of its images, and their checksums, in {cache_folder()}"] if self.copies else []
        versions = len(directory.journal.kept()) - 1
        removed += [f"{counted(versions, 'earlier version')}, which cannot be put back any more"] if versions > 0 else []
        if self.features is not None:
            removed.append(f"the cache of features, {self.features}: it does not say whose they are, and is filled again")
        rest = unique([entry.name for at, entry in enumerate(self.saved.entries) if at != self.index])
        return Forgotten(self.name, tuple(rest), tuple(removed), tuple(self._left()))

    def _left(self) -> Iterator[str]:
        """Say where the task's images, or something made of them, may still be."""
        source = "" if self.its_own is None else self.its_own.source
        where = "the Python objects" if source.startswith(f"{PYTHON}:") else source or f"the stream '{self.saved.config.stream}'"
        if not any(f"/{UPLOADS}/{folder}/" in source for folder in self.uploads):
            copies = "" if self.copies else f", and decoded copies of them in {cache_folder()}"
            yield f"its images themselves: {where}{copies}"
        if self.its_own is None:
            yield "one checksum over all images of the run's stream, by which the run is recognized"
        yield "copies of the run, exports, reports and pushes outside of its directory"


def _check(saved: SavedRun, index: int) -> None:
    """See that a task can be forgotten.

    Raises:
        LifelongError: it cannot.
    """
    path, names = saved.directory.path, saved.names
    if not saved.summary().complete:
        raise LifelongError(f"{path} is not finished; continue it first, with the command that started it")
    if len(names) == 1:
        raise LifelongError(f"task '{names[index]}' is the only one that {path} has learned; delete that folder to forget it")
    entangled = saved.method.forgettable(index)
    if entangled is not None:
        again = ", ".join(f"'{names[other]}'" for other in entangled.again)
        raise LifelongError(
            f"task '{names[index]}' cannot be forgotten: {entangled.reason}; without it {again} would have to be learned again,"
            " in another --out"
        )


def _forget(going: _Going) -> Forgotten:
    saved, index, added, done = going.saved, going.index, going.added, going.told()
    directory, before = saved.directory, read_root(saved.directory.state_file)
    entries = _entries(saved, index)
    rows = [[value for task, value in enumerate(row) if task != index] for at, row in enumerate(saved.state["accuracy"]) if at != index]
    state = _state(saved, index, added, entries, rows)
    for file in going.copies:
        remove(file)
    if going.features is not None:
        shutil.rmtree(going.features, ignore_errors=True)
    folder = directory.checkpoint / FOLDER
    folder.mkdir(exist_ok=True)
    seal = directory.seal.run
    write_text(folder / "curves.jsonl", as_lines(_curves(directory, index), seal))
    write_text(folder / "results.jsonl", as_lines(results_content(entries, rows), seal))
    write_record(folder / "summary.json", summary_content(state["summary"], entries, rows))
    if going.its_own is not None:
        write_record(folder / "added.json", {"run": seal, "tasks": [asdict(task) for task in added]})
    write_record(folder / PLAN, {"version": directory.version() + 1, "uploads": going.uploads, "told": asdict(done)})
    directory.save(state, before.made_with)
    finish(directory)
    return done


def _state(saved: SavedRun, index: int, added: Sequence[AddedTask], entries: list[TaskRecord], rows: list[list[float]]) -> dict[str, Tree]:
    """Return the state of the run without a task, whose method forgets it."""
    old, name = saved.state, saved.names[index]
    forgotten = _forgotten(saved, index)
    summary = saved.summary()
    saved.method.forget(index)
    steps = steps_of(rows)
    # `Any`: a head is a summary without what grows, see `head_of`.
    head: dict[str, Any] = head_of(summary)
    head["notes"] = [note for note in summary.notes or () if not _mentions(note, name)]
    # Told apart from the forgotten task, too.
    head.pop("task_agnostic", None)
    own = fingerprint_without(saved.identity["stream images"], forgotten)
    if "stream_fingerprint" in head:
        head["stream_fingerprint"] = fingerprint_with(own, [task.fingerprint for task in added])
    content = head.get("stream_content")
    if content is not None:
        head["stream_content"] = None if forgotten else content | {"added": [task.content for task in added]}
    whole = summary_of({"summary": head, "entries": [entry.to_dict() for entry in entries], "accuracy": rows}, None, saved.method)
    assert whole is not None
    kept = {key: value for key, value in old.items() if key in ("arithmetic", "device")}
    if old.get("contents"):
        kept["contents"] = [Fixed(each) for at, each in enumerate(old["contents"]) if at != index]
    if added or "added" in old:
        kept["added"] = [asdict(task) for task in added]
    if forgotten:
        kept[FORGOTTEN] = forgotten
    records = [entry.to_dict() for entry in entries]
    return {
        "method": saved.method.state_dict(),
        "entries": [Fixed({key: value for key, value in record.items() if key != "judged"}) for record in records],
        "judged": [Fixed(record["judged"]) if record.get("judged") is not None else None for record in records],
        "changes": steps,
        "digests": [digest for at, digest in enumerate(old["digests"]) if at != index],
        "summary": head_of(RunRecord.model_validate(plain(dict(whole.items())))),
        **kept,
    }


def _forgotten(saved: SavedRun, index: int) -> list[int]:
    """Return the positions of the forgotten tasks of the run's own stream, together with that of one more task."""
    base = len(saved.names) - sum(task.name in saved.names for task in read_added(saved.directory))
    more = [places_left(base, saved.forgotten)[index]] if index < base else []
    return sorted([*saved.forgotten, *more])


def _entries(saved: SavedRun, index: int) -> list[TaskRecord]:
    """Return the records of the other tasks, without what says something of the forgotten one."""
    name, gone = saved.names[index], saved.entries[index].expert
    shared = any(entry.expert == gone for at, entry in enumerate(saved.entries) if at != index)
    expert = None if shared else gone
    return [_without(entry, name, index, expert) for at, entry in enumerate(saved.entries) if at != index]


def _without(entry: TaskRecord, name: str, index: int, expert: int | None) -> TaskRecord:
    """Return the record of a task without another one.

    Args:
        entry: the record.
        name, index: of the task that is forgotten.
        expert: the index of its expert; None: it has none of its own.
    """
    record = entry.to_dict()
    for key in ("divergences", "task_distances"):
        if record.get(key):
            record[key] = [value for at, value in enumerate(record[key]) if at != index]
    if expert is not None:
        if record.get("group_distances"):
            record["group_distances"] = [value for at, value in enumerate(record["group_distances"]) if at != expert]
        if record.get("expert") is not None:
            record["expert"] -= record["expert"] > expert
    if record.get("notes"):
        record["notes"] = [note for note in record["notes"] if not _mentions(note, name)]
    if record.get("reason"):
        record["reason"] = _reason(record["reason"], name, index, expert)
    return TaskRecord.model_validate(plain(record))


def _reason(reason: str, name: str, index: int, expert: int | None) -> str:
    """Return a reason in which groups and tasks have their new numbers; another one if it says something of the forgotten task."""
    told = [("group", expert), ("task", index)]
    if _mentions(reason, name) or any(number is not None and _mentions(reason, f"{what} {number}") for what, number in told):
        return REASON
    for what, number in told:
        if number is not None:
            reason = re.sub(rf"(?<=\b{what} )\d+", lambda found, gone=number: str(int(found[0]) - (int(found[0]) > gone)), reason)
    return reason


def _mentions(text: str, name: str) -> bool:
    """Tell whether a text has a name as a word."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _curves(directory: RunDirectory, index: int) -> list[dict[str, Any]]:
    """Return the lines of the curves of the other tasks, at their new positions."""
    found = [line for line in read_curves(directory.curves, directory.seal).found if line["task"] != index]
    return [{**line, "task": line["task"] - (line["task"] > index)} for line in found]


def _copies(added: AddedTask | None, side: int) -> list[Path]:
    """Return the files of the cache that are made of a task's images, and of no others."""
    if added is None or added.source.startswith(f"{PYTHON}:"):
        return []
    try:
        found = Sources().open(added.source).traces(side)
    except LifelongError:  # they are not here any more
        return []
    return [file for file in found if file.exists()]


def _uploads(path: Path, name: str, added: AddedTask | None) -> Iterator[str]:
    """Yield the folders of images that the served run was sent for a task."""
    for folder in sorted((path / UPLOADS).glob("*")):
        if not DRAFT.fullmatch(folder.name):
            continue
        try:
            called = json.loads(read_text(folder / "draft.json", MOST_SETTINGS)).get("name")
        except (OSError, ValueError, AttributeError):
            called = None
        if called == name or (added is not None and f"/{UPLOADS}/{folder.name}/" in added.source):
            yield folder.name
