"""A run under way: learn a task, let its images go, judge, save, and so to the end of the stream."""

import time
from dataclasses import fields, replace
from functools import partial
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from lifelong.data.feature_cache import keeping
from lifelong.data.task import Task, TaskDescription
from lifelong.digests import UNCHECKED
from lifelong.errors import LifelongError
from lifelong.experiment.curves import drop_task
from lifelong.experiment.derived import head_of, summary_of
from lifelong.experiment.learned_so_far import LearnedSoFar
from lifelong.experiment.learning import learn_timed, retire
from lifelong.experiment.lines import line_of
from lifelong.experiment.machine import (
    made_with,
    out_of_memory,
    watch_device_memory,
)
from lifelong.experiment.outcome import hold_results
from lifelong.experiment.resuming import resumed
from lifelong.experiment.summaries import read_summary
from lifelong.experiment.tuning import tune_task
from lifelong.methods.method import Context, LearnRecord
from lifelong.methods.registry import make_method
from lifelong.records.base import plain, said
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord, TaskTuning
from lifelong.storage import Tree
from lifelong.training.stages import Epoch, change, clear


class Runner(LearnedSoFar):
    """One run under way; see `LearnedSoFar` for what it is made of."""

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
            known = summary_of(stored.tree, None if "summary" in stored.tree else self._read_summary(), self.method, self.entries)
            if not stored.checked:
                self._note(f"{self.directory.state_file.name}: {UNCHECKED}")
        done = len(self.entries)
        self.directory.clear_stages(done)
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
        # Not `asdict`, which copies a number for each earlier task one by one.
        noted = {each.name: getattr(record, each.name) for each in fields(record)}
        entry = {
            "name": task.name,
            "classes": list(task.classes),
            "train": description.train,
            "valid": description.valid,
            "test": description.test,
            "image_size": description.image_size,
            "seconds_by_phase": noted.pop("seconds"),
            "made_with": made_with(self.device, self.threads),
            **noted,
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

    def _candidate(self, number: int, count: int, values: dict[str, Any]) -> None:
        self.curves.candidate(number)
        self.progress.candidate(number, count, values)
