"""A run as a job: what to run and where, as plain data that any process can carry out.

In this process, `perform` carries out a job. In another one, on any machine that has the same files, `perform_plain` does, which takes and
returns plain data, or the command that `RunJob.command` returns:

    python -m lifelong.experiment JOB.json      # writes JOB.outcome.json next to it; exit code 0: finished, 1: a bug, 2: failed

A job can be repeated at any time: a finished run is skipped, a stopped one continues, and a lock on the run's folder keeps two processes
from working on it at once.
"""

import json
import socket
import sys
import traceback
from contextlib import chdir
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lifelong.errors import OUT_OF_MEMORY, LifelongError, TakenError, of_system
from lifelong.experiment.journal import Journal
from lifelong.experiment.locking import held
from lifelong.experiment.observer import Observer
from lifelong.experiment.observers import Observers
from lifelong.experiment.run import run
from lifelong.experiment.summaries import read_summary
from lifelong.methods.registry import known_methods
from lifelong.opening import read_json
from lifelong.plugins import load_plugin, loaded_plugins
from lifelong.records.run import RunRecord
from lifelong.settings.fields import as_lists
from lifelong.settings.resolve import RUN_KEYS, flat, resolve
from lifelong.settings.run import Environment, RunConfig, environment_of
from lifelong.storage import remove, write_text

KEYS = {"config": dict, "environment": dict, "out": str, "plugins": list, "folder": str}
"""Keys of a job's plain form, and their types."""

MORE = {"journal": str}
"""Keys that it may have, too."""


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a job.

    Attributes:
        summary: the finished run's summary; None if it failed.
        failure: why it failed, in one line; else empty.
        crash: the traceback, if a bug of the library or of a plugin made it fail; else empty.
        taken: whether nothing was done because another process works on this run; it can be waited for.
    """

    summary: RunRecord | None
    failure: str = ""
    crash: str = ""
    taken: bool = False

    def plain(self) -> dict[str, Any]:
        """Return the outcome as plain data, without the summary, which is in the run's folder."""
        return {"failure": self.failure, "crash": self.crash} | ({"taken": True} if self.taken else {})


@dataclass(frozen=True)
class RunJob:
    """A run to carry out.

    Attributes:
        config: the settings that determine its numbers.
        out: its run directory.
        environment: where data, weights and the device are.
        plugins: Python files that register what the run needs; by default those loaded in this process.
        folder: the working directory for relative paths; by default this process's.
        journal: file to which the job adds a line when the run begins, learns a task, finishes or fails; None: it adds none.
    """

    config: RunConfig
    out: Path
    environment: Environment
    plugins: tuple[Path, ...] = field(default_factory=loaded_plugins)
    folder: Path = field(default_factory=Path.cwd)
    journal: Path | None = None

    def plain(self) -> dict[str, Any]:
        """Return the job as plain data, which `RunJob.of` reads back."""
        environment = {key: str(value) if isinstance(value, Path) else as_lists(value) for key, value in asdict(self.environment).items()}
        places = {"out": str(self.out), "plugins": [str(file) for file in self.plugins], "folder": str(self.folder)}
        noted = {} if self.journal is None else {"journal": str(self.journal)}
        return {"config": flat(self.config), "environment": environment} | places | noted

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "RunJob":
        """Read back what `plain` returned; plugins are loaded first, because they may define settings.

        Raises:
            LifelongError: a plugin cannot be loaded, or a setting is not valid here.
        """
        plugins = tuple(Path(file) for file in plain["plugins"])
        for file in plugins:
            load_plugin(file)
        values = dict(plain["config"])
        run_values = [values.pop(key, None) for key in RUN_KEYS]
        methods = {name: entry.settings for name, entry in known_methods().items()}
        config = resolve(*run_values, None, values, methods=methods, presets=False)
        options = dict(plain["environment"])
        at_once = options.pop("at_once", 1)
        place = replace(environment_of("job", None, options), at_once=at_once)
        journal = Path(plain["journal"]) if "journal" in plain else None
        return cls(config, Path(plain["out"]), place, plugins, Path(plain["folder"]), journal)

    def command(self, file: Path) -> list[str]:
        """Write the job to a file and return the command that carries it out; `outcome` then reads the result.

        Args:
            file: JSON file, in a folder that both processes can access.
        """
        remove(outcome_file(file))
        write_text(file, json.dumps(self.plain()))
        return [sys.executable, "-m", "lifelong.experiment", str(file.absolute())]

    def outcome(self, file: Path) -> RunOutcome:
        """Read the outcome of `command`, after its process has ended.

        Args:
            file: the file that was given to `command`.
        """
        try:
            told = read_json(outcome_file(file))
            return self.told(told)
        except FileNotFoundError:
            return RunOutcome(None, ended(self.out, "without saying how"))
        except LifelongError as error:
            return RunOutcome(None, str(error))

    def told(self, plain: dict[str, Any]) -> RunOutcome:
        """Return the outcome that another process has told with `RunOutcome.plain`.

        Raises:
            LifelongError: the run is said to be finished, and has no summary.
        """
        summary = None if plain["failure"] else read_summary(self.folder / self.out)
        return RunOutcome(summary, plain["failure"], plain["crash"], plain.get("taken", False))


