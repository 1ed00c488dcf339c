"""The versions of a model: what each task did to the ones before it, going back to one, and letting go of what is not needed for that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.added_tasks import repair_added
from lifelong.experiment.curves import drop_task, read_curves
from lifelong.experiment.kept_versions import Kept
from lifelong.experiment.letting_go import keep_only
from lifelong.experiment.outcome import hold_results
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.saved import open_run
from lifelong.headers import Part, Tree
from lifelong.records.base import plain
from lifelong.settings.arguments import Place, checked
from lifelong.training.process import as_found


@dataclass(frozen=True)
class Certificate:
    """What learning a task did to an earlier one.

    Attributes:
        task: the name of the earlier task.
        before: its accuracy before, in [0, 1]; None: not known.
        after: its accuracy afterwards; None: not known.
        changed: whether a bit of what answers for it has changed; if not, every answer is what it was.
    """

    task: str
    before: float | None
    after: float | None
    changed: bool


@dataclass(frozen=True)
class Version:
    """A state of a model that can be put back.

    Attributes:
        number: by which `rollback` knows it.
        tasks: how many tasks it has learned.
        task: the name of the newest.
        when: it was saved, in seconds since 1970.
        current: whether it is the one that the run is in.
        certificates: what learning the newest task did to each earlier one.
    """

    number: int
    tasks: int
    task: str
    when: float
    current: bool
    certificates: tuple[Certificate, ...]


@dataclass(frozen=True)
class Compacted:
    """What `compact` came to.

    Attributes:
        versions: how many can still be put back.
        before: bytes of the run's parts before.
        after: and afterwards.
    """

    versions: int
    before: int
    after: int


@checked
def history(run: Place) -> tuple[Version, ...]:
    """Return the versions of a run, oldest first.

    Args:
        run: the run directory.

    Raises:
        LifelongError: it holds no run, or is damaged.
    """
    directory = learned_directory(Path(run))
    return tuple(_versions(directory, directory.journal.kept()))


def _versions(directory: RunDirectory, versions: Sequence[Kept], before: Kept | None = None) -> list[Version]:
    """Return what is told of some versions.

    Args:
        directory: of the run.
        versions: which, in order.
        before: the one before them; None: there is none.
    """
    reader, current, found = _Reader(directory), directory.version(), []
    learned = None if before is None else reader.read(before)
    for kept in versions:
        last, learned = learned, reader.read(kept)
        found.append(Version(kept.version, kept.tasks, kept.task, kept.when, kept.version == current, _certificates(last, learned)))
    directory.parts.release()
    return found


@dataclass(frozen=True)
class _Learned:
    """Of each task its name, its last accuracy, and the digest of what answers for it."""

    names: list[str]
    accuracy: list[float | None]
    digests: list[str]


class _Reader:
    """Reads what certificates are made of. Versions have most of it in common: that is read once.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._lists: dict[str, list[Tree]] = {}
        self._names: dict[str, str] = {}
        # The changes of accuracy of the version before, and the last row that they come to.
        self._steps: list[Tree] = []
        self._row: list[float] = []

    def read(self, kept: Kept) -> _Learned:
        """Return what a version had learned.

        Raises:
            DamagedError: it is not of its form.
        """
        try:
            names = [self._name(entry) for entry in self._items(kept.state["entries"])]
            return _Learned(names, plain(self._last_row(self._items(kept.state["changes"]))), self._items(kept.state["digests"]))
        except (KeyError, TypeError, IndexError) as error:
            directory = self._directory
            raise DamagedError(f"{directory.path}: version {kept.version} is not of its form; {directory.remedy()}") from error

    def _items(self, value: Tree) -> list[Tree]:
        """Return the items of a list, with the name of its part for each that is one."""
        found = self._directory.parts.items(value.name, self._lists) if isinstance(value, Part) else value
        return [item.name if isinstance(item, Part) else item for item in found]

    def _name(self, entry: Tree) -> str:
        if not isinstance(entry, str):
            return entry["name"]
        if entry not in self._names:
            self._names[entry] = self._directory.parts.outline(entry)["name"]
        return self._names[entry]

    def _last_row(self, steps: list[Tree]) -> list[float]:
        """Return the accuracies that changes come to; where they begin as those of the version before did, from there on."""
        begun = len(self._steps)
        if steps[:begun] != self._steps:
            begun, self._row = 0, []
        for step in steps[begun:]:
            change = self._directory.parts.tree(step) if isinstance(step, str) else step
            self._row = [*self._row, math.nan]
            for task, value in zip(change["tasks"], change["accuracy"], strict=True):
                self._row[task] = value
        self._steps = steps
        return self._row


