"""The run directory: what a run is, how far it has come, and what came out.

    config.toml      every setting, readable, and accepted by --config
    results.jsonl    one line a task
    summary.json     the whole result, rewritten after every task
    curves.jsonl     loss and accuracy, one line an epoch (`lifelong.experiment.curves`)
    checkpoint/      identity.json, run.safetensors (names the parts of the state: the method and its results so far),
                     run.previous.safetensors (those a task earlier), parts/ and mirror/ (the parts, twice), stages/ (the task that is
                     being learned)

`checkpoint/run.safetensors` alone decides where a run goes on; the other files are written from it, and held against it. Earlier versions
wrote the whole state into it.
"""

import os
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lifelong.errors import DamagedError, ForeignError, LifelongError
from lifelong.experiment.accuracies import merged
from lifelong.experiment.kept_versions import VERSION, Journal, Kept
from lifelong.experiment.letting_go import due, finish, let_go_of_oldest
from lifelong.experiment.locking import folder_lock
from lifelong.experiment.run_folder import RunFolder
from lifelong.experiment.schema import hold_outline
from lifelong.experiment.summaries import read_summary as read_summary  # known from here, too
from lifelong.headers import Part
from lifelong.parts import PartStore
from lifelong.records.renames import renamed_state
from lifelong.storage import Stored, Tree, beside, read_plain, read_root, read_tree, remove, save_tree, sync_folder
from lifelong.uncollected import uncollected


