"""Carry out several runs on an engine, one after the other or in parallel.

Runs only share the cache of decoded images, so parallel runs give the same numbers as sequential ones (to the bit, with the same number of
threads). If a sweep is stopped, the same sweep later skips finished runs and continues the others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lifelong.errors import LifelongError
from lifelong.experiment.engine import Engine
from lifelong.experiment.job import RunJob, RunOutcome
from lifelong.experiment.observer import Observer
from lifelong.records.run import RunRecord
from lifelong.settings.arguments import MOST_WORKERS
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.sockets import ENGINES

SHOWN = 3
"""Largest number of failures named in one message."""


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
        LifelongError: the number of workers is out of range, or there is no such engine.
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise LifelongError(f"--workers {workers}: must be at least 1 and at most {MOST_WORKERS}")
    ENGINES.entry(engine)


def sweep(
    runs: Sequence[tuple[RunConfig, Path]],
    environment: Environment,
    workers: int,
    begin: Callable[[int], Observer],
    engine: str = "local",
) -> Iterator[tuple[int, RunRecord]]:
    """Carry out runs.

    Args:
        runs: configurations and run directories, in the order in which they begin; no directory twice.
        environment: where data, weights and the device are; if it sets no number of threads, parallel runs share the cores.
        workers: number of runs in parallel.
        begin: called with a run's position when it begins; returns the run's observer, which is also told if the run fails.
        engine: name of a registered engine; see `lifelong.experiment.engine`.

    Yields:
        The position and the summary of each run, as it finishes.

    Raises:
        SweepError: some runs have failed; raised after all others have ended. Running the sweep again continues them.
        LifelongError: the number of workers or the engine is not usable.
        RuntimeError: a run has met a bug; raised after all others have ended.
    """
    check_sweep(workers, engine)
    place = replace(environment, at_once=max(1, min(workers, len(runs))))
    jobs = [RunJob(config, out, place) for config, out in runs]
    told: dict[int, Observer] = {}
    finished: dict[int, RunRecord] = {}
    failed: dict[int, RunOutcome] = {}

    def begun(position: int) -> Observer:
        told[position] = begin(position)
        return told[position]

    chosen: Engine = ENGINES[engine]()
    for position, outcome in chosen.run(jobs, workers, begun):
        if outcome.summary is not None:
            finished[position] = outcome.summary
            yield position, outcome.summary
            continue
        failed[position] = outcome
        if position in told and len(jobs) > 1:
            told[position].run_failed(outcome.failure)
    for position, outcome in failed.items():
        if outcome.crash:
            raise RuntimeError(f"in the run of {jobs[position].out}:\n{outcome.crash}")
    if failed:
        raise SweepError(_failures(jobs, failed), finished)


def _failures(jobs: Sequence[RunJob], failed: Mapping[int, RunOutcome]) -> str:
    """Describe the failures of a sweep; a failure that all runs share is given once."""
    lines = {outcome.failure for outcome in failed.values()}
    if len(failed) == len(jobs) and len(lines) == 1:
        return lines.pop()
    named = [f"{jobs[position].out}: {outcome.failure}" for position, outcome in sorted(failed.items())]
    more = [f"and {len(named) - SHOWN} more"] if len(named) > SHOWN else []
    return f"{len(failed)} of {len(jobs)} runs failed, the others are finished: {'; '.join([*named[:SHOWN], *more])}"