# `object`: a file or a cluster may return anything.
def check_plain(plain: object, where: str) -> None:
    """Check that a value is the plain form of a job.

    Args:
        plain: the value.
        where: its origin, for the message.

    Raises:
        LifelongError: it is not.
    """
    known = KEYS | MORE
    whole = isinstance(plain, dict) and KEYS.keys() <= plain.keys() <= known.keys()
    if not whole or not all(isinstance(value, known[key]) for key, value in plain.items()):
        raise LifelongError(f"{where} describes no job of this version; write it again with lifelong.RunJob")


def outcome_file(file: Path) -> Path:
    """Return the file into which the outcome of a job is written."""
    return file.with_suffix(".outcome.json")


def ended(out: Path, how: str) -> str:
    """Describe the failure of a job whose process has died."""
    return f"the process of {out} has ended {how} (killed, or out of memory?); run the same command again, with fewer --workers"


def taken(job: RunJob) -> RunOutcome | None:
    """Return the outcome of a job on whose run another process works, before anything is started for it; None if it is free."""
    error = held(job.folder / job.out)
    return None if error is None else RunOutcome(None, str(error), taken=True)


def perform(job: RunJob, progress: Observer | None = None) -> RunOutcome:
    """Carry out a job in this process. Only what stops the whole process is raised, such as Ctrl-C.

    Args:
        job: the job.
        progress: is told how far the run comes; None: nobody.
    """
    if job.journal is None:
        return _performed(job, progress)
    journal = Journal(job.folder / job.journal)
    outcome = _performed(job, Observers(progress or Observer(), {"journal": journal}))
    if outcome.summary is None and not outcome.taken:
        journal.failed(outcome.failure)
    return outcome


def _performed(job: RunJob, progress: Observer | None) -> RunOutcome:
    try:
        for file in job.plugins:
            load_plugin(file)
        return RunOutcome(run(job.config, job.out, job.environment, progress))
    except TakenError as error:
        return RunOutcome(None, str(error), taken=True)
    except LifelongError as error:
        return RunOutcome(None, str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return RunOutcome(None, str(of_system(error)))
    except MemoryError:
        return RunOutcome(None, OUT_OF_MEMORY)
    except Exception as error:
        return RunOutcome(None, f"{type(error).__name__}: {' '.join(str(error).split())}", traceback.format_exc())


def perform_plain(plain: dict[str, Any]) -> dict[str, Any]:
    """Carry out a job in any process, with plain data in and out, for example on a cluster.

    Args:
        plain: what `RunJob.plain` returned.

    Returns:
        The outcome as from `RunOutcome.plain`; the summary is in the run's folder.

    Raises:
        LifelongError: `plain` is not the plain data of a job.
    """
    check_plain(plain, "perform_plain: what was given")
    if not Path(plain["folder"]).is_dir():
        where = f"{plain['folder']} is not on {socket.gethostname()}"
        return RunOutcome(None, f"the sweep's folder {where}; runs need a folder that all machines share").plain()
    with chdir(plain["folder"]):
        try:
            job = RunJob.of(plain)
        except LifelongError as error:
            return RunOutcome(None, str(error)).plain()
        return perform(job).plain()
