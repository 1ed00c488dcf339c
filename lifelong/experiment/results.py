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

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lifelong.digests import run_digest
from lifelong.errors import DamagedError, ForeignError, LifelongError
from lifelong.experiment.accuracies import merged
from lifelong.experiment.identity import check_readable, difference
from lifelong.experiment.kept_versions import VERSION, Journal, Kept
from lifelong.experiment.letting_go import finish
from lifelong.experiment.locking import HELD, LOCK, folder_lock
from lifelong.experiment.schema import hold, hold_outline, read_held
from lifelong.experiment.summaries import SUMMARY, read_summary
from lifelong.json_files import write_record
from lifelong.opening import MOST_SETTINGS, read_json
from lifelong.parts import PartStore
from lifelong.records.renames import renamed_state
from lifelong.storage import Seal, Stored, Tree, beside, read_plain, read_root, read_tree, remove, save_tree, sync_folder, write_text

WRITTEN = ("config.toml", "results.jsonl", SUMMARY, "curves.jsonl")
"""What a run alone writes into its folder."""

BESIDE = ("figures", "tensorboard", "exports")
"""Folders that others write to as well."""

TEMPORARY = re.compile(r"\.tmp\w{6}")
"""How safetensors names a file that it is writing, which earlier versions let it do."""

PATIENCE = 3600.0
"""Seconds after which nobody writes to a temporary file any more."""


