"""The engine for this machine: carries out runs one after the other, or several at once in separate processes."""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lifelong.experiment.job import RunJob, RunOutcome, ended, perform, taken
from lifelong.experiment.machine import give_memory_back, one_of_several
from lifelong.experiment.observer import Observer
from lifelong.experiment.turns import Turns
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.training.malloc import keep_freed_memory
from lifelong.training.stages import Epoch

PATIENCE = 5.0
"""Seconds that a process gets to end before it is killed; what it has learned is already on disk."""

PULSE = 1.0
"""Seconds between the epochs that a process reports."""


class Local:
    """Carries out jobs on this machine: one after the other in this process, or several at once in separate processes."""

    def run(self, jobs: Sequence[RunJob], workers: int, begin: Callable[[int], Observer]) -> Iterator[tuple[int, RunOutcome]]:
        """See `lifelong.experiment.engine.Engine.run`. A run in a separate process reports at most one epoch per second.

        Several at once begin in the given order until one of each kind has; then the longest ones first (see `Turns`). A process that has
        finished a run takes the next one, because starting another takes seconds; one whose run failed is replaced.
        """
        if workers == 1 or len(jobs) == 1:
            for position, job in enumerate(jobs):
                yield position, taken(job) or perform(job, begin(position))
            return
        # Not by fork, which is not safe in a process with threads; so the device and the data sets in memory are not shared.
        context = multiprocessing.get_context("spawn")
        turns = Turns(jobs)
        going: dict[Connection, _Worker] = {}
        waiting: list[_Worker] = []
        places = list(range(workers))
        try:
            while turns or going:
                while turns and (waiting or places):
                    position = turns.next()
                    if (outcome := taken(jobs[position])) is not None:
                        yield position, outcome
                        continue
                    listener = begin(position)
                    worker = waiting.pop() if waiting else _Worker(context, places.pop(0))
                    worker.begin(position, _at(jobs[position], worker.place), listener)
                    going[worker.connection] = worker
                for connection in wait(list(going)):
                    worker = going[connection]  # ty: ignore[invalid-argument-type]
                    outcome = worker.hear()
                    if outcome is None:
                        continue
                    del going[worker.connection]
                    if turns and outcome.summary is not None:
                        waiting.append(worker)
                    else:
                        worker.end()
                        places.append(worker.place)
                    turns.ended(worker.position, outcome)
                    yield worker.position, outcome
        finally:
            for worker in going.values():
                worker.stop()
            for worker in [*going.values(), *waiting]:
                worker.end()


def _at(job: RunJob, place: int) -> RunJob:
    """Return a job with the device of its place among the parallel ones."""
    return replace(job, environment=replace(job.environment, device=one_of_several(job.environment.device, place)))


class _Worker:
    """The sweep's handle of a process that carries out one run after another.

    Attributes:
        place: which of the parallel processes it is, from 0; decides about its device.
        connection: on which the process reports.
        position: of the job that it carries out.
    """

    def __init__(self, context: Any, place: int) -> None:
        self.place, self.position = place, -1
        self.connection, theirs = context.Pipe()
        self._out, self._listener = Path(), Observer()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, position: int, job: RunJob, listener: Observer) -> None:
        """Let the process carry out a job."""
        self.position, self._out, self._listener = position, job.out, listener
        with suppress(OSError):  # if the process has died, `hear` says so
            self.connection.send(job)

    def hear(self) -> RunOutcome | None:
        """Receive the process's next message, and pass it to the listener; return the outcome when it arrives or the process has died."""
        try:
            word, told = self.connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            return RunOutcome(None, ended(self._out, f"with code {self._process.exitcode}"))
        if word == "outcome":
            return told
        getattr(self._listener, word)(*told)
        return None

    def stop(self) -> None:
        """Ask the process to end at once."""
        self._process.terminate()

    def end(self) -> None:
        """Wait until it has ended."""
        self.connection.close()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _work(connection: Connection) -> None:
    """Carry out jobs in a separate process until the sweep has no more."""
    # Ctrl-C reaches all processes of a terminal; only the sweep ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_sweep, args=(multiprocessing.parent_process(),), daemon=True).start()
    keep_freed_memory()
    with suppress(EOFError):
        while True:
            job = connection.recv()
            connection.send(("outcome", perform(job, _Teller(connection))))
            give_memory_back()


def _end_with_the_sweep(parent: Any) -> None:
    """End this process if the sweep is killed."""
    parent.join()
    os._exit(1)


class _Teller(Observer):
    """Reports its run's progress to the sweep."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._told = -math.inf

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        """See `Observer.run_started`."""
        self._connection.send(("run_started", (stream, method, tasks, done)))

    def task_started(self, index: int, name: str) -> None:
        """See `Observer.task_started`."""
        self._connection.send(("task_started", (index, name)))

    def candidate(self, number: int, count: int, values: dict[str, Any]) -> None:
        """See `Observer.candidate`."""
        self._connection.send(("candidate", (number, count, values)))

    def phase(self, name: str) -> None:
        """See `Observer.phase`."""
        self._connection.send(("phase", (name,)))

    def epoch(self, event: Epoch) -> None:
        """See `Observer.epoch`."""
        self._now_and_then("epoch", event)

    def advance(self, done: int, total: int) -> None:
        """See `Observer.advance`."""
        self._now_and_then("advance", done, total)

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """See `Observer.task_finished`."""
        self._connection.send(("task_finished", (index, record, accuracy)))

    def note(self, text: str) -> None:
        """See `Observer.note`."""
        self._connection.send(("note", (text,)))

    def run_finished(self, summary: RunRecord) -> None:
        """See `Observer.run_finished`."""
        self._connection.send(("run_finished", (summary,)))

    def _now_and_then(self, word: str, *told: Any) -> None:
        """Tell what happens often, unless something of the kind has just been told."""
        now = time.monotonic()
        if now - self._told >= PULSE:
            self._told = now
            self._connection.send((word, told))
