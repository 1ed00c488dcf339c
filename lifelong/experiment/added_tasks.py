"""Which tasks were added to a finished run, as `checkpoint/added.json` has it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.curves import drop_task
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.saved import SavedRun
from lifelong.experiment.schema import hold
from lifelong.json_files import read_record, write_record
from lifelong.opening import MOST_SETTINGS, read_json
from lifelong.storage import remove
from lifelong.streams.build import SpecStream
from lifelong.training.stages import clear


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


def claim(saved: SavedRun, wanted: AddedTask, images: SpecStream) -> list[AddedTask]:
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
            write_added(saved.directory, learned)
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
        write_added(saved.directory, claimed)
    return claimed


def drop_begun(saved: SavedRun) -> None:
    """Drop the task that was begun but not learned, so that the run is as it was before."""
    known = read_added(saved.directory)
    learned = [task for task in known if task.name in saved.names]
    clear(saved.directory.stages(len(saved.names)))
    drop_task(saved.directory.curves, len(saved.names), saved.directory.seal)
    if learned:
        write_added(saved.directory, learned)
    else:
        remove(added_file(saved.directory))


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


def write_added(directory: RunDirectory, tasks: Sequence[AddedTask]) -> None:
    """Put down which tasks were added to a run."""
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
    write_added(saved.directory, learned)
    return [f"{added_file(saved.directory).name} {wrong}; rewritten"]