class RunDirectory:
    """A folder that holds one run.

    Args:
        path: the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint"
        self.identity_file = self.checkpoint / "identity.json"
        self.state_file = self.checkpoint / "run.safetensors"
        self.previous_file = self.checkpoint / "run.previous.safetensors"
        self.curves = self.path / "curves.jsonl"
        self.results = self.path / "results.jsonl"
        self._seal: Seal | None = None
        self._parts: PartStore | None = None
        self._journal: Journal | None = None
        self._version: int | None = None

    def stages(self, task_index: int) -> Path:
        """Where the stages of the task under way keep their states."""
        return self.checkpoint / "stages" / f"task-{task_index:03d}"

    def claim(self, identity: dict[str, Any], config: str, defaults: Mapping[str, Any] | None = None) -> list[str]:
        """Make the folder this run's, or see that it is.

        Args:
            identity: plain values by name that decide the run's numbers.
            config: the text of config.toml.
            defaults: what a key means that the run does not have, because an earlier version of the library began it.

        Returns:
            What was damaged and is repaired.

        Raises:
            LifelongError: the folder holds another run, or something else, or cannot be written.
        """
        if self.begun():
            notes = self._check(identity, defaults or {})
            self.drop_parts()
            return notes
        self.check_free()
        # A run that never saved anything starts over.
        self.drop_parts()
        remove(self.curves)
        # The identity first: with it, a run that is killed here can be started again.
        self.write_identity(identity)
        write_text(self.path / "config.toml", config)
        return []

    def check_free(self) -> None:
        """Check that a run may begin in the folder, where none was begun.

        Raises:
            LifelongError: it is a file, or holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise LifelongError(f"{self.path} is a file; choose a folder with --out")
        orphan = self._orphan()
        if orphan is not None:
            raise LifelongError(
                f"{self.path} holds results ({orphan.name}), but {self.state_file} is missing: put it back from a copy of the run;"
                " or choose another folder with --out"
            )
        if not self.identity_file.exists() and any(child.name not in (LOCK, HELD, "checkpoint") for child in self.path.glob("*")):
            raise LifelongError(f"{self.path} is not empty and holds no run; choose another folder with --out")

    def _orphan(self) -> Path | None:
        """Results of tasks whose state is not there."""
        if self.results.exists() and self.results.stat().st_size:
            return self.results
        summary = self.path / SUMMARY
        try:
            # One that says nothing was learned is written when a run begins.
            return summary if summary.exists() and read_summary(self.path).tasks else None
        except LifelongError:
            return summary

    def drop_parts(self) -> None:
        """Drop what a process that was killed while it wrote has left, in the run's own folders.

        Only the run writes its own files; temporary files of a concurrent report or export are left for an hour.
        """
        own = [part for name in WRITTEN for part in self.path.glob(f".{name}.*.part")]
        own += [part for part in self.checkpoint.rglob(".*") if part.suffix == ".part" or TEMPORARY.fullmatch(part.name)]
        beside = [*self.path.glob(".*.part"), *(part for name in BESIDE for part in (self.path / name).rglob(".*.part"))]
        for part in [*own, *(part for part in beside if part not in own and _age(part) > PATIENCE)]:
            if part.is_file():
                remove(part)

    def begun(self) -> bool:
        """Whether anything has been learned here; a run that failed before that may be restarted with other settings."""
        return self.learned() or any(self.checkpoint.glob("stages/**/*.safetensors"))

    def learned(self) -> bool:
        """Whether there is a state of a learned task."""
        return self.state_file.exists() or self.previous_file.exists()

    def identity(self) -> dict[str, Any]:
        """Return what `claim` was given when the run began.

        Raises:
            DamagedError: it is not as it was written.
            LifelongError: the folder holds no run, or one of another version.
        """
        return self._identity()[0]

    def _identity(self) -> tuple[dict[str, Any], bool]:
        """Return the identity, and whether it carried a digest."""
        try:
            # First of all, for what another version writes may be told by other digests.
            form = read_json(self.identity_file, MOST_SETTINGS)
        except (OSError, ValueError):
            form = None
        if isinstance(form, dict) and "version" in form:
            check_readable(self.path, form)
        try:
            return read_held(self.identity_file, "identity")
        except FileNotFoundError as error:
            raise LifelongError(f"{self.path} holds no run; give the folder that --out named") from error
        except DamagedError as error:
            raise DamagedError(f"{error}; {self.remedy()}") from error
        except LifelongError as error:
            raise LifelongError(f"{error}; restore it, or learn the run again in another folder") from error

    def remedy(self) -> str:
        """Return what a person can do about a damaged file."""
        return f"rerun the command that started the run to repair it, or use: lifelong verify {self.path} --repair"

    @property
    def seal(self) -> Seal:
        """What binds the run's files to it."""
        if self._seal is None:
            if not self.identity_file.exists():
                return Seal()
            identity, checked = self._identity()
            self._seal = Seal(run_digest(identity), self.checkpoint, required=checked)
        return self._seal

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

    def _check(self, identity: dict[str, Any], defaults: Mapping[str, Any]) -> list[str]:
        """Check that this is the wanted run; rewrite a damaged identity if the state confirms it."""
        notes = []
        try:
            stored = self.identity()
        except DamagedError as error:
            found = self.identity_of_state() or (identity if self._owns(identity) else None)
            if found is None:
                raise LifelongError(f"{error.__cause__}; restore it, or choose another folder with --out") from error
            stored = found
            notes.append("identity.json was damaged; rewritten")
        except LifelongError as error:
            found = None if self.identity_file.exists() else self.identity_of_state()
            if found is None:
                raise LifelongError(f"{error}; restore {self.identity_file}, or choose another folder with --out") from error
            stored = found
            notes.append("identity.json was missing; rewritten")
        self.check_same(stored, identity, defaults)
        if notes:
            self.write_identity(stored)
        return notes

    def check_same(self, stored: Mapping[str, Any], identity: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """Check that the run that was begun here is the wanted one.

        Args:
            stored: its identity.
            identity: the wanted one.
            defaults: see `claim`.

        Raises:
            LifelongError: it is another.
        """
        key = difference(stored, identity, defaults)
        if key is not None:
            mine = stored.get(key, defaults.get(key))
            raise LifelongError(
                f"{self.path} holds a run with {key} = {mine!r}, not {json.loads(json.dumps(dict(identity))).get(key)!r}; "
                "choose another --out, or delete that folder to start over"
            )

    def identity_of_state(self) -> dict[str, Any] | None:
        """Return the identity as the run's state keeps it; None if no state is whole, or an earlier version saved it."""
        for file in (self.state_file, self.previous_file):
            try:
                stored = read_root(file)
                identity = hold("identity", stored.tree["identity"])
                if stored.owner.startswith(f"{run_digest(identity)}/"):
                    return identity
            except (LifelongError, KeyError, TypeError, ValueError):
                continue
        return None

    def repair_identity(self) -> list[str]:
        """Rewrite a lost or damaged identity from the run's state, if the state keeps it; return what was repaired."""
        try:
            self.identity()
            return []
        except DamagedError:
            how = "damaged"
        except LifelongError:
            if self.identity_file.exists():
                raise
            how = "missing"
        found = self.identity_of_state()
        if found is None:
            return []
        self.write_identity(found)
        return [f"identity.json: was {how}; rewritten from the run's state"]

    def write_identity(self, identity: Mapping[str, Any]) -> None:
        """Write by what the run knows itself again."""
        write_record(self.identity_file, identity)
        self._seal = self._parts = self._journal = None

    def _owns(self, identity: dict[str, Any]) -> bool:
        """Whether a file of a task under way is of the run of this identity."""
        mine = f"{run_digest(json.loads(json.dumps(identity)))}/"
        for file in self.checkpoint.glob("stages/**/*.safetensors"):
            try:
                if read_plain(file).owner.startswith(mine):
                    return True
            except LifelongError:
                continue
        return False

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


def _age(file: Path) -> float:
    """Seconds since a file was written to; 0 for one that has gone."""
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return 0.0


def _link(file: Path, place: Path) -> None:
    """Give a file a second name; copy it where a file cannot have two."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


def _why(error: LifelongError) -> str:
    """Return what is wrong with a file, without what its reader advises."""
    return str(error).removesuffix("; delete it and run again")
