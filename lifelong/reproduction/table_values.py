"""The paper's number, ours and the difference, for each row, stream and quantity of a table."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lifelong.errors import LifelongError
from lifelong.records.run import RunRecord
from lifelong.reproduction.paper import PaperRow, PaperStream, PaperTable
from lifelong.reproduction.plan import Choice, Job
from lifelong.reproduction.runs import Outcome
from lifelong.reproduction.scales import Scale

TOLERANCE = 0.02
"""By how much an AP or AF may differ from the paper's, either way, and still agree: about two standard deviations over seeds."""

SIZE_TOLERANCE = 0.05
"""By which share of the paper's number of parameters ours may differ, either way."""

Verdict = Literal["agrees", "differs"]


@dataclass(frozen=True)
class Cell:
    """A number of the paper and ours.

    Attributes:
        row: of the table.
        stream: of the table.
        stream_run: the stream as it was run, with all that was left out in its name.
        quantity: "ap", "af", "m" (millions of parameters) or "t" (hours).
        paper: the paper's number; None: it prints none.
        values: ours, one for each finished run.
        runs: their folders.
        seeds: theirs.
        minutes: of all of them together.
        machines: on which they ran.
        missing: why there are none, or fewer than requested; None: nothing is missing.
    """

    row: PaperRow
    stream: PaperStream
    stream_run: str
    quantity: str
    paper: float | None
    values: tuple[float, ...]
    runs: tuple[Path, ...]
    seeds: tuple[int, ...]
    minutes: float
    machines: tuple[str, ...]
    missing: str | None

    @property
    def mean(self) -> float | None:
        """Ours, over the seeds."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def sd(self) -> float | None:
        """The sample standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.mean is None or self.paper is None else self.mean - self.paper

    def verdict(self, scale: Scale, tolerance: float) -> Verdict | None:
        """Whether ours agrees with the paper's; None for what nothing can be said of, such as hours on another machine.

        Both sides count: a number that is better than the paper's by more than the tolerance is not reproduced either.

        Args:
            scale: at which it was made: a reduced one, or a stream without some of its tasks, is not the paper's.
            tolerance: for AP and AF; for parameters see `SIZE_TOLERANCE`.
        """
        if not scale.full or self.stream_run != scale.stream(self.stream.name):
            return None
        if self.difference is None or self.paper is None or self.quantity == "t":
            return None
        allowed = SIZE_TOLERANCE * self.paper if self.quantity == "m" else tolerance
        # A hundred-millionth more, so that a difference that is printed as the tolerance agrees.
        return "agrees" if abs(self.difference) <= allowed + 1e-8 else "differs"


def cells_of(table: PaperTable, choice: Choice, jobs: Sequence[Job], outcome: Outcome) -> list[Cell]:
    """Return the cells of a table: stream by stream, row by row, quantity by quantity.

    Args:
        table: of the paper.
        choice: what of it is made.
        jobs: its runs.
        outcome: what came of them.
    """
    run_as = {job.stream: job.config.stream for job in jobs}
    return [
        _cell(
            row,
            stream,
            run_as.get(stream.name, stream.name),
            quantity,
            [job for job in jobs if (job.row, job.stream) == (row.key, stream.name)],
            outcome,
        )
        for stream in choice.columns(table)
        for row in choice.rows(table)
        for quantity in table.quantities
    ]


def _cell(row: PaperRow, stream: PaperStream, run_as: str, quantity: str, jobs: Sequence[Job], outcome: Outcome) -> Cell:
    done = [job for job in jobs if job.folder in outcome.summaries]
    summaries = [outcome.summaries[job.folder] for job in done]
    missing = None
    if len(done) < len(jobs):
        missing = outcome.missing.get(stream.name, "not run yet")
    return Cell(
        row,
        stream,
        run_as,
        quantity,
        row.number(stream.name, quantity),
        tuple(measured(summary, quantity) for summary in summaries),
        tuple(job.folder for job in done),
        tuple(job.seed for job in done),
        sum(summary.seconds or 0.0 for summary in summaries) / 60,
        tuple(dict.fromkeys(f"{summary.machine}, {summary.device}" for summary in summaries)),
        missing,
    )


def measured(summary: RunRecord, quantity: str) -> float:
    """Return a quantity of a finished run, in the units of the tables.

    Args:
        summary: of the run.
        quantity: "ap", "af", "m" or "t".
    """
    if quantity == "t":
        return learning_seconds(summary) / 3600
    found = {"m": summary.parameters, "ap": summary.ap, "af": summary.af}[quantity]
    return math.nan if found is None else found / 1e6 if quantity == "m" else found


def learning_seconds(summary: RunRecord) -> float:
    """Return what learning took; judging all tasks after each is the measurement's time, not the method's."""
    return sum(seconds or 0.0 for phase, seconds in (summary.seconds_by_phase or {}).items() if phase != "evaluate")


def check_tolerance(tolerance: float) -> float:
    """Check a tolerance.

    Raises:
        LifelongError: it is not in [0, 1).
    """
    if not 0 <= tolerance < 1:
        raise LifelongError(f"--tolerance {tolerance}: expected a number from 0 up to 1")
    return tolerance
