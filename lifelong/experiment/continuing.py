"""One more task for a finished run: the daily use of a lifelong learner.

The run's own stream stays as it is. Tasks that are added stand in `checkpoint/added.json`, and are learned behind it by the same runner.
Images of earlier tasks are not needed to learn, only to judge: where those of a task are no longer here its accuracy stays what it was as
long as the modules that answer for it have not changed by a bit, and is unknown (NaN, null in summary.json) once they have.

Stopped at any moment the run is valid: it has learned the task, or it has not, and the same call continues. Another task instead drops
what was begun.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from lifelong.data.address import KINDS, PYTHON, Address, parse_address
from lifelong.data.kept import keep_task, read_kept
from lifelong.data.naming import class_name, shown
from lifelong.data.objects import UNNAMED, held_of
from lifelong.data.sources import Sources
from lifelong.data.task import Task
from lifelong.errors import LifelongError
from lifelong.experiment.added_tasks import AddedTask, claim, drop_begun, read_added, repair_added
from lifelong.experiment.grown_stream import GrownStream, images_of_added
from lifelong.experiment.machine import choose_device, set_threads
from lifelong.experiment.observer import Observer
from lifelong.experiment.observers import observed
from lifelong.experiment.outcome import hold_results
from lifelong.experiment.remaining import FORGOTTEN
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import extractor_opener, origin_of
from lifelong.experiment.runner import Runner
from lifelong.experiment.saved import SavedRun, open_run
from lifelong.experiment.tuning import check_tuning
from lifelong.records.run import RunRecord
from lifelong.settings.run import Environment
from lifelong.streams.build import SpecStream
from lifelong.streams.check import as_notes, data_check
from lifelong.streams.leakage import Learned
from lifelong.streams.named_streams import open_stream
from lifelong.training.denormals import flush_denormals
from lifelong.training.malloc import keep_small_blocks
from lifelong.training.precision import check_training, exact_float32
from lifelong.training.process import alone


def learn_more(
    path: Path, task: str | Task, environment: Environment, progress: Observer | None = None, *, name: str | None = None
) -> RunRecord:
    """Learn one more task, or go on where the same call was stopped.

    Args:
        path: the directory of a run that has learned its whole stream.
        task: the address of its images, such as `folder:PATH` with a folder for each class; or a task of objects.
        environment: where data, weights and the device are.
        progress: is told what happens; None: nobody.
        name: of the task; None: its own, or the last part of its address.

    Returns:
        The summary of the run with this task; the one that it has, if it has learned exactly this task before.

    Raises:
        LifelongError: the run is not finished, has another task of this name, or the images cannot be used.
    """
    with alone("learn"):
        return _learn_more(path, task, environment, progress, name)


def drop_begun_task(path: Path) -> None:
    """Drop a task whose learning was stopped: the run is as it was before.

    Args:
        path: the directory of a run.

    Raises:
        LifelongError: there is no such run, or another process works in it.
    """
    RunDirectory(path).identity()  # Before the lock, which would make a folder that is not there.
    with RunDirectory(path).locked():
        RunDirectory(path).drop_parts()
        drop_begun(open_run(path))


def _learn_more(path: Path, task: str | Task, environment: Environment, progress: Observer | None, name: str | None) -> RunRecord:
    listener = observed(environment.observers, progress)
    keep_small_blocks()
    flush_denormals()
    device = choose_device(environment.device)
    RunDirectory(path).identity()  # Before the lock, which would make a folder that is not there.
    with RunDirectory(path).locked() as note:
        RunDirectory(path).drop_parts()
        saved = open_run(path, device)
        if saved.method.extractor() is not None:
            saved.check_weights(environment.weights)
        if not (path / "summary.json").exists():
            raise LifelongError(f"{path} has no summary.json; rerun the command that started the run to write it again")
        summary = saved.summary()
        if not summary.complete:
            raise LifelongError(f"{path} is not finished; continue it first, with the command that started it")
        repaired = repair_added(saved)
        sources = Sources(environment.data, download=environment.download, skip_broken=environment.skip_broken)
        wanted, images = open_task(saved, task, name, sources)
        added = claim(saved, wanted, images)
        known = [task.name for task in summary.tasks]
        if added[-1] != wanted or (wanted.name in known and None not in summary.accuracy[-1]):
            saved.directory.clear_stages(len(saved.entries))
            listener.task_saved(path, saved.entries, saved.state["accuracy"])
            there, wrong = hold_results(saved.directory, saved.entries, saved.state["accuracy"], summary)
            for note in [*repaired, *wrong]:
                listener.note(note)
            return there
        check_tuning(saved.config, {task.name: task.valid for task in images.describe()})
        stream = GrownStream(saved, summary, added, images, sources)
        stream.notes += [note] if note and note not in stream.notes else []
        stream.notes += _unknown(saved, sources)
        stream.notes += [note for note in as_notes(data_check(images)) if note not in stream.notes]
        stream.notes += check_training(saved.config.training, device, images.describe()[0].image_size)
        threads = set_threads(environment.threads, max(task.image_size for task in stream.describe()))
        extractors = extractor_opener(environment, device)
        config, directory, saves = saved.config, saved.directory, environment.save_every
        directory.keep_versions = environment.keep_versions
        origin = origin_of(stream.content, saved.identity)
        runner = Runner(
            *(config, stream, directory, device, extractors, listener, stream.notes, threads, saves),
            origin=origin,
            repaired=repaired,
            more={"added": [asdict(task) for task in added]} | ({FORGOTTEN: saved.forgotten} if saved.forgotten else {}),
        )
        with exact_float32(device):
            return runner.to_end()


def open_task(saved: SavedRun, task: str | Task, name: str | None, sources: Sources) -> tuple[AddedTask, SpecStream]:
    """Return the task that an address or an object means, its images whole and readable.

    Args:
        saved: the run that would learn it.
        task: the task, or the address of its images.
        name: of the task; None: its own, or the last part of its address.
        sources: open the images.

    Raises:
        LifelongError: the address or the name cannot be used, or the images cannot.
    """
    if isinstance(task, Task):
        held = held_of(task)
        name = name or held.name or _number(saved, keep_task(held, sources.cache))
        task = keep_task(held, sources.cache, name)
    address = parse_address(task, sized=True)
    place = sources.place(address) if address.kind in KINDS and address.kind != "hub" else None
    source = address.of_source(None if place is None else str(place.resolve())).removeprefix("named:")
    usual = (
        address.where.rpartition("@")[0]
        if address.kind == PYTHON
        else address.where
        if place is None
        else place.resolve().stem
        if address.kind == "csv"
        else place.resolve().name
    )
    # What was learned from this place keeps its name, also if an earlier version made another of it.
    given = name if name is not None else next((task.name for task in read_added(saved.directory) if task.source == source), usual)
    called = class_name(given)
    if called is None:
        raise LifelongError(f"task name '{shown(given)}': cannot be printed; give another with --name")
    position = saved.names.index(called) if called in saved.names else len(saved.names)
    begun = next(
        (task for task in read_added(saved.directory)[: position + 1] if task.name == called and position < len(saved.names)), None
    )
    learned = () if begun is not None and not begun.content else _learned(saved, position, sources)
    images = images_of_added(called, source, _size(saved, called, address, sources), saved, sources, learned)
    images.prepare()
    content = hashlib.sha256(json.dumps(images.content()).encode()).hexdigest()[:16]
    return AddedTask(called, source, images.fingerprint(), content), images


def _number(saved: SavedRun, address: str) -> str:
    """Name a task that was given no name: as it was named when it was added before, else by its number."""
    digest = parse_address(address).digest
    same = (task.name for task in read_added(saved.directory) if task.source.endswith(f"@{digest}"))
    return next(same, f"{UNNAMED} {len(saved.names) + 1}")


def _size(saved: SavedRun, name: str, address: Address, sources: Sources) -> int:
    """Height and width of a task's images: as its address says, or as they were learned, or else as those of the last task.

    Objects have a size of their own.
    """
    if address.kind == PYTHON:
        return read_kept(address, sources.cache)["size"]
    if "size" in address.options:
        return int(address.options["size"])
    return saved.entries[saved.names.index(name) if name in saved.names else -1]["image_size"]


def _learned(saved: SavedRun, count: int, sources: Sources) -> list[Learned]:
    """Return the first tasks of a run with the content of their images, as far as it is known.

    A run of an earlier version does not have it: then it is asked of the images, if those of the run's stream are here.
    """
    if saved.state.get("contents"):
        return saved.learned(count)
    try:
        own = open_stream(saved.config.stream, saved.config.seed, sources)
        if not isinstance(own, SpecStream) or own.fingerprint() != saved.identity["stream images"]:
            return []
        return [Learned(task.name, own.contents(index)) for index, task in enumerate(own.describe()[:count])]
    except LifelongError:
        return []


def _unknown(saved: SavedRun, sources: Sources) -> list[str]:
    """Return notes about learned tasks whose images could not be compared with the new ones."""
    known = {task.name for task in _learned(saved, len(saved.names), sources)}
    missing = [name for name in saved.names if name not in known]
    if not missing:
        return []
    return [
        f"images of {', '.join(missing)} are not known by content (an earlier version learned them): copies of them were not looked for"
    ]