class RunDirectory(RunFolder):
    """A folder that holds one run, with the states that it has had.

    Args:
        path: the folder; made when something is written.

    Attributes:
        keep_versions: how many versions are kept in any case when states are saved; 0: all.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.keep_versions = 0
        self._parts: PartStore | None = None
        self._journal: Journal | None = None
        self._version: int | None = None

    def write_identity(self, identity: Mapping[str, Any]) -> None:
        """Write by what the run knows itself again."""
        super().write_identity(identity)
        self._parts = self._journal = None

    @property
    def parts(self) -> PartStore:
        """The parts of the run's states."""
        if self._parts is None:
            self._parts = PartStore(self.checkpoint, self.seal)
        return self._parts

    @property
    def journal(self) -> Journal:
        """The versions of the run."""
        if self._journal is None:
            self._journal = Journal(self.checkpoint, self.seal)
        return self._journal

    @contextmanager
    def locked(self) -> Generator[str]:
        """Keep other processes from running in the folder meanwhile. What one that was killed while it forgot a task has left is finished.

        Yields:
            What a person should know of the lock; empty for nothing.

        Raises:
            LifelongError: another process does, the folder cannot be made, or something of the run in it is a link.
        """
        with folder_lock(self.path) as note:
            finish(self)
            yield note

    def load(self) -> Tree | None:
        """Return the state after the last finished task; None before the first.

        Raises:
            LifelongError: it is damaged, or another run's.
        """
        stored = self.stored()
        return None if stored is None else stored.tree

    def stored(self) -> Stored | None:
        """As `load`, with what is known of the file."""
        return self._stored(lambda: self.read_state(self.state_file))

    def plain_state(self) -> Stored | None:
        """As `stored`, with None for each tensor: little of the file is read."""
        file, parts = self.state_file, self.parts
        return self._stored(lambda: _current(read_plain(file, self.seal.owner(file) if self.seal.run else None, parts=parts), file))

    def outline(self, key: str) -> Tree:
        """Return a value of the state with `...` for what it is made of, where that stands elsewhere: little is read.

        Raises:
            LifelongError: there is no state, or it cannot be read.
        """
        value = read_root(self.state_file).tree.get(key)
        return self.parts.outline(value.name) if isinstance(value, Part) else value

    def _stored(self, read: Callable[[], Stored]) -> Stored | None:
        if not self.learned():
            return None
        try:
            return read()
        except ForeignError as error:
            raise ForeignError(f"{error}; put this run's own back, or: lifelong verify {self.path} --repair") from error
        except DamagedError as error:
            raise DamagedError(f"{_why(error)}; {self.remedy()}, from the state before it") from error
        except LifelongError as error:
            raise LifelongError(f"{error}; {self.remedy()}, from the state before it") from error

    @uncollected()
    def read_state(self, file: Path) -> Stored:
        """Read one of the two files of states.

        Raises:
            DamagedError: it is damaged, or another run's.
            LifelongError: it is not there.
        """
        seal = self.seal
        owner = seal.owner(self.state_file) if seal.run else None
        stored = _current(read_tree(file, owner=owner, required=seal.required, parts=self.parts), file)
        self.parts.release()
        return stored

    def recover(self) -> tuple[Stored | None, list[str]]:
        """Do the same as `stored` for a caller that writes: if the state is damaged, replace it by the one before it.

        Returns:
            The state, and what was repaired.

        Raises:
            LifelongError: neither can be used, or the state is another run's.
        """
        try:
            return self.stored(), [*self.parts.heal(), *self.journal.mend()]
        except ForeignError:
            raise
        except DamagedError as error:
            reason = f"was damaged ({error.__cause__ and error.__cause__.__cause__})"
        except LifelongError:
            if self.state_file.exists():
                raise
            reason = "was missing"
        return self.fall_back(), [f"{self.state_file.name} {reason}: continued from the state before it"]

    def fall_back(self) -> Stored:
        """Put the state before the last one in its place, or the last version of which all parts are whole.

        Raises:
            LifelongError: there is none that can be used.
        """
        try:
            before = self.read_state(self.previous_file)
        except LifelongError as error:
            found = self._last_whole()
            if found is not None:
                return found
            raise LifelongError(
                f"cannot read {self.state_file}: damaged or missing, and so is the state before it ({self.previous_file.name});"
                " restore one from a copy of the run, or choose another folder with --out"
            ) from error
        part = beside(self.state_file)
        _link(self.previous_file, part)
        part.replace(self.state_file)
        part.unlink(missing_ok=True)
        sync_folder(self.checkpoint)
        self._version = None
        return before

    def _last_whole(self) -> Stored | None:
        """Put the last version back that can be read; None if there is none."""
        try:
            versions = self.journal.kept()
        except LifelongError:
            return None
        for kept in reversed(versions):
            try:
                self.put_back(kept)
                return self.read_state(self.state_file)
            except LifelongError:
                continue
        return None

    def save(self, state: Tree, made_with: Mapping[str, str] | None = None) -> None:
        """Store the state after a task, from which the run then continues. The previous state is kept as well.

        Args:
            state: a tree.
            made_with: what computed it.
        """
        seal = self.seal
        parts = self.parts.put(state, made_with)
        if not seal.run:
            self._write_root(parts, made_with)
            return
        entries = state.get("entries") or []
        version = self.journal.add(parts, len(entries), entries[-1]["name"] if entries else "", self.version())
        self._write_root(parts | {"identity": self.identity(), VERSION: version}, made_with)
        self._version = version
        if due(self.journal.count, self.keep_versions):
            let_go_of_oldest(self, self.keep_versions)

    def version(self) -> int:
        """Return the number of the version that the run is in; 0: it has none."""
        if self._version is None:
            found = read_root(self.state_file).tree if self.state_file.exists() else {}
            self._version = found.get(VERSION, 0) if isinstance(found, dict) else 0
        return self._version

    def put_back(self, kept: Kept) -> None:
        """Make a version the state from which the run goes on.

        Raises:
            LifelongError: it cannot be read; the run is as it was.
        """
        made_with = read_root(self.state_file).made_with if self.state_file.exists() else {}
        part = self.checkpoint / f".{self.state_file.name}.back.part"
        root = kept.state | {"identity": self.identity(), VERSION: kept.version}
        save_tree(part, root, self.seal.owner(self.state_file), made_with)
        try:
            self.read_state(part)
        except LifelongError:
            remove(part)
            raise
        part.replace(self.state_file)
        sync_folder(self.checkpoint)
        # The state before the one that was left would undo this, were the new one damaged.
        save_tree(self.previous_file, root, self.seal.owner(self.state_file), made_with)
        self._version = kept.version

    def _write_root(self, kept: Tree, made_with: Mapping[str, str] | None) -> None:
        seal = self.seal
        if self.state_file.exists():
            part = beside(self.previous_file)
            try:
                _link(self.state_file, part)
                part.replace(self.previous_file)
                # Where both were one file, renaming has done nothing.
                part.unlink(missing_ok=True)
            except OSError as error:
                raise LifelongError(f"cannot write {self.previous_file}: {error.strerror}; free space there") from error
        save_tree(self.state_file, kept, seal.owner(self.state_file), made_with)


def _current(stored: Stored, file: Path) -> Stored:
    """Return a state under the names of this version.

    Raises:
        DamagedError: the file holds something else.
    """
    tree = merged(stored.tree)
    try:
        hold_outline(tree)
    except ValueError as error:
        raise DamagedError(f"cannot read {file}: {error}") from error
    return replace(stored, tree=renamed_state(tree))


def _link(file: Path, place: Path) -> None:
    """Give a file a second name; copy it where a file cannot have two."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def _why(error: LifelongError) -> str:
    """Return what is wrong with a file, without what its reader advises."""
    return str(error).removesuffix("; delete it and run again")
