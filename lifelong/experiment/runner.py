"""A run under way: learn a task, let its images go, judge, save, and so to the end of the stream."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from lifelong import __version__
from lifelong.data.feature_cache import keeping
from lifelong.data.task import Stream, Task, TaskDescription
from lifelong.digests import UNCHECKED
from lifelong.errors import LifelongError
from lifelong.experiment.accuracies import changes, same
from lifelong.experiment.curves import Curves, drop_task
from lifelong.experiment.derived import GROWING, derived, entries_of, head_of, of_method, summary_of
from lifelong.experiment.evaluation import Evaluation
from lifelong.experiment.learning import learn_timed, modules_of, retire
from lifelong.experiment.lines import append_line, line_of, rejudged_of
from lifelong.experiment.machine import (
    arithmetic,
    machine_name,
    made_with,
    out_of_memory,
    peak_device_memory,
    peak_memory,
    watch_device_memory,
)
from lifelong.experiment.metrics import best_before
from lifelong.experiment.observer import Observer
from lifelong.experiment.outcome import hold_results, write_lines, write_summary
from lifelong.experiment.remaining import FORGOTTEN, KnowsContents, Remaining
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.resuming import resumed
from lifelong.experiment.soundness import restored
from lifelong.experiment.summaries import read_summary
from lifelong.experiment.tuning import tune_task
from lifelong.methods.method import Context, LearnRecord, Method
from lifelong.methods.registry import make_method
from lifelong.records.base import plain, said
from lifelong.records.renames import SCHEMA_VERSION
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord, TaskTuning
from lifelong.relatedness.extractor import Extractor
from lifelong.settings.resolve import flat
from lifelong.settings.run import RunConfig
from lifelong.storage import Tree
from lifelong.training.precision import resolved
from lifelong.training.stages import Epoch, change, clear
from lifelong.trees import Fixed, known_by
from lifelong.watch import Settled, Watch, settled

DOUBTED = 2
"""Tasks whose modules are read after each task although nothing seems to have changed in them."""


class Runner:
    """One run under way.

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
        self.watch, self.settled = Watch(), Settled()
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

    def to_end(self) -> RunRecord:
        """Learn the tasks that remain; returns the summary."""
        watch_device_memory(self.device)
        stored, fallen_back = self.directory.recover()
        self.repaired += fallen_back
        self.notes += self.repaired
        if self.curves.lost:
            self._note(f"curves.jsonl: {self.curves.lost} lines were damaged or another run's, and are dropped")
        known = None
        if stored is not None:
            self._restore(stored.tree)
            self.notes += self._changes(stored.tree)
            known = summary_of(stored.tree, self._read_summary(), self.method)
            if not stored.checked:
                self._note(f"{self.directory.state_file.name}: {UNCHECKED}")
        done = len(self.entries)
        for index in range(done):
            # A kill right after a task was saved may have left its stages.
            clear(self.directory.stages(index))
        # More tasks than the stream has were added to the finished run (see `lifelong.experiment.continuing`).
        if known is not None and done >= len(self.stream) and (known.complete or done > len(self.stream)):
            for note in self.repaired:
                self._note(note)
            if done == len(self.stream) and self._judge_unknown():
                self._write()
                return self._finished(None)
            return self._finished(self._hold(known))
        self.progress.run_started(self.stream.name, self.config.method, len(self.stream), done)
        for note in self._all_notes():
            self._note(note)
        summary = None
        if known is not None:
            summary = self._hold(known)
        else:
            self._write()
        for index in range(done, len(self.stream)):
            try:
                self._task(index)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                raise LifelongError(
                    f"task '{self.descriptions[index].name}': the device '{self.device}' has not enough memory; "
                    "use a smaller --batch-size or --init-channels, fewer --workers, or another --device"
                ) from error
            self._write()
            summary = None
        return self._finished(summary)

    def _leave_out(self, forgotten: list[int]) -> None:
        """Go on without the tasks of the stream that were forgotten, unless it is without them."""
        if forgotten and FORGOTTEN not in self.more:
            self.more[FORGOTTEN] = forgotten
            # What the whole stream is made of is not what this run has learned.
            self.origin["stream_content"] = None
            self.stream = Remaining(self.stream, forgotten)
            self.evaluation.stream = self.stream
            self.descriptions = self.stream.describe()

    def _read_summary(self) -> RunRecord | None:
        """Return the summary.json of a state that does not keep its own; None unless it is of the same tasks."""
        try:
            found = read_summary(self.directory.path)
            return found if len(found.tasks) == len(self.entries) else None
        except LifelongError:
            return None

    def _changes(self, saved: Tree) -> list[str]:
        """Return what has changed between tasks, and since the last one, of what decides the numbers besides the settings."""
        if len(self.entries) >= len(self.stream):
            return []
        # Entries of earlier versions do not say; their state says it of the last one.
        before = [entry.made_with for entry in self.entries if entry.made_with is not None] or [saved.get("arithmetic", {})]
        notes = [change(*pair) for pair in pairwise([*before, made_with(self.device, self.threads)])]
        # Runs of earlier versions do not record the device they started on.
        if saved.get("device", self.device.type) != self.device.type:
            begun, continued = saved["device"], self.device.type
            notes.append(f"started on {begun}, continued on {continued}: with other random numbers, so not equal to an uninterrupted run")
        return [note for note in notes if note]

    def _hold(self, summary: RunRecord) -> RunRecord:
        """Return the summary on disk; rewrite it and the results unless they are what the state says."""
        self.head = head_of(summary)
        there, wrong = hold_results(self.directory, self.entries, self.accuracy, summary)
        for note in wrong:
            self._note(note)
        return there

    def _finished(self, summary: RunRecord | None) -> RunRecord:
        """Return the summary, which is read again where it has been written."""
        summary = summary or read_summary(self.directory.path)
        self._events()
        self.progress.run_finished(summary)
        return summary

    def _task(self, index: int) -> None:
        description = self.descriptions[index]
        self.progress.task_started(index, description.name)
        self.curves.task(index)
        # The splits of a task are looked at again and again: by other methods, seeds and settings, and after each later task.
        with keeping():
            entry = self._learn(index, description)
            started = time.perf_counter()
            self.progress.phase("evaluate")
            self._judge(entry)
        phases = {**(entry.seconds_by_phase or {}), "evaluate": time.perf_counter() - started}
        entry.seconds_by_phase, entry.seconds = phases, sum(seconds or 0.0 for seconds in phases.values())
        self.entries.append(entry)
        self.line = line_of(entry, self.accuracy[-1], self.rejudged)
        self.contents.append(self._contents(index))
        self._save()
        clear(self.directory.stages(index))
        self.progress.task_finished(index, entry, self.accuracy[-1])

    def _learn(self, index: int, description: TaskDescription) -> TaskRecord:
        task = self.stream[index].to(self.device)
        context = Context(
            task_index=index,
            task_name=task.name,
            training=self.config.training,
            seed=self.config.seed,
            device=self.device,
            open_extractor=self.extractors,
            folder=self.directory.stages(index),
            on_phase=self.progress.phase,
            on_epoch=self._epoch,
            on_note=self._note,
            save_every=self.save_every,
            seal=replace(self.directory.seal, made_with=made_with(self.device, self.threads), say=self._found),
        )
        begin_anew = partial(self._begin_anew, index, task.name)
        record, tuning = resumed(lambda: self._learned(task, context), self.directory.stages(index), begin_anew)
        retire(task, self.config.method)
        fields = asdict(record)
        entry = {
            "name": task.name,
            "classes": list(task.classes),
            "train": description.train,
            "valid": description.valid,
            "test": description.test,
            "image_size": description.image_size,
            "seconds_by_phase": fields.pop("seconds"),
            "made_with": made_with(self.device, self.threads),
            **fields,
        } | ({} if tuning is None else {"tuning": tuning})
        try:
            return TaskRecord.model_validate(plain(entry))
        except ValidationError as error:
            raise LifelongError(
                f"the method '{self.config.method}' recorded of task '{task.name}': {said(error)}; correct its LearnRecord"
            ) from error

    def _begin_anew(self, index: int, name: str, reason: str) -> None:
        """Drop what was kept of a task, and go back to before it."""
        note = f"task '{name}': what was kept of it when it was interrupted cannot be used ({reason}); it is learned again from the start"
        self.notes.append(note)
        self._note(note)
        clear(self.directory.stages(index))
        drop_task(self.directory.curves, index, self.directory.seal)
        saved = self.directory.load()
        if saved is None:
            self.method = make_method(self.config.method, self.config.settings)
        else:
            self._restore_method(saved)

    def _learned(self, task: Task, context: Context) -> tuple[LearnRecord, TaskTuning | None]:
        """Return what the method notes of the task, and what was tuned."""
        if self.config.tuning is None:
            return learn_timed(self.method, task, context, self.watch), None
        tuned = tune_task(self.config, self.method.state_dict(), task, context, learn_timed, self._candidate)
        self.method = tuned.method
        return tuned.record, tuned.report

    def _epoch(self, event: Epoch) -> None:
        self.curves.epoch(event)
        self.progress.epoch(event)

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

    def _candidate(self, number: int, count: int, values: dict[str, Any]) -> None:
        self.curves.candidate(number)
        self.progress.candidate(number, count, values)

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
            self.watch.look(tasks)
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
        with settled(self.settled):
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
        self._restore_method(saved)
        self._leave_out(saved.get(FORGOTTEN, []))
        self.entries, self.accuracy, self.digests = entries_of(saved), saved["accuracy"], saved["digests"]
        # A state of an earlier version does not have them.
        known = [Fixed(each) for each in saved.get("contents") or ()]
        self.contents = known or [self._contents(index) for index in range(len(self.entries))]
        self.saved_entries, self.saved_judged = [_saved(entry) for entry in self.entries], [None] * len(self.entries)
        for index, entry in enumerate(self.entries):
            self._note_judged(index, entry)
        self.steps, self.best = [changes(*pair) for pair in pairwise([[], *self.accuracy])], best_before(self.accuracy)

    def _restore_method(self, saved: Tree) -> None:
        self.method = restored(self.directory, self.config, saved, self.device)
        self.method.attach_extractor(self.extractors)

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
