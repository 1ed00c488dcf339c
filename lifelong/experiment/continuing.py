"""One more task for a finished run: the daily use of a lifelong learner.

The run's own stream stays as it is. Tasks that are added stand in `checkpoint/added.json`, and are learned behind it by the same runner.
Images of earlier tasks are not needed to learn, only to judge: where those of a task are no longer here its accuracy stays what it was as
long as the modules that answer for it have not changed by a bit, and is unknown (NaN, null in summary.json) once they have.

Stopped at any moment the run is valid: it has learned the task, or it has not, and the same call continues. Another task instead drops
what was begun.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from lifelong.data.address import KINDS, Address, parse_address
from lifelong.data.naming import class_name, shown
from lifelong.data.sources import Sources
from lifelong.data.task import AbsentTaskError, Split, Stream, Task, TaskDescription
from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.curves import drop_task
from lifelong.experiment.machine import choose_device, set_threads
from lifelong.experiment.observer import Observer
from lifelong.experiment.observers import observed
from lifelong.experiment.outcome import hold_results
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import content_of, extractor_opener, origin_of
from lifelong.experiment.runner import Runner
from lifelong.experiment.saved import SavedRun, open_run
from lifelong.experiment.schema import hold
from lifelong.experiment.tuning import check_tuning
from lifelong.json_files import read_record, write_record
from lifelong.opening import MOST_SETTINGS, read_json
from lifelong.records.run import RunRecord
from lifelong.settings.run import Environment
from lifelong.streams.build import SpecStream
from lifelong.streams.check import as_notes, data_check
from lifelong.streams.leakage import Contents, Learned
from lifelong.streams.named_streams import open_stream
from lifelong.streams.spec import StreamSpec, TaskSpec
from lifelong.training.denormals import flush_denormals
from lifelong.training.malloc import keep_small_blocks
from lifelong.training.precision import check_training, exact_float32
from lifelong.training.process import alone
from lifelong.training.stages import clear

AWAY = "images are not here: "
"""How a note of them begins."""


@dataclass(frozen=True)
class AddedTask:
    """A task that was added to a run.

    Attributes:
        name: of the task.
        source: where its images are: an address whose path is absolute.
        fingerprint: checksum of its images and labels, as the run's seed drew them.
        content: checksum of them whatever the seed; empty if an earlier version began it, which did not keep copies of earlier tasks'
            images out of it.
    """

    name: str
    source: str
    fingerprint: str
    content: str = field(default="", compare=False)


def learn_more(
    path: Path, address: str, environment: Environment, progress: Observer | None = None, *, name: str | None = None
) -> RunRecord:
    """Learn one more task, or go on where the same call was stopped.

    Args:
        path: the directory of a run that has learned its whole stream.
        address: the images of the task, such as `folder:PATH` with a folder for each class.
        environment: where data, weights and the device are.
        progress: is told what happens; None: nobody.
        name: of the task; None: the last part of its address.

    Returns:
        The summary of the run with this task; the one that it has, if it has learned exactly this task before.

    Raises:
        LifelongError: the run is not finished, has another task of this name, or the images cannot be used.
    """
    with alone("learn"):
        return _learn_more(path, address, environment, progress, name)


def _learn_more(path: Path, address: str, environment: Environment, progress: Observer | None, name: str | None) -> RunRecord:
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
        wanted, images = _open_task(saved, address, name, sources)
        added = _claim(saved, wanted, images)
        known = [task.name for task in summary.tasks]
        if added[-1] != wanted or (wanted.name in known and None not in summary.accuracy[-1]):
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
        origin = origin_of(stream.content, saved.identity)
        runner = Runner(
            *(config, stream, directory, device, extractors, listener, stream.notes, threads, saves),
            origin=origin,
            repaired=repaired,
            more={"added": [asdict(task) for task in added]},
        )
        with exact_float32(device):
            return runner.to_end()


def _open_task(saved: SavedRun, text: str, name: str | None, sources: Sources) -> tuple[AddedTask, SpecStream]:
    """Return the task that an address means, its images whole and readable."""
    address = parse_address(text, sized=True)
    place = sources.place(address) if address.kind in KINDS and address.kind != "hub" else None
    source = address.of_source(None if place is None else str(place.resolve())).removeprefix("named:")
    usual = address.where if place is None else place.resolve().stem if address.kind == "csv" else place.resolve().name
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
    images = _images(called, source, _size(saved, called, address), saved, sources, learned)
    images.prepare()
    content = hashlib.sha256(json.dumps(images.content()).encode()).hexdigest()[:16]
    return AddedTask(called, source, images.fingerprint(), content), images


def _size(saved: SavedRun, name: str, address: Address) -> int:
    """Height and width of a task's images: as its address says, or as they were learned, or else as those of the last task."""
    if "size" in address.options:
        return int(address.options["size"])
    return saved.entries[saved.names.index(name) if name in saved.names else -1]["image_size"]


