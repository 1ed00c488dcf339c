"""Several runs, one after the other or a few at once, each of these in a process of its own.

Runs share no state but the cache of decoded images, so that those at once come to the same numbers as those in turn (to the bit where
they have the same number of threads). Stopped at any moment, the same sweep passes over what is finished and continues what was begun.
"""

import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError
from lifelong.experiment.observer import Observer
from lifelong.experiment.run import run
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.settings.arguments import MOST_WORKERS
from lifelong.settings.run import Environment, RunConfig
from lifelong.training.malloc import keep_freed_memory
from lifelong.training.stages import Epoch

Planned = tuple[RunConfig, Path]
"""What is run, and its directory."""

PATIENCE = 5.0
"""Seconds that a process is given to end before it is killed: what it had learned is on the disk."""

PULSE = 1.0
"""Seconds between two epochs that a process tells of."""


def check_workers(workers: int) -> int:
    """How many runs go on at once.

    Raises:
        LifelongError: less than one, or more than any machine has room for.
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise LifelongError(f"--workers {workers}: must be at least 1 and at most {MOST_WORKERS}")
    return workers


def sweep(
    runs: Sequence[Planned], environment: Environment, workers: int, begin: Callable[[int], Observer]
) -> Iterator[tuple[int, RunRecord]]:
    """Run what is planned.

    Args:
        runs: in the order in which they begin; no directory twice.
        environment: where data, weights and the device are; without a number of threads the runs at once share the cores.
        workers: how many go on at once; 1: in turn, and in this process.
        begin: called with a run's position when it begins; what it returns is told how far the run comes. Of a run in a process of
            its own it is not told every epoch, but one a second.

    Yields:
        The position and the summary of each run, as it ends.

    Raises:
        LifelongError: as `lifelong.experiment.run.run`; the other runs are stopped, and continue when the sweep is run again.
    """
    if check_workers(workers) == 1 or len(runs) == 1:
        for position, (config, out) in enumerate(runs):
            yield position, run(config, out, environment, begin(position))
        return
    # The device and the data sets in memory are shared by none: a fork of a process with threads is not safe.
    context = multiprocessing.get_context("spawn")
    place = replace(environment, at_once=min(workers, len(runs)))
    waiting = list(enumerate(runs))
    going: dict[Connection, _Worker] = {}
    try:
        while waiting or going:
            while waiting and len(going) < workers:
                position, (config, out) = waiting.pop(0)
                worker = _Worker(context, position, config, out, place, begin(position))
                going[worker.connection] = worker
            for connection in wait(list(going)):
                worker = going[connection]  # ty: ignore[invalid-argument-type]
                summary = worker.hear()
                if summary is not None:
                    del going[worker.connection]
                    worker.end()
                    yield worker.position, summary
    finally:
        for worker in going.values():
            worker.stop()
        for worker in going.values():
            worker.end()


class _Worker:
    """A process with a run under way, seen from the sweep."""

    def __init__(self, context: Any, position: int, config: RunConfig, out: Path, environment: Environment, listener: Observer) -> None:
        self.position, self._out, self._listener = position, out, listener
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, config, out, environment), daemon=True)
        self._process.start()
        theirs.close()

    def hear(self) -> RunRecord | None:
        """Hear what the process says next, and tell the listener; return the summary once it comes.

        Raises:
            LifelongError: the run has failed, or its process has died.
        """
        try:
            word, told = self.connection.recv()
        except EOFError:
            self._process.join()
            raise LifelongError(
                f"the process of {self._out} has ended with code {self._process.exitcode} (killed, or out of memory?);"
                " run the same command again, with fewer --workers"
            ) from None
        if word == "summary":
            return told
        if word == "failed":
            raise LifelongError(told)
        if word == "crashed":
            raise RuntimeError(f"in the process of {self._out}:\n{told}")
        getattr(self._listener, word)(*told)
        return None

    def stop(self) -> None:
        """Ask the process to end."""
        self._process.terminate()

    def end(self) -> None:
        """Wait until it has ended."""
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.connection.close()


def _work(connection: Connection, config: RunConfig, out: Path, environment: Environment) -> None:
    """Work as a process of its own."""
    # Ctrl-C reaches all processes of a terminal; the sweep says when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_sweep, args=(multiprocessing.parent_process(),), daemon=True).start()
    keep_freed_memory()
    try:
        connection.send(("summary", run(config, out, environment, _Teller(connection))))
    except LifelongError as error:
        connection.send(("failed", str(error)))
    except Exception:
        connection.send(("crashed", traceback.format_exc()))


def _end_with_the_sweep(parent: Any) -> None:
    """Leave no process behind when the sweep is killed."""
    parent.join()
    os._exit(1)


class _Teller(Observer):
    """Tells the sweep how far its run has come."""

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
