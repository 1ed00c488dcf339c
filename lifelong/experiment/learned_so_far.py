"""What a run has learned so far: the method, the records of its tasks and how they are judged; saved, restored and written."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lifelong import __version__
from lifelong.data.task import Stream
from lifelong.experiment.accuracies import best_before, changes, same, steps_of
from lifelong.experiment.curves import Curves
from lifelong.experiment.derived import GROWING, derived, head_of, of_method
from lifelong.experiment.evaluation import Evaluation
from lifelong.experiment.learning import hold_finite, modules_of
from lifelong.experiment.lines import append_line, rejudged_of
from lifelong.experiment.machine import (
    arithmetic,
    machine_name,
    made_with,
    peak_device_memory,
    peak_memory,
)
from lifelong.experiment.observer import Observer
from lifelong.experiment.outcome import write_lines, write_summary
from lifelong.experiment.remaining import FORGOTTEN, KnowsContents, Remaining
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.soundness import restored
from lifelong.inventory import settled
from lifelong.methods.method import Method
from lifelong.methods.registry import make_method
from lifelong.records.base import plain
from lifelong.records.renames import SCHEMA_VERSION
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.relatedness.extractor import Extractor
from lifelong.settings.resolve import flat
from lifelong.settings.run import RunConfig
from lifelong.storage import Tree
from lifelong.training.precision import resolved
from lifelong.trees import Fixed, known_by
from lifelong.watch import Watch

DOUBTED = 2
"""Tasks whose modules are read after each task although nothing seems to have changed in them."""


class LearnedSoFar:
    """What a run has learned so far.

    Args:
        origin: what the summary says besides of where the numbers come from (see `lifelong.experiment.run.origin_of`).
        repaired: what was damaged in the run directory, and is not any more.
        more: what the state keeps besides.
    """

    def __init__(
        self,
        config: RunConfig,
        stream: Stream,
        directory: RunDirectory,
        device: torch.device,
        extractors: Callable[[str, str], Extractor],
        progress: Observer,
        notes: list[str],
        threads: int,
        save_every: float,
        *,
        origin: Mapping[str, Any] | None = None,
        repaired: Sequence[str] = (),
        more: Mapping[str, Tree] | None = None,
    ) -> None:
        self.config, self.stream, self.directory, self.device = config, stream, directory, device
        self.extractors, self.progress = extractors, progress
        self.notes, self.threads, self.save_every = notes, threads, save_every
        self.curves, self.origin = Curves(directory.curves, directory.seal), dict(origin or {})
        self.repaired, self.more = list(repaired), dict(more or {})
        self.evaluation = Evaluation(stream, device, progress)
        self.descriptions = stream.describe()
        self.method: Method = make_method(config.method, config.settings)
        self.entries: list[TaskRecord] = []
        self.accuracy: list[list[float]] = []
        self.digests: list[str] = []
        self.contents: list[Fixed] = []
        self.watch = Watch()
        # As they are saved: a task's record again only when it has changed.
        self.saved_entries: list[Fixed] = []
        self.saved_judged: list[Fixed | None] = []
        self.rejudged: list[dict[str, Any]] = []
        self.steps: list[Fixed] = []
        self.said: set[str] = set()
        # The summary but for its tasks; and what results.jsonl lacks: None, if it is to be written anew.
        self.head: dict[str, Any] | None = None
        self.best: list[float] = []
        self.line: dict[str, Any] | None = None

    def _leave_out(self, forgotten: list[int]) -> None:
        """Go on without the tasks of the stream that were forgotten, unless it is without them."""
        if forgotten and FORGOTTEN not in self.more:
            self.more[FORGOTTEN] = forgotten
            # What the whole stream is made of is not what this run has learned.
            self.origin["stream_content"] = None
            self.stream = Remaining(self.stream, forgotten)
            self.evaluation = Evaluation(self.stream, self.device, self.progress)
            self.descriptions = self.stream.describe()

    def _note(self, text: str) -> None:
        """Say something once, however many tasks it is true of."""
        if text not in self.said:
            self.said.add(text)
            self.progress.note(text)

    def _found(self, text: str) -> None:
        """Report a remark about a file, and keep it among the notes."""
        if text not in self.notes:
            self.notes.append(text)
        self._note(text)

    def _judge(self, newest: TaskRecord) -> None:
        """Accuracy on the test images of every task so far, the one of the newest entry included.

        A task whose modules have not changed by a bit since it was last judged keeps its accuracy: it would come out the same. If they
        have and its images are no longer here, its accuracy is not known.
        """
        digests = self._digests()
        before = self.accuracy[-1] if self.accuracy else []
        known = [value if old == now else math.nan for now, old, value in zip(digests, self.digests, before, strict=False)]
        row = known + [math.nan] * (len(digests) - len(known))
        asked = [index for index in range(len(before)) if math.isnan(row[index])]
        answered = [self.entries[index].judged for index in asked]
        completed = self.evaluation.completed(self.method, row, [*self.entries, newest])
        differ = [
            at for at, was in zip(asked, answered, strict=True) if not same(before[at], completed[at]) or self.entries[at].judged != was
        ]
        self.saved_judged = [*self.saved_judged, None]
        for index in (*differ, len(before)):
            self._note_judged(index, newest if index == len(before) else self.entries[index])
        self.best = [max(pair, key=_known) for pair in zip([*self.best, *before[len(self.best) :]], before, strict=True)]
        self.steps.append(changes(before, completed))
        self.accuracy.append(completed)
        self.digests = digests
        self.rejudged = [rejudged_of(index, completed[index], self.entries[index]) for index in differ]

    def _note_judged(self, index: int, entry: TaskRecord) -> None:
        self.saved_judged[index] = None if entry.judged is None else Fixed(entry.judged.to_dict())

    def _digests(self) -> list[str]:
        """Return the digest of each task's modules.

        Changes are counted, and a few modules read all the same; before the run ends, all of them are.
        """
        tasks = modules_of(self.method)
        if self.config.tuning is not None:  # else `learn_timed` has looked
            self.watch.look(tasks)
        digests = self.watch.digests(tasks)
        last = len(tasks) >= len(self.stream)
        if self.watch.doubt(tasks, len(tasks) if last else DOUBTED):
            self._found(
                f"the method '{self.config.method}' changes weights in a way that PyTorch does not count: all are read after each task"
            )
            hold_finite(self.method, self.watch.look(tasks), self.method.tasks[-1].name, self.config.training.lr)
            digests = self.watch.digests(tasks)
        return digests

    def _judge_unknown(self) -> bool:
        """Make up for what could not be judged while images were away; returns whether anything was."""
        row = self.accuracy[-1]
        if not any(map(math.isnan, row)):
            return False
        self.progress.phase("evaluate")
        self.accuracy[-1] = self.evaluation.completed(self.method, row, self.entries)
        if plain(self.accuracy[-1]) == plain(row):
            return False
        self.steps[-1] = changes(self.accuracy[-2] if len(self.accuracy) > 1 else [], self.accuracy[-1])
        for index, entry in enumerate(self.entries):
            self._note_judged(index, entry)
        self.line = None
        self._save()
        return True

    def _contents(self, index: int) -> Fixed:
        """Return the content of a task's images, by which a later task is kept apart from them."""
        known = self.stream.contents(index) if isinstance(self.stream, KnowsContents) else {}
        # As int64: a file of tensors has no uint64 in all versions of its format.
        return Fixed({split: torch.from_numpy(hashes.view(np.int64)) for split, hashes in known.items()})

    def _save(self) -> None:
        """Let the run go on from here: what was learned, and the summary of it."""
        with settled(self.watch.inventory):
            self.head = self._head()
        self.saved_entries += [_saved(entry) for entry in self.entries[len(self.saved_entries) :]]
        self.directory.save(self._state(), made_with(self.device, self.threads))

    def _state(self) -> Tree:
        with known_by(self.watch.serial):
            method = self.method.state_dict()
        return {
            "method": method,
            "entries": self.saved_entries,
            "judged": self.saved_judged,
            "changes": self.steps,
            "digests": self.digests,
            "contents": self.contents,
            "arithmetic": arithmetic(self.device, self.threads),
            "device": self.device.type,
            "summary": self.head,
            **self.more,
        }

    def _restore(self, saved: Tree) -> None:
        self.entries = self._restore_method(saved)
        self._leave_out(saved.get(FORGOTTEN, []))
        self.accuracy, self.digests = list(saved["accuracy"]), saved["digests"]
        # A state of an earlier version does not have them.
        known = [Fixed(each) for each in saved.get("contents") or ()]
        self.contents = known or [self._contents(index) for index in range(len(self.entries))]
        self.saved_entries, self.saved_judged = [_saved(entry) for entry in self.entries], [None] * len(self.entries)
        for index, entry in enumerate(self.entries):
            self._note_judged(index, entry)
        self.steps, self.best = steps_of(saved["accuracy"]), best_before(saved["accuracy"])

    def _restore_method(self, saved: Tree) -> list[TaskRecord]:
        """Go back to the method of a state; returns the records of its tasks."""
        self.method, entries = restored(self.directory, self.config, saved, self.device)
        self.method.attach_extractor(self.extractors)
        return entries

    def _all_notes(self) -> list[str]:
        described = [note for description in self.descriptions for note in description.notes]
        # States of earlier versions have no notes of tasks.
        learned = [note for entry in self.entries for note in entry.notes or ()]
        return list(dict.fromkeys(self.notes + described + learned))

    def _write(self) -> None:
        """Write what follows from the state: the newest task's line, or all lines, and the summary."""
        if self.line is None:
            write_lines(self.directory, self.entries, self.accuracy)
        else:
            append_line(self.directory.results, self.line, self.directory.seal.run)
        write_summary(self.directory, self.head or self._head(), self.entries, self.accuracy)
        self._events()

    def _events(self) -> None:
        if self.entries:
            self.progress.task_saved(self.directory.path, self.entries, self.accuracy)

    def _head(self) -> dict[str, Any]:
        """Return the fields of the summary, without what grows with each task."""
        settings = flat(self.config)
        numbers = derived(self.entries, self.accuracy, self.best) | of_method(self.method)
        fields = {
            "schema_version": SCHEMA_VERSION,
            "version": __version__,
            "stream": self.stream.name,
            "stream_fingerprint": self.stream.fingerprint(),
            **self.origin,
            "method": self.config.method,
            "preset": self.config.preset,
            "seed": self.config.seed,
            "settings": settings,
            **numbers,
            "extractor": settings.get("extractor"),
            "device": self.device.type,
            "precision": resolved(self.config.training.precision),
            "machine": machine_name(self.device),
            "threads": self.threads,
            "torch": torch.__version__,
            "peak_memory_bytes": peak_memory(),
            "peak_device_memory_bytes": peak_device_memory(self.device),
            "notes": self._all_notes(),
            "complete": len(self.entries) >= len(self.stream),
        }
        found = self.evaluation.task_agnostic(self.method, self.entries)
        whole = fields | {key: [] for key in GROWING} | ({} if found is None else {"task_agnostic": found})
        return head_of(RunRecord.model_validate(plain(whole)))


def _saved(entry: TaskRecord) -> Fixed:
    """Return the saved form of a task's record, but for how its images are answered."""
    return Fixed({key: value for key, value in entry.to_dict().items() if key != "judged"})


def _known(value: float) -> float:
    """Return a value by which one that is not known is less than any that is."""
    return -math.inf if math.isnan(value) else value