def _images(name: str, source: str, size: int, saved: SavedRun, sources: Sources, learned: Sequence[Learned]) -> SpecStream:
    """Return a stream of one task, without what conflicts with the tasks learned before it."""
    return SpecStream(StreamSpec(name, (TaskSpec(name, source, image_size=size),)), saved.config.seed, sources, learned)


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


def _claim(saved: SavedRun, wanted: AddedTask, images: SpecStream) -> list[AddedTask]:
    """All added tasks with this one at their end, which is put down as the one that is learned next, unless it has been learned.

    Args:
        saved: the run.
        wanted: the task.
        images: of the task.

    Raises:
        LifelongError: another task has this name.
    """
    names = saved.names
    known = read_added(saved.directory)
    learned = [task for task in known if task.name in names]
    before = next((task for task in learned if (task.name, task.fingerprint) == (wanted.name, wanted.fingerprint)), None)
    if before is not None:
        if before != wanted:
            # The same images at another place: from now on they are looked for there.
            learned[learned.index(before)] = replace(wanted, content=before.content)
            _write(saved.directory, learned)
        return learned
    if wanted.name in names:
        which = "from these images" if _same_images(saved, wanted.name, images) else "from other images"
        raise LifelongError(
            f"{saved.directory.path} has learned a task '{wanted.name}' before, {which}; "
            + ("nothing is left to learn" if which == "from these images" else "give this one another name with --name")
        )
    claimed = [*learned, wanted]
    if claimed != known:
        # Another task was started but never finished: it is replaced.
        clear(saved.directory.stages(len(names)))
        drop_task(saved.directory.curves, len(names), saved.directory.seal)
        _write(saved.directory, claimed)
    return claimed


def _same_images(saved: SavedRun, name: str, images: SpecStream) -> bool:
    """Whether a task was learned from the images that are given again, in whatever splits."""
    before = next((task for task in saved.learned() if task.name == name), None)
    if before is None:
        return False
    old, new = (np.concatenate(list(contents.values())) for contents in (before.contents, images.contents(0)))
    return set(new.tolist()) <= set(old.tolist())


def added_file(directory: RunDirectory) -> Path:
    """Where it is put down which tasks were added to a run."""
    return directory.checkpoint / "added.json"


def _write(directory: RunDirectory, tasks: Sequence[AddedTask]) -> None:
    write_record(added_file(directory), {"run": directory.seal.run, "tasks": [asdict(task) for task in tasks]})


def read_added(directory: RunDirectory) -> list[AddedTask]:
    """Return the tasks that were added to a run, whether learned or only started.

    Raises:
        DamagedError: the file that says so is damaged, or another run's.
    """
    file = added_file(directory)
    try:
        # Earlier versions wrote the list alone.
        content = read_json(file, MOST_SETTINGS)
        if not (isinstance(content, list) and not directory.seal.required):
            content = read_record(file)[0]
            if content["run"] != directory.seal.run:
                raise DamagedError(f"{file} belongs to another run")
            content = content["tasks"]
        return [AddedTask(**task) for task in hold("added", content)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LifelongError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"cannot read {file}: damaged ({' '.join(str(error).split())}); restore it from a copy of the run") from error


def repair_added(saved: SavedRun) -> list[str]:
    """Rewrite the record of added tasks from the run's state if it was damaged; return what was repaired.

    Raises:
        DamagedError: it is damaged, and an earlier version saved the state, which does not know it.
    """
    learned = [AddedTask(**task) for task in saved.state.get("added") or []]
    try:
        known = read_added(saved.directory)
        if [task for task in known if task.name in saved.names][: len(learned)] == learned:
            return []
        wrong = "was not what the run's state says"
    except DamagedError:
        if "added" not in saved.state:
            raise
        wrong = "was damaged"
    _write(saved.directory, learned)
    return [f"{added_file(saved.directory).name} {wrong}; rewritten"]


