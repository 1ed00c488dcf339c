"""Which of several waiting runs begins next, so that the longest is not left alone at the end."""

import json
import time
from collections.abc import Callable, Sequence

from lifelong.experiment.job import RunJob, RunOutcome
from lifelong.settings.resolve import flat


class Turns:
    """The runs of a sweep that wait for a worker.

    Runs that differ by their seed alone take about equally long. One of each kind begins first, in the given order; then the longest of the
    kinds that have been seen (LPT, "longest processing time first").

    Args:
        jobs: the runs, in the order in which they begin as long as nothing is known of them.
        clock: gives seconds; for tests.
    """

    def __init__(self, jobs: Sequence[RunJob], clock: Callable[[], float] = time.monotonic) -> None:
        self._kinds = [_kind(job) for job in jobs]
        self._waiting = list(range(len(jobs)))
        self._clock = clock
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Return whether any run waits."""
        return bool(self._waiting)

    def next(self) -> int:
        """Return the position of the run that begins now."""
        position = max(self._waiting, key=self._rank)
        self._waiting.remove(position)
        self._began.setdefault(self._kinds[position], self._clock())
        return position

    def ended(self, position: int, outcome: RunOutcome) -> None:
        """Note what a run took: all its tasks, also those that were learned before it was continued."""
        if outcome.summary is not None:
            kind = self._kinds[position]
            self._took[kind] = max(outcome.summary.seconds or 0.0, self._took.get(kind, 0.0))

    def _rank(self, position: int) -> tuple[bool, float, int]:
        kind = self._kinds[position]
        new = kind not in self._began
        # Of a kind that is under way for the first time, no more is known than how long it has been.
        seconds = 0.0 if new else self._took.get(kind, self._clock() - self._began[kind])
        return new, seconds, -position


def _kind(job: RunJob) -> str:
    """Return all settings of a run but its seed."""
    return json.dumps({key: value for key, value in flat(job.config).items() if key != "seed"}, sort_keys=True, default=str)
