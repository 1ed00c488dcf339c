"""The folder of a run: which run it is, and whether it may be used for one.

A run is known by its identity, everything that decides its numbers; the first thing that is written says it.
"""

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifelong.digests import run_digest
from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.identity import check_readable, difference
from lifelong.experiment.kept_versions import FILE as VERSIONS
from lifelong.experiment.locking import HELD, LOCK
from lifelong.experiment.schema import hold, read_held
from lifelong.experiment.summaries import SUMMARY, read_summary
from lifelong.json_files import write_record
from lifelong.opening import MOST_SETTINGS, read_json
from lifelong.storage import Seal, read_plain, read_root, remove, write_text
from lifelong.training.stages import clear

WRITTEN = ("config.toml", "results.jsonl", SUMMARY, "curves.jsonl")
"""What a run alone writes into its folder."""

BESIDE = ("figures", "tensorboard", "exports")
"""Folders that others write to as well."""

TEMPORARY = re.compile(r"\.tmp\w{6}")
"""How safetensors names a file that it is writing, which earlier versions let it do."""

LOST = "put the files back from a copy of the run, or learn it again in another folder"
"""What can be done where nothing of the run itself helps."""

PATIENCE = 3600.0
"""Seconds after which nobody writes to a temporary file any more."""


class RunFolder:
    """A folder that holds one run, or may.

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

    def stages(self, task_index: int) -> Path:
        """Where the stages of the task under way keep their states."""
        return self.checkpoint / "stages" / f"task-{task_index:03d}"

    def clear_stages(self, count: int | None = None) -> None:
        """Drop the stages of the first tasks, which a fault right after a task was saved may have left.

        Args:
            count: of how many tasks; None: of all, the one under way included.
        """
        for folder in (self.checkpoint / "stages").glob("task-*"):
            number = folder.name.removeprefix("task-")
            if count is None or (number.isdecimal() and int(number) < count):
                clear(folder)

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
        if self._orphan() is not None:
            raise self.unlearned()
        if not self.identity_file.exists() and any(child.name not in (LOCK, HELD, "checkpoint") for child in self.path.glob("*")):
            raise LifelongError(f"{self.path} is not empty and holds no run; choose another folder with --out")

    def unlearned(self) -> LifelongError:
        """Return why nothing that was learned can be used, where there is no state: nothing was, or the state is lost."""
        orphan = self._orphan()
        if orphan is None:
            return LifelongError(f"{self.path} has not learned a task yet; continue it with the command that started it")
        # A line of this file names the parts of each state.
        kept = (self.checkpoint / VERSIONS).exists()
        how = f"put it back: lifelong verify {self.path} --repair" if kept else LOST
        return LifelongError(f"{self.path} holds results ({orphan.name}), but {self.state_file} is missing; {how}")

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
            raise self.no_run() from error
        except DamagedError as error:
            raise DamagedError(f"{error}; {self.remedy()}") from error
        except LifelongError as error:
            if self.path.is_file():
                raise self.no_run() from error
            raise LifelongError(f"{error}; restore it, or learn the run again in another folder") from error

    def no_run(self) -> LifelongError:
        """Return that the path holds no run, and what to give instead."""
        if self.path.is_file():
            return LifelongError(f"{self.path} is a file, not a run; give the run directory first")
        # A comparison has its runs below it; a sweep, those of each stream.
        below = (each.parent for level in ("*", "*/*") for each in sorted(self.path.glob(f"{level}/checkpoint")) if each.is_dir())
        inner = next(below, None)
        what = "give the folder that --out named" if inner is None else f"its folders do: give one of them, such as {inner}"
        return LifelongError(f"{self.path} holds no run; {what}")

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
        self._seal = None

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


def _age(file: Path) -> float:
    """Seconds since a file was written to; 0 for one that has gone."""
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return 0.0
