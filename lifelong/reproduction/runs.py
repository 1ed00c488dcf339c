"""Running what a table needs: one run after the other, what is finished passed over, what lacks its images counted as missing.

Beside the runs, `commits.jsonl` says by which commit of the library each was begun and gone on with: a line a start.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lifelong.data.sources import Sources
from lifelong.errors import DamagedError, LifelongError, MissingDataError
from lifelong.experiment.derived import known_summary
from lifelong.experiment.progress import Progress, duration
from lifelong.experiment.sweep import sweep
from lifelong.reproduction.commit import commit
from lifelong.reproduction.plan import Job
from lifelong.settings.resolve import default_values, flat
from lifelong.settings.run import Environment
from lifelong.streams.catalog import open_stream

COMMITS = "commits.jsonl"
QUIET = 60.0
"""Seconds after which a run that takes long says how far it is."""


@dataclass
class Outcome:
    """What has come of the runs so far.

    Attributes:
        summaries: of the finished ones, by job folder.
        missing: by the stream's name, why it could not be run.
    """

    summaries: dict[Path, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def finished(job: Job, out: Path) -> dict[str, Any] | None:
    """The summary of a run that is finished; None: it is not. No data are read.

    Raises:
        LifelongError: the folder holds a run with other settings.
    """
    folder = out / job.folder
    if not (folder / "summary.json").is_file():
        return None
    try:
        summary = known_summary(folder)
    except DamagedError:
        return None  # To be run again, which mends it or says why not.
    wanted = json.loads(json.dumps(flat(job.config)))
    stored_settings = default_values(job.config) | summary.get("settings", {})
    for key, value in wanted.items():
        stored = stored_settings.get(key)
        # "auto" has become what it means.
        if value not in (stored, "auto"):
            raise LifelongError(f"{folder} holds a run with {key} = {stored!r}, not {value!r}; choose another --out, or delete that folder")
    if stored_settings.get("variant") == "regularization" and any(task.get("decision") == "search" for task in summary["tasks"]):
        raise LifelongError(
            f"{folder} holds a run whose cell was searched, as earlier versions did there; choose another --out, or delete it"
        )
    return summary if summary.get("complete") else None


def find_finished(jobs: Sequence[Job], out: Path, outcome: Outcome) -> None:
    """Fill in the runs that are finished.

    Raises:
        LifelongError: a folder holds a run with other settings.
    """
    for job in jobs:
        if (summary := finished(job, out)) is not None:
            outcome.summaries[job.folder] = summary


def run_all(
    jobs: Sequence[Job], out: Path, environment: Environment, say: Callable[[str], None], outcome: Outcome, workers: int = 1
) -> None:
    """Run what is not finished. Interrupted at any moment, the same call continues.

    Args:
        jobs: in the order in which they are run.
        out: the folder of the reproduction.
        environment: where data, weights and the device are.
        say: is given a line about what happens.
        outcome: what is finished (see `find_finished`); is filled, run by run.
        workers: how many go on at once.

    Raises:
        LifelongError: as `lifelong.experiment.run.run`, but for images that are not there.
    """
    waiting = [job for job in jobs if job.folder not in outcome.summaries]
    ready = _with_images(waiting, environment, say, outcome)
    say(f"{len(jobs)} runs: {len(outcome.summaries)} finished before, {len(ready)} to do, {len(waiting) - len(ready)} without their images")
    clock = _Clock(workers)
    began: dict[int, float] = {}

    def begin(position: int) -> Progress:
        job = ready[position]
        say(f"run {position + 1} of {len(ready)}: {job.label} on {job.config.stream}, seed {job.seed}{clock.left(ready[position:])}")
        began[position] = time.monotonic()
        _note_commit(out, job)
        return _Heartbeat(say, "" if workers == 1 else f"run {position + 1}: ")

    for position, summary in sweep([(job.config, out / job.folder) for job in ready], environment, workers, begin):
        job, seconds = ready[position], time.monotonic() - began[position]
        outcome.summaries[job.folder] = summary
        clock.add(job, seconds)
        say(f"  {'' if workers == 1 else f'run {position + 1}: '}AP {summary['ap']:.3f}, {duration(seconds)}")


def _with_images(jobs: Sequence[Job], environment: Environment, say: Callable[[str], None], outcome: Outcome) -> list[Job]:
    """The jobs whose images are there; each stream is asked once for each seed, before anything is run."""
    sources = Sources(environment.data, download=environment.download, skip_broken=environment.skip_broken)
    reasons: dict[tuple[str, int], str | None] = {}
    for job in jobs:
        key = (job.config.stream, job.seed)
        if key not in reasons:
            try:
                open_stream(*key, sources).describe()
                reasons[key] = None
            except MissingDataError as error:
                reasons[key] = str(error)
                if job.stream not in outcome.missing:
                    say(f"missing: {job.config.stream}: {error}")
                # Without the places of this machine: it goes into tables.
                outcome.missing.setdefault(job.stream, f"no images of {error.source}")
    return [job for job in jobs if reasons[job.config.stream, job.seed] is None]


def _note_commit(out: Path, job: Job) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / COMMITS).open("a", encoding="utf-8") as file:
        # On a line of its own, also behind one that a kill has cut off.
        file.write("\n" + json.dumps({"run": str(job.folder), "commit": commit()}) + "\n")


def commits_of(out: Path, folders: Sequence[Path]) -> list[str]:
    """The commits by which runs were begun or gone on with, in order of time.

    Raises:
        LifelongError: the file that says so is damaged.
    """
    path, wanted = out / COMMITS, {str(folder) for folder in folders}
    if not path.is_file():
        return []
    found: dict[str, None] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            # Killed while it was written: that run had not begun.
            continue
        if record.get("run") in wanted:
            found[str(record.get("commit"))] = None
    return list(found)


class _Clock:
    """How long what remains will take: as its row took on that stream, else as the row took anywhere, else as all did."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._seconds: dict[tuple[str, ...], list[float]] = {}

    def add(self, job: Job, seconds: float) -> None:
        for key in ((job.row, job.stream), (job.row,), ()):
            self._seconds.setdefault(key, []).append(seconds)

    def left(self, jobs: Sequence[Job]) -> str:
        """In words; empty before anything is known."""
        if not self._seconds:
            return ""
        known = [next(self._seconds[key] for key in ((job.row, job.stream), (job.row,), ()) if key in self._seconds) for job in jobs]
        return f", about {duration(sum(sum(times) / len(times) for times in known) / self._workers)} left"


class _Heartbeat(Progress):
    """Says now and then how far a long run is."""

    def __init__(self, say: Callable[[str], None], label: str) -> None:
        self._say, self._label, self._said, self._tasks = say, label, time.monotonic(), 0

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        self._tasks = tasks
        if done:
            self._say(f"  {self._label}going on after task {done} of {tasks}")

    def task_finished(self, index: int, record: dict[str, Any], accuracy: list[float]) -> None:
        if time.monotonic() - self._said >= QUIET:
            self._say(f"  {self._label}task {index + 1} of {self._tasks} done")
            self._said = time.monotonic()
