"""The stream of a run together with the tasks that were added to it; images of learned ones may be missing."""

from collections.abc import Callable, Iterator, Sequence

from lifelong.data.address import PYTHON
from lifelong.data.sources import Sources
from lifelong.data.task import AbsentTaskError, Split, Stream, Task, TaskDescription
from lifelong.errors import LifelongError
from lifelong.experiment.added_tasks import AddedTask, read_added
from lifelong.experiment.remaining import fingerprint_with, fingerprint_without, places_left
from lifelong.experiment.run import content_of
from lifelong.experiment.saved import SavedRun
from lifelong.records.run import RunRecord
from lifelong.streams.build import SpecStream
from lifelong.streams.leakage import Contents, Learned
from lifelong.streams.named_streams import open_stream
from lifelong.streams.objects import object_task
from lifelong.streams.spec import StreamSpec, TaskSpec

AWAY = "images are not here: "
"""How a note of them begins."""


def images_of_added(name: str, source: str, size: int, saved: SavedRun, sources: Sources, learned: Sequence[Learned]) -> SpecStream:
    """Return a stream of one task, without what conflicts with the tasks learned before it."""
    of_objects = source.startswith(f"{PYTHON}:")
    task = object_task(name, source, sources, size) if of_objects else TaskSpec(name, source, image_size=size)
    return SpecStream(StreamSpec(name, (task,)), saved.config.seed, sources, learned)


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
    places = places_left(base, saved.forgotten)
    parts: list[tuple[Stream, int] | None] = [None if own is None else (own, place) for place in places]
    for index, task in enumerate(added, base):
        size, before = saved.entries[index].side, saved.learned(index) if task.content else []
        part = found(
            task.fingerprint, lambda at=task, size=size, before=before: images_of_added(at.name, at.source, size, saved, sources, before)
        )
        parts.append(None if part is None else (part, 0))
    return parts


ABSENT = "given from Python; lifelong.open_stream(tasks) with equal objects keeps them in the cache again"
"""Why the images of a task of objects are not here."""


def from_python(saved: SavedRun, index: int) -> bool:
    """Return whether a learned task was given as Python objects."""
    added = [task.source for task in read_added(saved.directory) if task.name in saved.names]
    base = len(saved.names) - len(added)
    return (saved.config.stream if index < base else added[index - base]).startswith(f"{PYTHON}:")


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
        made_of = summary.stream_content or (None if own is None or saved.forgotten else content_of(own))
        self.content = None if made_of is None else made_of.model_copy(update={"added": [task.content for task in added]})
        self._parts: list[tuple[Stream | None, int]] = [(own, place) for place in places_left(base, saved.forgotten)]
        for task, entry in zip(added[:-1], saved.entries[base:], strict=False):
            size = entry.side
            before = saved.learned(names.index(task.name)) if task.content else []
            part = self._present(
                task.name,
                task.fingerprint,
                lambda at=task, size=size, before=before: images_of_added(at.name, at.source, size, saved, sources, before),
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
        own = fingerprint_without(self._saved.identity["stream images"], self._saved.forgotten)
        return fingerprint_with(own, [task.fingerprint for task in self._added])
