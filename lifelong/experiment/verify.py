"""Whether a run directory is what was written: every digest, the configuration, the numbers, and on demand the answers.

Only `fix` writes: it restores the last good state, rewrites the files that follow from it, and drops what is computed
again.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lifelong.data.sources import Sources
from lifelong.data.task import Split, Stream
from lifelong.digests import UNCHECKED
from lifelong.errors import DamagedError, ForeignError, LifelongError
from lifelong.experiment.added_tasks import read_added, repair_added
from lifelong.experiment.curves import repair_curves
from lifelong.experiment.derived import entries_of, summary_of
from lifelong.experiment.grown_stream import images_of
from lifelong.experiment.identity import config_of, misfit
from lifelong.experiment.judging import right_share
from lifelong.experiment.learning import digest_modules
from lifelong.experiment.machine import choose_device, made_with, set_threads
from lifelong.experiment.outcome import hold_results, wrong_results
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import read_config, read_settings
from lifelong.experiment.saved import SavedRun, open_run
from lifelong.experiment.summaries import read_summary
from lifelong.json_files import Lines, read_lines, read_record
from lifelong.methods.registry import known_methods
from lifelong.records.base import plain
from lifelong.segments import FOLDERS
from lifelong.settings.resolve import config_toml
from lifelong.settings.run import Environment
from lifelong.storage import Stored, read_tree, write_text
from lifelong.training.denormals import flush_denormals
from lifelong.training.examples import confusion
from lifelong.training.precision import exact_float32
from lifelong.training.process import as_found

Condition = Literal["good", "unchecked", "damaged", "missing"]
"""As it was written; of a version that wrote no digests; not as it was written; not there, though it ought to be."""

ROUNDING = 0.02
"""How far an accuracy may lie from the recorded one where another machine judges: another summation, and an image at a boundary."""


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
    """

    task: str
    recorded: float | None
    found: float | None
    right: bool | None


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
            raise LifelongError(f"{path} holds no run; give the folder that --out named")
        repaired: list[str] = []
        if repair:
            with directory.locked():
                repaired = _repair(directory)
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
    try:
        read_config(directory)
        yield Checked("config.toml", "good")
    except LifelongError as error:
        yield Checked("config.toml", "damaged" if (directory.path / "config.toml").exists() else "missing", _reason(error))
    state = yield from _check_state(directory)
    for file in sorted(directory.checkpoint.glob("stages/**/*.safetensors")):
        yield _check_tree(directory, file, directory.seal.owner(file))
    lines = read_lines(directory.curves, directory.seal)
    if directory.curves.exists():
        lost = f"{lines.lost} lines are damaged, or another run's" if lines.lost else ""
        yield Checked(directory.curves.name, "damaged" if lost else "good" if lines.checked else "unchecked", lost)
    if state is not None:
        yield from _check_results(directory, state)


def _check_tree(directory: RunDirectory, file: Path, owner: str) -> Checked:
    name = file.relative_to(directory.path).as_posix()
    try:
        checked = read_tree(file, owner=owner, required=directory.seal.required, parts=directory.parts).checked
        return Checked(name, "good" if checked else "unchecked", "" if checked else UNCHECKED)
    except LifelongError as error:
        return Checked(name, "damaged", _reason(error))


def _check_state(directory: RunDirectory) -> Generator[Checked, None, Stored | None]:
    """Check the two states, and return what the newer holds; None if it cannot be used."""
    owner = directory.seal.owner(directory.state_file)
    yield from _check_parts(directory)
    if not directory.state_file.exists():
        results = directory.results.exists() and directory.results.stat().st_size > 0
        if results or directory.previous_file.exists():
            yield Checked(directory.state_file.relative_to(directory.path).as_posix(), "missing")
        if directory.previous_file.exists():
            yield _check_tree(directory, directory.previous_file, owner)
        return None
    found = _check_tree(directory, directory.state_file, owner)
    yield found
    if directory.previous_file.exists():
        yield _check_tree(directory, directory.previous_file, owner)
    return directory.stored() if found.condition != "damaged" else None


def _lost_lines(lines: Lines) -> tuple[Condition, str]:
    """Return the condition of a file of lines, and what is wrong with it."""
    lost = lines.lost + lines.torn
    return ("damaged", f"{lost} lines are damaged, or another run's") if lost else ("good", "")


def _check_parts(directory: RunDirectory) -> Iterator[Checked]:
    """Check both copies of all segments; those that are good are counted."""
    parts = directory.parts
    names, good = parts.names(), dict.fromkeys(FOLDERS, 0)
    for name in names:
        for place, error in parts.check(name).items():
            if error is None:
                good[place] += 1
            else:
                file = directory.checkpoint / place / name
                yield Checked(f"checkpoint/{place}/{name}", "damaged" if file.exists() else "missing", _reason(error))
    lines = directory.journal.lines()
    if directory.journal.file.exists():
        yield Checked(f"checkpoint/{directory.journal.file.name}", *_lost_lines(lines))
    for place, count in good.items():
        if count:
            yield Checked(f"checkpoint/{place}", "good", f"{count} of {len(names)} files" if count < len(names) else "")


