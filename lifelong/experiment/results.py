"""The run directory: what a run is, how far it has come, and what came out.

    config.toml      every setting, readable, and accepted by --config
    results.jsonl    one line a task
    summary.json     the whole result, rewritten after every task
    curves.jsonl     loss and accuracy, one line an epoch (`lifelong.experiment.curves`)
    checkpoint/      identity.json, run.safetensors (the method and its results so far), stages/ (the task that is being learned)

`checkpoint/run.safetensors` alone decides where a run goes on; the other files are written from it.
"""

import json
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError
from lifelong.experiment.locking import HELD, LOCK, folder_lock
from lifelong.experiment.schema import read_held
from lifelong.storage import Tree, load_tree, remove, save_tree, write_text

RECORDED = "library"
"""The key of an identity that says which version of the library began the run: recorded, and never compared."""


class RunDirectory:
    """A folder that holds one run.

    Args:
        path: the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint"
        self._identity = self.checkpoint / "identity.json"
        self._state = self.checkpoint / "run.safetensors"
        self.curves = self.path / "curves.jsonl"

    def stages(self, task_index: int) -> Path:
        """Where the stages of the task under way keep their states."""
        return self.checkpoint / "stages" / f"task-{task_index:03d}"

    def claim(self, identity: dict[str, Any], config: str, defaults: Mapping[str, Any] | None = None) -> None:
        """Make the folder this run's, or see that it is.

        Args:
            identity: plain values by name that decide the run's numbers.
            config: the text of config.toml.
            defaults: what a key means that the run does not have, because an earlier version of the library began it.

        Raises:
            LifelongError: the folder holds another run, or something else, or cannot be written.
        """
        if self.begun():
            self._check(identity, defaults or {})
            self._drop_parts()
            return
        if self.path.exists() and not self.path.is_dir():
            raise LifelongError(f"{self.path} is a file; choose a folder with --out")
        if not self._identity.exists() and any(child.name not in (LOCK, HELD, "checkpoint") for child in self.path.glob("*")):
            raise LifelongError(f"{self.path} is not empty and holds no run; choose another folder with --out")
        # What was begun and never saved begins anew.
        self._drop_parts()
        remove(self.curves)
        # The identity first: with it, a run that is killed here can be started again.
        write_text(self._identity, json.dumps(identity, indent=1))
        write_text(self.path / "config.toml", config)

    def _drop_parts(self) -> None:
        """Drop what a process that was killed while it wrote has left: beside the run's own files, and in no folder that is another's."""
        own = (self.checkpoint, self.path / "figures", self.path / "tensorboard", self.path / "exports")
        for part in [*self.path.glob(".*.part"), *(part for folder in own for part in folder.rglob(".*.part"))]:
            if part.is_file():
                remove(part)

    def begun(self) -> bool:
        """Whether anything has been learned here; a run that failed before may be started anew with other settings."""
        return self._identity.exists() and (self._state.exists() or any(self.checkpoint.glob("stages/**/*.safetensors")))

    def identity(self) -> dict[str, Any]:
        """What `claim` was given when the run began.

        Raises:
            LifelongError: the folder holds no run.
        """
        try:
            return read_held(self._identity, "identity", "restore it, or learn the run again in another folder")
        except FileNotFoundError as error:
            raise LifelongError(f"{self.path} holds no run; give the folder that --out named") from error

    def _check(self, identity: dict[str, Any], defaults: Mapping[str, Any]) -> None:
        stored = read_held(self._identity, "identity", f"delete {self.path} or choose another --out")
        stored = json.loads(json.dumps(dict(defaults))) | stored
        current = json.loads(json.dumps(identity))
        for key in dict.fromkeys([*current, *stored]):
            if key != RECORDED and stored.get(key) != current.get(key):
                raise LifelongError(
                    f"{self.path} holds a run with {key} = {stored.get(key)!r}, not {current.get(key)!r}; "
                    "choose another --out, or delete that folder to start over"
                )

    @contextmanager
    def locked(self) -> Generator[str]:
        """Keep other processes from running in the folder meanwhile.

        Yields:
            What a person should know of the lock; empty for nothing.

        Raises:
            LifelongError: another process does, the folder cannot be made, or something of the run in it is a link.
        """
        with folder_lock(self.path) as note:
            yield note

    def load(self) -> Tree | None:
        """The state after the last finished task; None before the first."""
        return load_tree(self._state) if self._state.exists() else None

    def save(self, state: Tree) -> None:
        """Store the state after a task: from here on the run goes on behind it."""
        save_tree(self._state, state)

    def write_results(self, entries: list[dict[str, Any]], accuracy: list[list[float]], summary: dict[str, Any]) -> None:
        """Write results.jsonl and summary.json."""
        lines = [json.dumps(plain(entry | {"accuracy": row})) for entry, row in zip(entries, accuracy, strict=True)]
        write_text(self.path / "results.jsonl", "".join(f"{line}\n" for line in lines))
        write_text(self.path / "summary.json", json.dumps(plain(summary), indent=1) + "\n")


def read_summary(path: Path) -> dict[str, Any]:
    """The summary.json of a run directory.

    Raises:
        LifelongError: there is none, or it cannot be read.
    """
    file = Path(path) / "summary.json"
    try:
        return read_held(file, "summary", "delete it and continue that run to write it anew")
    except FileNotFoundError as error:
        raise LifelongError(f"no summary.json in {path}: not a run directory, or no task is finished yet") from error


def plain(value: Any) -> Any:
    """A value as JSON can say it: tuples become lists, NaN and infinities null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
