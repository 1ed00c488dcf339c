"""Run what a table needs: one run after another, skipping finished runs; runs without images count as missing.

Next to the runs, `commits.jsonl` records the commit of the library with which each run was started or continued, one line per start.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lifelong.data.sources import Sources
from lifelong.errors import DamagedError, LifelongError, MissingDataError
from lifelong.experiment.derived import known_summary
from lifelong.experiment.machine import choose_device, machine_name
from lifelong.experiment.observer import Observer
from lifelong.experiment.sweep import sweep
from lifelong.opening import parse_json, read_text, refuse_links
from lifelong.records.run import RunRecord
from lifelong.reproduction.commit import commit
from lifelong.reproduction.plan import Job
from lifelong.reproduction.remaining import RunHeartbeat, Times, pixels_of
from lifelong.settings.resolve import default_values, flat
from lifelong.settings.run import Environment
from lifelong.streams.named_streams import open_stream
from lifelong.words import duration

COMMITS = "commits.jsonl"


@dataclass
class Outcome:
    """The results of the runs so far.

    Attributes:
        summaries: of the finished ones, by job folder.
        missing: by the stream's name, why it could not be run.
    """

    summaries: dict[Path, RunRecord] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def finished(job: Job, out: Path) -> RunRecord | None:
    """Return the summary of a run that is finished; None: it is not. No data are read.

    Raises:
        LifelongError: the folder holds a run with other settings.
    """
    folder = out / job.folder
    if not (folder / "summary.json").is_file():
        return None
    try:
        summary = known_summary(folder)
    except DamagedError:
        return None  # Running it again repairs it, or says why that is impossible.
    wanted = json.loads(json.dumps(flat(job.config)))
    stored_settings = default_values(job.config) | (summary.settings or {})
    for key, value in wanted.items():
        stored = stored_settings.get(key)
        # "auto" has become what it means.
        if value not in (stored, "auto"):
            raise LifelongError(f"{folder} holds a run with {key} = {stored!r}, not {value!r}; choose another --out, or delete that folder")
    if stored_settings.get("variant") == "regularization" and any(task.decision == "search" for task in summary.tasks):
        raise LifelongError(
            f"{folder} holds a run whose cell was searched, as earlier versions did there; choose another --out, or delete it"
        )
    return summary if summary.complete else None


def find_finished(jobs: Sequence[Job], out: Path, outcome: Outcome) -> None:
    """Fill in the runs that are finished.

    Raises:
        LifelongError: a folder holds a run with other settings.
    """
    for job in jobs:
        if (summary := finished(job, out)) is not None:
            outcome.summaries[job.folder] = summary


def run_all(
    jobs: Sequence[Job],
    out: Path,
    environment: Environment,
    say: Callable[[str], None],
    outcome: Outcome,
    workers: int = 1,
    engine: str = "local",
) -> None:
    """Run what is not finished. Interrupted at any moment, the same call continues.

    Args:
        jobs: in the order in which they are run.
        out: the folder of the reproduction.
        environment: where data, weights and the device are.
        say: called with a line of progress.
        outcome: what is finished (see `find_finished`); is filled, run by run.
        workers: how many are under way at once.
        engine: name of the engine that carries them out; see `lifelong.experiment.engine`.

    Raises:
        SweepError: runs have failed, but for images that are not there; the others are finished.
    """
    waiting = [job for job in jobs if job.folder not in outcome.summaries]
    ready, pixels = _with_images(waiting, environment, say, outcome)
    say(f"{len(jobs)} runs: {len(outcome.summaries)} finished before, {len(ready)} to do, {len(waiting) - len(ready)} without their images")
    if not ready:
        return
    times = Times(min(workers, len(ready)))
    here = machine_name(choose_device(environment.device))
    for job in jobs:
        # What another machine took says nothing of this one.
        if (summary := outcome.summaries.get(job.folder)) is not None and summary.machine == here:
            times.end(job, summary)

    def begin(position: int) -> Observer:
        job = ready[position]
        remaining = [(each, sum(pixels[each.config.stream, each.seed])) for each in ready if each.folder not in outcome.summaries]
        say(f"run {position + 1} of {len(ready)}: {job.label} on {job.config.stream}, seed {job.seed}, {times.left(remaining)}")
        times.begin(job)
        _note_commit(out, job)
        parts = pixels[job.config.stream, job.seed]
        return RunHeartbeat(say, "" if workers == 1 else f"run {position + 1}: ", times.of(job, sum(parts)), parts)

    for position, summary in sweep([(job.config, out / job.folder) for job in ready], environment, workers, begin, engine, tell=say):
        job = ready[position]
        outcome.summaries[job.folder] = summary
        say(f"  {'' if workers == 1 else f'run {position + 1}: '}AP {summary.ap:.3f}, {duration(times.end(job, summary))}")


def _with_images(
    jobs: Sequence[Job], environment: Environment, say: Callable[[str], None], outcome: Outcome
) -> tuple[list[Job], dict[tuple[str, int], list[float]]]:
    """Return the jobs whose images are there, and the pixels of their tasks by stream and seed; each is asked once, before any run."""
    sources = Sources(environment.data, download=environment.download, skip_broken=environment.skip_broken)
    pixels: dict[tuple[str, int], list[float]] = {}
    absent: set[tuple[str, int]] = set()
    for job in jobs:
        key = (job.config.stream, job.seed)
        if key not in pixels and key not in absent:
            try:
                pixels[key] = pixels_of(open_stream(*key, sources).describe())
            except MissingDataError as error:
                absent.add(key)
                if job.stream not in outcome.missing:
                    say(f"missing: {job.config.stream}: {error}")
                # Without paths of this machine, because it appears in tables.
                outcome.missing.setdefault(job.stream, f"no images of {error.source}")
    return [job for job in jobs if (job.config.stream, job.seed) in pixels], pixels


def _note_commit(out: Path, job: Job) -> None:
    out.mkdir(parents=True, exist_ok=True)
    refuse_links(out, (COMMITS,))
    with (out / COMMITS).open("a", encoding="utf-8") as file:
        # On its own line, even after a line that a kill has truncated.
        file.write("\n" + json.dumps({"run": str(job.folder), "commit": commit()}) + "\n")


def commits_of(out: Path, folders: Sequence[Path]) -> list[str]:
    """Return the commits by which runs were started or continued, in order of time.

    Raises:
        LifelongError: the file that says so is damaged.
    """
    path, wanted = out / COMMITS, {str(folder) for folder in folders}
    try:
        text = read_text(path, errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LifelongError(f"cannot read {path}: {error.strerror}; delete it") from error
    found: dict[str, None] = {}
    for line in text.splitlines():
        try:
            record = parse_json(line)
        except ValueError:
            # Killed while the line was written: that run had not started.
            continue
        if isinstance(record, dict) and isinstance(record.get("run"), str) and record["run"] in wanted:
            found[str(record.get("commit"))] = None
    return list(found)