def _check_results(directory: RunDirectory, stored: Stored) -> Iterator[Checked]:
    """Check what follows from the state: the lists of tasks, the numbers, and the state's own records against its weights."""
    state = stored.tree
    saved = _open(directory)
    try:
        entries, accuracy = entries_of(state), state["accuracy"]
    except DamagedError as error:
        yield Checked("checkpoint/run.safetensors", "damaged", _reason(error))
        return
    if saved is not None:
        for index, entry in enumerate(entries):
            wrong = _wrong_record(saved, index)
            if wrong:
                yield Checked("checkpoint/run.safetensors", "damaged", f"task '{entry.name}': {wrong}")
        try:
            known = read_added(directory)
            learned = [asdict(task) for task in known if task.name in saved.names]
            kept = state.get("added", learned)
            if learned[: len(kept)] != kept:
                yield Checked("checkpoint/added.json", "damaged", "it is not what the run's state says")
            elif known:
                yield Checked("checkpoint/added.json", "good")
        except LifelongError as error:
            yield Checked("checkpoint/added.json", "damaged", _reason(error))
    try:
        read = read_summary(directory.path)
    except LifelongError:
        read = None
    summary = summary_of(state, read, None if saved is None else saved.method)
    if summary is None:
        yield Checked("summary.json", "damaged" if (directory.path / "summary.json").exists() else "missing")
        return
    wrong_files = wrong_results(directory, entries, accuracy, summary)[1]
    for name in ("results.jsonl", "summary.json"):
        file = directory.path / name
        if name in wrong_files:
            if not file.exists():
                yield Checked(name, "missing")
            elif wrong_files[name]:
                yield Checked(name, "damaged", wrong_files[name])
            else:
                yield Checked(name, "good", "of fewer tasks than the run's state: rerun the command that started the run to write it again")
        else:
            checked = read_lines(file, directory.seal).checked if name == "results.jsonl" else read_record(file)[1]
            yield Checked(name, "good" if checked else "unchecked", "" if checked else UNCHECKED)


def _open(directory: RunDirectory) -> SavedRun | None:
    try:
        return open_run(directory.path)
    except LifelongError:
        return None


def _wrong_record(saved: SavedRun, index: int) -> str:
    """Return what the state records of a task and its weights do not bear out; empty: nothing."""
    entry, now = saved.entries[index], saved.state["accuracy"][-1][index]
    digests = saved.state.get("digests") or []
    if index < len(digests) and digest_modules(saved.method, index) != digests[index]:
        return "its weights are not those that were judged"
    counts = None if entry.judged is None else entry.judged.confusion
    if counts and not math.isnan(now):
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
                yield Judged(entry.name, recorded, None, None)
                continue
            found = _accuracy(saved, index, *images)
            near = 0.0 if saved.entries[-1].made_with == now else max(ROUNDING, 2 / entry.test)
            yield Judged(entry.name, recorded, found, None if recorded is None else abs(found - recorded) <= near + 1e-9)


def _accuracy(saved: SavedRun, index: int, stream: Stream, position: int) -> float:
    parameters = next((tensor for module in saved.method.modules(index) for tensor in module.state_dict().values()), None)
    test: Split = stream[position].test
    test = test if parameters is None else test.to(parameters.device)
    return right_share(confusion(lambda images: saved.method.logits(images, index), test, together=saved.method.batch_dependent))


def _repair(directory: RunDirectory) -> list[str]:
    """Repair what can be repaired; return what was."""
    done: list[str] = []
    directory.drop_parts()
    done += directory.repair_identity() or _repair_foreign_identity(directory)
    try:
        directory.identity()
    except LifelongError:
        return done
    config = directory.path / "config.toml"
    try:
        read_config(directory)
    except LifelongError:
        methods = {name: entry.settings for name, entry in known_methods().items()}
        write_text(config, config_toml(config_of(directory.identity(), methods)))
        done.append("config.toml: rewritten from identity.json")
    done += [*directory.parts.repair(), *directory.journal.mend()]
    if directory.learned():
        done += _repair_states(directory)
    for file in sorted(directory.checkpoint.glob("stages/**/*.safetensors")):
        if _check_tree(directory, file, directory.seal.owner(file)).condition == "damaged":
            file.unlink()
            done.append(f"{file.relative_to(directory.path).as_posix()}: dropped, to be computed again")
    if repair_curves(directory.curves, directory.seal):
        done.append("curves.jsonl: damaged lines dropped")
    saved = _open(directory)
    if saved is not None:
        try:
            done += repair_added(saved)
            done += hold_results(directory, saved.entries, saved.state["accuracy"], saved.summary())[1]
        except LifelongError:
            pass  # What cannot be repaired is found again by the check that follows.
    return done


def _repair_foreign_identity(directory: RunDirectory) -> list[str]:
    """Find an identity of another run: neither the run's state nor config.toml bears it out, and they agree with each other."""
    try:
        directory.stored()
        return []
    except ForeignError:
        found = directory.identity_of_state()
    except LifelongError:
        return []
    try:
        config = read_settings(directory)
    except LifelongError:
        return []
    if found is None or misfit(config, found) is not None:
        return []
    directory.write_identity(found)
    return ["identity.json: was another run's; rewritten from the run's state"]


def _repair_states(directory: RunDirectory) -> list[str]:
    """Put the last good state in place, and let go of one before it that is damaged."""
    owner = directory.seal.owner(directory.state_file)
    whole = directory.state_file.exists() and _check_tree(directory, directory.state_file, owner).condition != "damaged"
    if not whole:
        try:
            entries = directory.fall_back().tree["entries"]
        except LifelongError:
            return []
        last = f"the last of {len(entries)} tasks is '{entries[-1]['name']}'"
        return [f"run.safetensors: replaced by the state before it ({last}); rerun the command that started the run to continue from there"]
    if directory.previous_file.exists() and _check_tree(directory, directory.previous_file, owner).condition == "damaged":
        directory.previous_file.unlink()
        return ["run.previous.safetensors: dropped; the next task leaves a new one"]
    return []


def _reason(error: LifelongError) -> str:
    """Say what is wrong, without advice."""
    return str(error).split("; ")[0]
