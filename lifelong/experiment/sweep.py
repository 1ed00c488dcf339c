"""Carry out several runs on an engine, one after the other or in parallel.

Runs only share the cache of decoded images, so parallel runs give the same numbers as sequential ones (to the bit, with the same number of
threads). If a sweep is stopped, the same sweep later skips finished runs and continues the others. Several processes may carry out the same
sweep at once, on several machines that share the folder: each run is carried out by one of them, and the others wait for it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lifelong.errors import LifelongError
from lifelong.experiment.engine import Engine
from lifelong.experiment.job import RunJob, RunOutcome
from lifelong.experiment.journal import Journal
from lifelong.experiment.locking import held
from lifelong.experiment.observer import Observer
from lifelong.records.run import RunRecord
from lifelong.settings.arguments import MOST_WORKERS
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.sockets import ENGINES

SHOWN = 3
"""Largest number of failures named in one message."""

PAUSE = (1.0, 30.0)
"""Seconds between two looks at runs that other processes carry out: at first, and at most."""


class SweepError(LifelongError):
    """Some runs of a sweep have failed; the others are finished.

    Args:
        message: one line.
        summaries: summaries of the finished runs, by position.
    """

    def __init__(self, message: str, summaries: Mapping[int, RunRecord]) -> None:
        super().__init__(message)
        self.summaries = dict(summaries)


def check_sweep(workers: int, engine: str) -> None:
    """Check the options of a sweep before it starts.

    Raises:
        LifelongError: the number of workers is out of range, there is no such engine, or it lacks something here.
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise LifelongError(f"--workers {workers}: must be at least 1 and at most {MOST_WORKERS}")
    if engine not in ENGINES:
        ENGINES.entry(engine)
    check = getattr(ENGINES[engine](), "check", None)
    if check is not None:
        check()


def sweep(
    runs: Sequence[tuple[RunConfig, Path]],
    environment: Environment,
    workers: int,
    begin: Callable[[int], Observer],
    engine: str = "local",
    *,
    journals: Sequence[Path] | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> Iterator[tuple[int, RunRecord]]:
    """Carry out runs.

    Args:
        runs: configurations and run directories, no directory twice; they begin in this order, unless the engine knows a better one.
        environment: where data, weights and the device are; if it sets no number of threads, parallel runs share the cores.
        workers: number of runs in parallel.
        begin: called with a run's position when it begins; returns the run's observer, which is also told if the run fails.
        engine: name of a registered engine; see `lifelong.experiment.engine`.
        journals: a file for each run, to which its events are added (see `RunJob`); None: no events are noted.
        tell: called with a line about runs that other processes carry out, which are waited for.

    Yields:
        The position and the summary of each run, as it finishes.

    Raises:
        SweepError: some runs have failed; raised after all others have ended. Running the sweep again continues them.
        LifelongError: the number of workers or the engine is not usable.
        RuntimeError: a run has met a bug; raised after all others have ended.
    """
    check_sweep(workers, engine)
    place = replace(environment, at_once=max(1, min(workers, len(runs))))
    files = journals or [None] * len(runs)
    jobs = [RunJob(config, out, place, journal=file) for (config, out), file in zip(runs, files, strict=True)]
    told: dict[int, Observer] = {}
    finished: dict[int, RunRecord] = {}
    failed: dict[int, RunOutcome] = {}

    def begun(position: int) -> Observer:
        told[position] = begin(position)
        return told[position]

    for position, outcome in _carried_out(jobs, workers, begun, engine, tell):
        if outcome.summary is not None:
            finished[position] = outcome.summary
            yield position, outcome.summary
            continue
        failed[position] = outcome
        _note_failure(jobs[position], outcome)
        if position in told and len(jobs) > 1:
            told[position].run_failed(outcome.failure)
    for position, outcome in failed.items():
        if outcome.crash:
            raise RuntimeError(f"in the run of {jobs[position].out}:\n{outcome.crash}")
    if failed:
        raise SweepError(_failures(jobs, failed), finished)


def _carried_out(
    jobs: Sequence[RunJob], workers: int, begin: Callable[[int], Observer], engine: str, tell: Callable[[str], object]
) -> Iterator[tuple[int, RunOutcome]]:
    """Carry out jobs, those last that other processes are carrying out; when these end, they are continued, or read."""
    waiting, pause, said = list(range(len(jobs))), PAUSE[0], False
    while waiting:
        taken: dict[int, str] = {}
        chosen: Engine = ENGINES[engine]()
        lacking = set(range(len(waiting)))
        for place, outcome in chosen.run([jobs[position] for position in waiting], workers, lambda place, at=waiting: begin(at[place])):
            if place not in lacking or not isinstance(outcome, RunOutcome):
                raise LifelongError(
                    f"engine '{engine}': gave {(place, outcome)!r}; it must give the position of each job, once, with a RunOutcome"
                )
            lacking.remove(place)
            if outcome.taken:
                taken[waiting[place]] = outcome.failure
            else:
                pause = PAUSE[0]
                yield waiting[place], outcome
        if lacking:
            raise LifelongError(f"engine '{engine}': ended without the outcome of {len(lacking)} of {len(waiting)} jobs")
        if taken and not said:
            more = f" (and {len(taken) - 1} more such runs)" if len(taken) > 1 else ""
            tell(f"waiting, since {next(iter(taken.values()))}{more}")
            said = True
        waiting = list(taken)
        if waiting:
            time.sleep(pause)
            while all(held(jobs[position].folder / jobs[position].out) for position in waiting):
                time.sleep(PAUSE[0])
            # Longer and longer where this machine does not see who holds a run.
            pause = min(2 * pause, PAUSE[1])


def _note_failure(job: RunJob, outcome: RunOutcome) -> None:
    """Note a failure in the job's journal, unless its process could do so before it ended."""
    if job.journal is not None and (journal := Journal(job.folder / job.journal)).read().what != "failed":
        journal.failed(outcome.failure)


def _failures(jobs: Sequence[RunJob], failed: Mapping[int, RunOutcome]) -> str:
    """Describe the failures of a sweep; a failure that all runs share is given once."""
    lines = {outcome.failure for outcome in failed.values()}
    if len(failed) == len(jobs) and len(lines) == 1:
        return lines.pop()
    named = [f"{jobs[position].out}: {outcome.failure}" for position, outcome in sorted(failed.items())]
    more = [f"and {len(named) - SHOWN} more"] if len(named) > SHOWN else []
    return f"{len(failed)} of {len(jobs)} runs failed, the others are finished: {'; '.join([*named[:SHOWN], *more])}"
