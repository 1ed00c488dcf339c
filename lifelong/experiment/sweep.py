"""Several runs on an engine, one after the other or several at once.

Runs share no state but the cache of decoded images, so that those at once come to the same numbers as those in turn (to the bit where
they have the same number of threads). Stopped at any moment, the same sweep passes over what is finished and continues the rest.
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
"""The most failures that are named in one message."""


class SweepError(LifelongError):
    """Some runs of a sweep have failed; the others are finished.

    Args:
        message: one line.
        summaries: of the finished runs, by their position.
    """

    def __init__(self, message: str, summaries: Mapping[int, RunRecord]) -> None:
        super().__init__(message)
        self.summaries = dict(summaries)


def check_sweep(workers: int, engine: str) -> None:
    """Check before a sweep how it is to be carried out.

    Raises:
        LifelongError: there are fewer workers than one or more than any machine has room for, or no such engine.
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
        runs: what is run, and its directory, in the order in which they begin; no directory twice.
        environment: where data, weights and the device are; without a number of threads the runs at once share the cores.
        workers: how many are under way at once.
        begin: called with a run's position when it begins; what it returns is told how far the run comes, and that it has failed.
        engine: name of a registered engine; see `lifelong.experiment.engine`.

    Yields:
        The position and the summary of each run, as it finishes.

    Raises:
        SweepError: runs have failed; raised after all others have ended. All continue when the sweep is run again.
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
    """Word the failures of a sweep: the line alone where it is that of every run."""
    lines = {outcome.failure for outcome in failed.values()}
    if len(failed) == len(jobs) and len(lines) == 1:
        return lines.pop()
    named = [f"{jobs[position].out}: {outcome.failure}" for position, outcome in sorted(failed.items())]
    more = [f"and {len(named) - SHOWN} more"] if len(named) > SHOWN else []
    return f"{len(failed)} of {len(jobs)} runs failed, the others are finished: {'; '.join([*named[:SHOWN], *more])}"