def images_of(saved: SavedRun, sources: Sources) -> list[tuple[Stream, int] | None]:
    """Return the images of each learned task: a stream, and the task's position in it; None where those it learned are not here."""

    def found(fingerprint: str, open_images: Callable[[], Stream]) -> Stream | None:
        try:
            stream = open_images()
            return stream if stream.fingerprint() == fingerprint else None
        except LifelongError:
            return None

    added = [task for task in read_added(saved.directory) if task.name in saved.names]
    base = len(saved.names) - len(added)
    own = found(saved.identity["stream images"], lambda: open_stream(saved.config.stream, saved.config.seed, sources))
    parts: list[tuple[Stream, int] | None] = [None if own is None else (own, index) for index in range(base)]
    for index, task in enumerate(added, base):
        size, before = saved.entries[index].side, saved.learned(index) if task.content else []
        part = found(task.fingerprint, lambda at=task, size=size, before=before: _images(at.name, at.source, size, saved, sources, before))
        parts.append(None if part is None else (part, 0))
    return parts


class GrownStream:
    """The stream of a run and the tasks that were added to it; of the learned ones images may be missing.

    Args:
        saved: the run.
        summary: its summary.
        added: the tasks that were added, the newest last.
        newest: the images of the last one.
        sources: opens the images of the others.

    Attributes:
        notes: which tasks' images are not here.
        content: see `SpecStream.content`; "added" has that of each task that was added. None where it is not known.
    """

    def __init__(self, saved: SavedRun, summary: RunRecord, added: Sequence[AddedTask], newest: SpecStream, sources: Sources) -> None:
        self.name: str = summary.stream
        # The note on missing images is made again.
        self.notes: list[str] = [note for note in summary.notes or () if not note.startswith(AWAY)]
        self._saved, self._added, self._newest = saved, list(added), newest
        names, config = saved.names, saved.config
        base = len(names) - sum(task.name in names for task in added)
        own = self._present(self.name, saved.identity["stream images"], lambda: open_stream(config.stream, config.seed, sources))
        # A run of an earlier version does not say what its stream is made of.
        made_of = summary.stream_content or (None if own is None else content_of(own))
        self.content = None if made_of is None else made_of.model_copy(update={"added": [task.content for task in added]})
        self._parts: list[tuple[Stream | None, int]] = [(own, index) for index in range(base)]
        for task, entry in zip(added[:-1], saved.entries[base:], strict=False):
            size = entry.side
            before = saved.learned(names.index(task.name)) if task.content else []
            part = self._present(
                task.name,
                task.fingerprint,
                lambda at=task, size=size, before=before: _images(at.name, at.source, size, saved, sources, before),
            )
            self._parts.append((part, 0))
        self._parts.append((newest, 0))

    def _present(self, name: str, fingerprint: str, open_images: Callable[[], Stream]) -> Stream | None:
        """Return a stream if the images that were learned are here; else note that they are not."""
        try:
            found = open_images()
            if found.fingerprint() == fingerprint:
                return found
            reason = "they are others than those it learned"
        except LifelongError as error:
            reason = str(error)
        note = f"{AWAY}'{name}', so that what changed is not judged on them again ({reason})"
        if note not in self.notes:
            self.notes.append(note)
        return None

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: int) -> Task:
        stream, position = self._parts[index]
        if stream is None:
            raise AbsentTaskError
        return stream[position]

    def test_at(self, index: int, size: int) -> Split:
        """The test images of a task as squares of another size than its own."""
        stream, position = self._parts[index]
        if not isinstance(stream, SpecStream):
            raise AbsentTaskError
        return stream.test_at(position, size)

    def contents(self, index: int) -> Contents:
        """Return the content of a task's images: as recorded where it has been learned; empty where it is not known."""
        stream, position = self._parts[index]
        if index < len(self._saved.names) and self._saved.state.get("contents"):
            known = {task.name: task.contents for task in self._saved.learned()}
            return known.get(self._saved.names[index], {})
        return stream.contents(position) if isinstance(stream, SpecStream) else {}

    def __iter__(self) -> Iterator[Task]:
        return (self[index] for index in range(len(self)))

    def describe(self) -> list[TaskDescription]:
        """As recorded where a task has been learned, so that its images need not be here."""
        learned = [
            TaskDescription(entry.name, "", tuple(entry.classes), entry.train, entry.valid, entry.test, entry.side)
            for entry in self._saved.entries
        ]
        return [*learned, *self._newest.describe()][: len(self)]

    def prepare(self) -> None:
        """Decode the newest task's images."""
        self._newest.prepare()

    def fingerprint(self) -> str:
        """Return a checksum over those of the parts."""
        parts = [self._saved.identity["stream images"], *(task.fingerprint for task in self._added)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
