"""Repair a run directory: restore the last good state, rewrite what follows from it, and drop what is computed again."""

from pathlib import Path

from lifelong.errors import ForeignError, LifelongError
from lifelong.experiment.added_tasks import repair_added
from lifelong.experiment.curves import repair_curves
from lifelong.experiment.identity import config_of, misfit
from lifelong.experiment.outcome import hold_results
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import read_config, read_settings
from lifelong.experiment.saved import open_run
from lifelong.experiment.soundness import check_state
from lifelong.methods.registry import known_methods
from lifelong.settings.resolve import config_toml
from lifelong.storage import read_tree, write_text
from lifelong.words import counted


def repair_run(directory: RunDirectory) -> list[str]:
    """Repair what can be repaired of a run that nobody else is working on; return what was, a line each."""
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
    done += _repair_states(directory) if directory.learned() else _put_back(directory)
    for file in sorted(directory.checkpoint.glob("stages/**/*.safetensors")):
        if not _intact(directory, file, directory.seal.owner(file)):
            file.unlink()
            done.append(f"{file.relative_to(directory.path).as_posix()}: dropped, to be computed again")
    if repair_curves(directory.curves, directory.seal):
        done.append("curves.jsonl: damaged lines dropped")
    try:
        saved = open_run(directory.path)
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
    try:
        stored = directory.stored()
        assert stored is not None
        check_state(directory.state_file, stored.tree)
    except LifelongError:
        return _fallen_back(directory, "replaced by the state before it")
    if directory.previous_file.exists() and not _intact(directory, directory.previous_file, owner):
        directory.previous_file.unlink()
        return ["run.previous.safetensors: dropped; the next task leaves a new one"]
    return []


def _put_back(directory: RunDirectory) -> list[str]:
    """Put the last version in place where both states are lost, if there was one."""
    try:
        return _fallen_back(directory, "was missing; put back from the last version") if directory.journal.kept() else []
    except LifelongError:
        return []


def _fallen_back(directory: RunDirectory, how: str) -> list[str]:
    """Go back to the last state that is whole; return what was done, nothing if there is none."""
    try:
        entries = directory.fall_back().tree["entries"]
    except LifelongError:
        return []
    last = f"{counted(len(entries), 'task')}, the last '{entries[-1]['name']}'"
    return [f"run.safetensors: {how} ({last}); rerun the command that started the run to continue from there"]


def _intact(directory: RunDirectory, file: Path, owner: str) -> bool:
    try:
        read_tree(file, owner=owner, required=directory.seal.required, parts=directory.parts)
        return True
    except LifelongError:
        return False
