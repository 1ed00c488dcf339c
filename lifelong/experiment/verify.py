"""Whether a run directory is what was written: every digest, the configuration, the numbers, and on demand the answers.

Nothing is written here, unless a repair is asked for (`lifelong.experiment.repairing`).
"""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lifelong.data.sources import Sources
from lifelong.data.task import Split, Stream
from lifelong.digests import UNCHECKED
from lifelong.errors import DamagedError, LifelongError
from lifelong.experiment.added_tasks import added_file, read_added
from lifelong.experiment.curves import incomplete, read_curves
from lifelong.experiment.derived import entries_of, summary_of
from lifelong.experiment.grown_stream import ABSENT, from_python, images_of
from lifelong.experiment.judging import right_share
from lifelong.experiment.learning import digest_modules
from lifelong.experiment.letting_go import FOLDER, pending
from lifelong.experiment.machine import choose_device, made_with, set_threads
from lifelong.experiment.outcome import wrong_results
from lifelong.experiment.part_checks import check_parts
from lifelong.experiment.repairing import repair_run
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import read_config
from lifelong.experiment.saved import SavedRun, open_run
from lifelong.experiment.schema import LaterError
from lifelong.experiment.soundness import check_state
from lifelong.experiment.summaries import SUMMARY, read_summary
from lifelong.json_files import read_lines, read_record
from lifelong.records.base import plain
from lifelong.records.task import TaskRecord
from lifelong.settings.run import Environment
from lifelong.storage import Stored, Tree, read_tree
from lifelong.training.denormals import flush_denormals
from lifelong.training.examples import batched, counted
from lifelong.training.precision import exact_float32
from lifelong.training.process import as_found
from lifelong.words import counted as in_words

Condition = Literal["good", "unchecked", "damaged", "missing"]
"""As it was written; of a version that wrote no digests; not as it was written; not there, though it ought to be."""

ROUNDING = 0.02
"""How far an accuracy may lie from the recorded one where another machine judges: another summation, and an image at a boundary."""

CLOSE = 1e-5
"""How near the two largest logits of an image lie, by the largest, if the other images of its batch may decide between them."""


@dataclass(frozen=True)
class Checked:
    """What was found of one file.

    Attributes:
        file: below the run directory.
        condition: see `Condition`.
        about: what is wrong, or what should be known; may be empty.
    """

    file: str
    condition: Condition
    about: str = ""


@dataclass(frozen=True)
class Judged:
    """A task judged again from its test images.

    Attributes:
        task: its name.
        recorded: the accuracy that the run has for it, in [0, 1]; None: not known.
        found: the accuracy now; None: its images are not here.
        right: whether they agree; None: that cannot be said.
        about: why its images are not here, and what to do, where that is known.
    """

    task: str
    recorded: float | None
    found: float | None
    right: bool | None
    about: str = ""


