"""A run loaded from disk, with its method ready to predict."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lifelong.data.naming import unique
from lifelong.digests import UNCHECKED
from lifelong.errors import DamagedError, LifelongError, near_miss
from lifelong.experiment.derived import summary_of
from lifelong.experiment.identity import config_of
from lifelong.experiment.letting_go import pending
from lifelong.experiment.remaining import FORGOTTEN
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import digest_file, read_config
from lifelong.experiment.soundness import restored
from lifelong.experiment.summaries import read_summary
from lifelong.methods.method import Method
from lifelong.methods.registry import known_methods
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.settings.run import RunConfig
from lifelong.storage import Tree
from lifelong.streams.leakage import Learned
from lifelong.uncollected import uncollected


@dataclass(frozen=True)
class SavedRun:
    """What a run has learned so far.

    Attributes:
        directory: the run directory.
        config: the settings that decided its numbers.
        identity: the run's identity (see `lifelong.experiment.identity`).
        state: the state saved after its last task.
        method: the method of that state, on the device; without an extractor.
        records: of its tasks, in order.
        notes: remarks for the user about the files that were read.
    """

    directory: RunDirectory
    config: RunConfig
    identity: dict[str, Any]
    state: Tree
    method: Method
    records: tuple[TaskRecord, ...]
    notes: tuple[str, ...] = ()

    @property
    def entries(self) -> list[TaskRecord]:
        """The records of its tasks, in order."""
        return list(self.records)

    def summary(self) -> RunRecord:
        """Return its summary; all numbers that can be derived are derived from its state.

        Raises:
            LifelongError: the state does not contain a summary (those of earlier versions do not), and summary.json cannot be used.
        """
        found = summary_of(self.state, None if "summary" in self.state else read_summary(self.directory.path), self.method, self.records)
        assert found is not None
        return found

    @property
    def forgotten(self) -> list[int]:
        """The positions of those tasks of the run's own stream that were forgotten."""
        return list(self.state.get(FORGOTTEN, []))

    @property
    def names(self) -> list[str]:
        """The names of its tasks, in order, made unique."""
        return list(unique([entry.name for entry in self.entries]))

    def classes(self, index: int) -> tuple[str, ...]:
        """Return the names of a task's classes, in label order, made unique."""
        return unique(self.entries[index].classes)

    def learned(self, count: int | None = None) -> list[Learned]:
        """Return the first `count` tasks with the content of their images; tasks whose content is not known are left out."""
        stored = self.state.get("contents") or []
        return [
            Learned(name, {split: hashes.numpy().view(np.uint64) for split, hashes in contents.items()})
            for name, contents in list(zip(self.names, stored, strict=False))[:count]
            if contents
        ]

    def task_index(self, name: str) -> int:
        """Return the position of a task.

        Raises:
            LifelongError: no task has this name.
        """
        names = self.names
        if name not in names:
            raise LifelongError(f"{self.directory.path} has learned no task '{name}'{near_miss(name, names)}")
        return names.index(name)

    def check_weights(self, weights: Path | None) -> None:
        """Check that the extractor has the weights with which the run was learned.

        Args:
            weights: file of the weights that will be used; None: those of the Hub.

        Raises:
            LifelongError: it is a different file.
        """
        learned = self.identity.get("extractor weights")
        if learned is not None and weights is not None and learned != digest_file(weights):
            raise LifelongError(f"{weights}: {self.directory.path} was learned with other weights; give their file with --weights")


@uncollected()
def open_run(path: Path, device: torch.device | str = "cpu") -> SavedRun:
    """Open a run directory to use what was learned; nothing is written, unless a process was killed while it forgot a task.

    Args:
        path: the directory of a run that has learned at least one task.
        device: device for its networks.

    Raises:
        LifelongError: there is no such run, or it was made by another version of this library.
    """
    directory = RunDirectory(path)
    identity = directory.identity()
    if pending(directory):
        # Where another process is forgetting it now, or nothing can be written, the state is whole all the same.
        with suppress(LifelongError), directory.locked():
            pass
    stored = directory.stored()
    if stored is None:
        raise directory.unlearned()
    config = _config(directory)
    state = stored.tree
    method, records = restored(directory, config, state, device)
    notes = () if stored.checked else (f"{directory.state_file.name}: {UNCHECKED}",)
    return SavedRun(directory, config, identity, state, method, tuple(records), notes)


def _config(directory: RunDirectory) -> RunConfig:
    """Return the configuration of a run; where it cannot be used, but can be written again from the identity, say how.

    Raises:
        LifelongError: it cannot be used.
    """
    try:
        return read_config(directory)
    except DamagedError:
        raise
    except LifelongError as error:
        # This raises what it lacks where a repair would, too.
        config_of(directory.identity(), {name: entry.settings for name, entry in known_methods().items()})
        raise DamagedError(f"{error}; {directory.remedy()}") from error