def _certificates(before: _Learned | None, after: _Learned) -> tuple[Certificate, ...]:
    if before is None:
        return ()
    rows = zip(before.names, before.accuracy, after.accuracy, before.digests, after.digests, strict=False)
    return tuple(Certificate(name, old, new, was != now) for name, old, new, was, now in rows)


@checked
def rollback(run: Place, to: int) -> Version:
    """Put a run back into an earlier version, or a later one that was rolled back and not replaced since.

    What was learned after it is kept until the run learns again.

    Args:
        run: the run directory.
        to: the number of the version.

    Returns:
        The version.

    Raises:
        LifelongError: there is no such version, or it is damaged; the run is as it was.
    """
    with as_found():
        directory = learned_directory(Path(run))
        with directory.locked():
            directory.drop_parts()
            directory.recover()
            versions = directory.journal.kept()
            place = next((place for place, each in enumerate(versions) if each.version == to), None)
            if place is None:
                raise LifelongError(f"{run} has no version {to}; it has {_numbers(versions)} (lifelong history {run})")
            directory.put_back(versions[place])
            settle(directory)
        directory = learned_directory(Path(run))
        return _versions(directory, versions[place : place + 1], versions[place - 1] if place else None)[0]


def _numbers(versions: Sequence[Kept]) -> str:
    """Return the numbers of versions in words."""
    first, last = (versions[0].version, versions[-1].version) if versions else (1, 0)
    said = f"{first} to {last}" if len(versions) > 10 else ", ".join(str(each.version) for each in versions) or "none"
    return said if first == 1 else f"{said}: earlier ones were let go of, see --keep-versions, lifelong compact and lifelong forget"


def settle(directory: RunDirectory) -> None:
    """Bring what follows from a state in line with it, after another one was put in its place."""
    saved = open_run(directory.path)
    done = len(saved.entries)
    directory.clear_stages()
    for task in sorted({line["task"] for line in read_curves(directory.curves, directory.seal).found if line["task"] >= done}):
        drop_task(directory.curves, task, directory.seal)
    repair_added(saved)
    hold_results(directory, saved.entries, saved.state["accuracy"], saved.summary())


@checked
def compact(run: Place, keep: int | None = None) -> Compacted:
    """Drop the parts of a run that no version needs any more.

    Args:
        run: the run directory.
        keep: how many versions can still be put back, the current one and the last before it; None: all that can be now.

    Raises:
        LifelongError: it holds no run, or is damaged: then nothing is dropped.
    """
    if keep is not None and keep < 1:
        raise LifelongError(f"keep = {keep}: give the number of versions to keep, 1 or more")
    directory = learned_directory(Path(run))
    with directory.locked():
        directory.drop_parts()
        directory.recover()
        parts, current = directory.parts, directory.version()
        before = parts.bytes()
        kept = directory.journal.kept(current)
        kept = kept if keep is None else kept[-keep:]
        keep_only(directory, kept)
        return Compacted(len(kept), before, parts.bytes())


def learned_directory(path: Path) -> RunDirectory:
    """Return the directory of a run that has learned something.

    Raises:
        LifelongError: it has not.
    """
    directory = RunDirectory(path)
    directory.identity()
    if not directory.learned():
        raise directory.unlearned()
    return directory