@dataclass(frozen=True)
class Verification:
    """What was found of a run directory.

    Attributes:
        run: the directory.
        tasks: how many tasks it has learned.
        files: its files, in order.
        judged: its tasks, if it was asked to judge.
        repaired: what was repaired before; empty unless that was asked for.
    """

    run: str
    tasks: int
    files: tuple[Checked, ...]
    judged: tuple[Judged, ...] = ()
    repaired: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged or missing, and every accuracy that was judged again is the recorded one."""
        return all(each.condition in ("good", "unchecked") for each in self.files) and all(each.right is not False for each in self.judged)

    def plain(self) -> dict[str, Any]:
        """As JSON has it: the attributes, and "sound"."""
        return {"sound": self.sound} | asdict(self)


def verify(path: Path, environment: Environment, *, judge: bool = False, repair: bool = False) -> Verification:
    """Check a run directory.

    Args:
        path: the directory.
        environment: where data and the device are, to judge.
        judge: also judge every task again from its test images, as far as these are here.
        repair: fix first what can be repaired.

    Raises:
        LifelongError: the folder holds no run, another version's, or one that another process is running in (to repair).
    """
    with as_found():
        directory = RunDirectory(path)
        if not directory.checkpoint.is_dir():
            raise directory.no_run()
        repaired: list[str] = []
        if repair:
            with directory.locked():
                repaired = repair_run(directory)
        files = list(_check(RunDirectory(path)))
        sound = all(each.condition in ("good", "unchecked") for each in files)
        learned = directory.learned() and sound
        judged = tuple(_judge(open_run(path, choose_device(environment.device)), environment)) if judge and learned else ()
        return Verification(str(path), _count(directory), tuple(files), judged, tuple(repaired))


def _count(directory: RunDirectory) -> int:
    try:
        stored = RunDirectory(directory.path).plain_state()
    except LifelongError:
        return 0
    return 0 if stored is None else len(stored.tree["entries"])


def _check(directory: RunDirectory) -> Iterator[Checked]:
    """Each file of a run; what hangs on a damaged one is checked as far as that is possible."""
    name = directory.identity_file.relative_to(directory.path).as_posix()
    try:
        directory.identity()
        yield Checked(name, "good" if directory.seal.required else "unchecked", "" if directory.seal.required else UNCHECKED)
    except DamagedError as error:
        yield Checked(name, "damaged", _reason(error))
        return
    except LifelongError:
        if directory.identity_file.exists():
            raise
        yield Checked(name, "missing")
        return
    config_good = False
    try:
        read_config(directory)
        config_good = True
        yield Checked("config.toml", "good")
    except LifelongError as error:
        yield Checked("config.toml", "damaged" if (directory.path / "config.toml").exists() else "missing", _reason(error))
    if pending(directory):
        about = "a task was being forgotten when the process ended; any command that writes to the run, or --repair, finishes it"
        yield Checked(f"checkpoint/{FOLDER}", "damaged", about)
    stored = yield from _check_state(directory)
    for file in sorted(directory.checkpoint.glob("stages/**/*.safetensors")):
        yield _check_tree(directory, file, directory.seal.owner(file))
    yield from _check_curves(directory, [] if stored is None else entries_of(stored.tree))
    if stored is not None:
        yield from _check_results(directory, stored.tree, config_good=config_good)


def _check_state(directory: RunDirectory) -> Generator[Checked, None, Stored | None]:
    """Check the two states, and return what the newer holds; None if it cannot be used."""
    name, stored = _name(directory, directory.state_file), None
    for file, condition, about in check_parts(directory):
        yield Checked(file, condition, about)
    if directory.state_file.exists():
        try:
            found = directory.stored()
            assert found is not None
            check_state(directory.state_file, found.tree)
            stored = found
            yield _whole(name, stored)
        except LifelongError as error:
            yield Checked(name, "damaged", _reason(error))
    elif directory.previous_file.exists() or _results_left(directory):
        yield Checked(name, "missing")
    if directory.previous_file.exists():
        yield _check_tree(directory, directory.previous_file, directory.seal.owner(directory.state_file))
    return stored


def _results_left(directory: RunDirectory) -> bool:
    """Tell whether there are results of learned tasks."""
    if directory.results.exists() and directory.results.stat().st_size:
        return True
    try:
        return bool(read_summary(directory.path).tasks)
    except LifelongError:
        return (directory.path / SUMMARY).exists()


def _check_tree(directory: RunDirectory, file: Path, owner: str) -> Checked:
    try:
        return _whole(_name(directory, file), read_tree(file, owner=owner, required=directory.seal.required, parts=directory.parts))
    except LifelongError as error:
        return Checked(_name(directory, file), "damaged", _reason(error))


def _whole(name: str, stored: Stored) -> Checked:
    return Checked(name, "good") if stored.checked else Checked(name, "unchecked", UNCHECKED)


def _name(directory: RunDirectory, file: Path) -> str:
    return file.relative_to(directory.path).as_posix()


def _check_curves(directory: RunDirectory, entries: Sequence[TaskRecord]) -> Iterator[Checked]:
    """Check the lines of the curves; what is left of them is no less right where others are lost."""
    name = directory.curves.name
    if not directory.curves.exists():
        if any(entry.epochs for entry in entries):
            yield Checked(name, "unchecked", "not there, though tasks were trained: their curves are lost")
        return
    try:
        lines = read_curves(directory.curves, directory.seal)
    except LifelongError as error:
        yield Checked(name, "damaged", _reason(error))
        return
    if lines.lost:
        yield Checked(name, "damaged", f"{in_words(lines.lost, 'line')} damaged, or another run's")
    elif lines.torn:
        yield Checked(name, "damaged", "its last line has no end")
    else:
        lost = incomplete(lines.found, [entry.epochs or 0 for entry in entries])
        about = f"not of all epochs of task {', '.join(str(index + 1) for index in lost)}: lines are lost" if lost else ""
        yield Checked(name, "good" if lines.checked else "unchecked", about or ("" if lines.checked else UNCHECKED))


def _check_results(directory: RunDirectory, state: Tree, *, config_good: bool) -> Iterator[Checked]:
    """Check what follows from the state: its own records against its weights, the lists of tasks, the numbers."""
    name, saved, known = _name(directory, directory.state_file), None, None
    entries, accuracy = entries_of(state), state["accuracy"]
    try:
        saved = open_run(directory.path)
    except LifelongError as error:
        # A damaged configuration was found before. What has no cause is no damage: a package is missing that the method needs, say.
        if config_good:
            yield Checked(name, "damaged" if error.__cause__ else "unchecked", _reason(error))
    if saved is not None:
        for index, entry in enumerate(entries):
            wrong = _wrong_record(saved, index)
            if wrong:
                yield Checked(name, "damaged", f"task '{entry.name}': {wrong}")
        yield from _check_added(directory, saved)
    try:
        with suppress(LifelongError):
            known = read_summary(directory.path)
        summary = summary_of(state, known, None if saved is None else saved.method)
    except DamagedError as error:
        yield Checked(name, "damaged", _reason(error))
        return
    if summary is None:
        yield Checked(SUMMARY, "damaged" if (directory.path / SUMMARY).exists() else "missing")
        return
    try:
        wrong_files = wrong_results(directory, entries, accuracy, summary)[1]
    except LaterError:
        raise
    except LifelongError as error:  # one of them cannot be read at all
        yield Checked(directory.results.name, "damaged", _reason(error))
        return
    for name in (directory.results.name, SUMMARY):
        file = directory.path / name
        if name in wrong_files:
            if not file.exists():
                yield Checked(name, "missing")
            elif wrong_files[name]:
                yield Checked(name, "damaged", wrong_files[name])
            else:
                yield Checked(name, "good", "of fewer tasks than the run's state: rerun the command that started the run to write it again")
        else:
            checked = read_lines(file, directory.seal).checked if file == directory.results else read_record(file)[1]
            yield Checked(name, "good" if checked else "unchecked", "" if checked else UNCHECKED)


def _check_added(directory: RunDirectory, saved: SavedRun) -> Iterator[Checked]:
    name = _name(directory, added_file(directory))
    try:
        known = read_added(directory)
    except LifelongError as error:
        yield Checked(name, "damaged", _reason(error))
        return
    learned = [asdict(task) for task in known if task.name in saved.names]
    kept = saved.state.get("added", learned)
    if learned[: len(kept)] != kept:
        yield Checked(name, "damaged", "it is not what the run's state says")
    elif known:
        yield Checked(name, "good")


def _reason(error: LifelongError) -> str:
    """Say what is wrong, without advice."""
    return str(error).split("; ")[0]


def _wrong_record(saved: SavedRun, index: int) -> str:
    """Return what the state records of a task and its weights do not bear out; empty: nothing."""
    entry, now = saved.entries[index], saved.state["accuracy"][-1][index]
    digests = saved.state.get("digests") or []
    if index < len(digests) and digest_modules(saved.method, index) != digests[index]:
        return "its weights are not those that were judged"
    counts = None if entry.judged is None else entry.judged.confusion
    if counts and not math.isnan(now):
        if any(len(row) != len(counts) for row in counts) or not any(map(sum, counts)):
            return "its confusion matrix is not of test images"
        right, total = sum(row[place] for place, row in enumerate(counts)), sum(map(sum, counts))
        if not math.isclose(right / total, now, abs_tol=1e-9):
            return "its accuracy is not that of its confusion matrix"
    return ""


def _judge(saved: SavedRun, environment: Environment) -> Iterator[Judged]:
    """Each task's test images, asked again, as a run asks them; the method needs no extractor for that."""
    flush_denormals()
    sources = Sources(environment.data, download=environment.download, skip_broken=environment.skip_broken)
    device = choose_device(environment.device)
    threads = set_threads(environment.threads, max(entry.side for entry in saved.entries))
    now = made_with(device, threads)
    with exact_float32(device):
        for index, (entry, images) in enumerate(zip(saved.entries, images_of(saved, sources), strict=True)):
            recorded = plain(saved.state["accuracy"][-1][index])
            if images is None:
                yield Judged(entry.name, recorded, None, None, ABSENT if from_python(saved, index) else "")
                continue
            found, close = _accuracy(saved, index, *images)
            near = close if saved.entries[-1].made_with == now else max(ROUNDING, 2 / entry.test)
            yield Judged(entry.name, recorded, found, None if recorded is None else abs(found - recorded) <= near + 1e-9)


def _accuracy(saved: SavedRun, index: int, stream: Stream, position: int) -> tuple[float, float]:
    """Return the accuracy on a task's test images, and the share of them that rounding may answer otherwise.

    A run lets small test sets pass a network together, which changes the last digit of the logits.
    """
    parameters = next((tensor for module in saved.method.modules(index) for tensor in module.state_dict().values()), None)
    test: Split = stream[position].test
    test = test if parameters is None else test.to(parameters.device)
    logits = batched(lambda images: saved.method.logits(images, index), test.images, together=saved.method.batch_dependent)
    largest = logits.topk(min(2, logits.shape[1]), dim=1).values
    close = (largest[:, 0] - largest[:, -1] < CLOSE * logits.abs().amax(dim=1)).double().mean() if logits.shape[1] > 1 else torch.zeros(1)
    return right_share(counted(logits, test.labels)), float(close)
