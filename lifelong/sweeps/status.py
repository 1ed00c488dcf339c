"""How far the runs of a sweep are, as their folders and journals say; no run is disturbed."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.derived import known_summary
from lifelong.experiment.journal import Journal
from lifelong.experiment.locking import held
from lifelong.experiment.summaries import read_summary
from lifelong.records.run import RunRecord
from lifelong.sweeps.spec import Plan, Planned

State = Literal["waiting", "running", "finished", "failed"]


@dataclass(frozen=True)
class RunStatus:
    """The state of a run.

    Attributes:
        run: its name in the sweep.
        state: "waiting" (also one that was stopped, and goes on when the sweep does), "running", "finished" or "failed".
        done: tasks that it has learned.
        tasks: tasks of its stream; 0: it has not begun.
        starts: how often it was started or continued.
        host: machine that works on it, or has last; "" if it has not begun.
        process: number of the process there.
        since: when it was last started, as ISO 8601.
        ap: average performance, in [0, 1]; None unless it is finished.
        failure: why it failed, in one line; else empty.
    """

    run: str
    state: State
    done: int
    tasks: int
    starts: int
    host: str
    process: int
    since: str
    ap: float | None
    failure: str


@dataclass(frozen=True)
class SweepStatus:
    """The state of all runs of a sweep.

    Attributes:
        out: its folder.
        runs: each run, in order.
    """

    out: Path
    runs: tuple[RunStatus, ...]

    @property
    def counts(self) -> dict[State, int]:
        """Number of runs in each state."""
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in ("waiting", "running", "finished", "failed")}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"out": str(self.out), "counts": self.counts, "runs": [asdict(run) for run in self.runs]}


def status_of(plan: Plan) -> SweepStatus:
    """Return the state of all runs.

    Raises:
        LifelongError: a journal cannot be read.
    """
    return SweepStatus(plan.out, tuple(_status(plan, run) for run in plan.runs))


def _status(plan: Plan, run: Planned) -> RunStatus:
    folder, noted = plan.out / run.name, Journal(plan.journal(run)).read()
    finished = _finished(folder)
    state: State = "waiting"
    if held(folder):
        state = "running"
    elif finished is not None:
        state = "finished"
    elif noted.what == "failed":
        state = "failed"
    done, tasks = (noted.done, noted.tasks) if finished is None else (len(finished.tasks),) * 2
    ap = finished.ap if finished is not None and state == "finished" else None
    failure = noted.failure if state == "failed" else ""
    return RunStatus(run.name, state, done, tasks, noted.starts, noted.host, noted.process, noted.since, ap, failure)


def finished_runs(plan: Plan) -> dict[int, RunRecord]:
    """Return the summaries of the finished runs, by position, each held against the run's state; damaged ones are to be run again."""
    found: dict[int, RunRecord] = {}
    for position, run in enumerate(plan.runs):
        folder = plan.out / run.name
        if _finished(folder) is None or held(folder):
            continue
        try:
            found[position] = known_summary(folder)
        except DamagedError:  # the run repairs it, or says why that is impossible
            continue
    return found


def _finished(folder: Path) -> RunRecord | None:
    """Return the summary of a run that is finished; None: it is not, or its summary is damaged, which the sweep repairs."""
    try:
        summary = read_summary(folder)
    except LifelongError:
        return None
    return summary if summary.complete else None
