"""Observers by name, of which a run can have several.

Your own observer is a class that overrides the events it wants to hear; an instance is made without arguments for every run:

    class Bell(lifelong.Observer):
        def run_finished(self, summary):
            print("\\a")

    lifelong.register_observer("bell", Bell)        # then: --observe bell
"""

import os
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError, require
from lifelong.experiment.event_files import check_tensorboard, write_events
from lifelong.experiment.observer import Observer
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.settings.arguments import checked
from lifelong.settings.sockets import OBSERVERS
from lifelong.training.stages import Epoch


class TensorBoard(Observer):
    """Writes event files for TensorBoard; see `lifelong.experiment.event_files`."""

    def __init__(self) -> None:
        check_tensorboard()

    def task_saved(self, run: Path, entries: list[TaskRecord], accuracy: list[list[float]]) -> None:
        """See `Observer.task_saved`."""
        write_events(run, entries, accuracy)


class WeightsAndBiases(Observer):
    """Logs to Weights & Biases, into the project named by `WANDB_PROJECT` (default: "lifelong")."""

    def __init__(self) -> None:
        self._wandb = _package("wandb")
        self._task = 0

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        """See `Observer.run_started`."""
        self._run = self._wandb.init(project=_variable("WANDB_PROJECT"), name=f"{method} on {stream}", config={"tasks": tasks})

    def task_started(self, index: int, name: str) -> None:
        """See `Observer.task_started`."""
        self._task = index

    def epoch(self, event: Epoch) -> None:
        """See `Observer.epoch`."""
        self._run.log({"task": self._task + 1, f"{event.stage}/loss": event.loss, f"{event.stage}/accuracy": event.accuracy})

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """See `Observer.task_finished`."""
        self._run.log(_standing(index, record, accuracy))

    def run_finished(self, summary: RunRecord) -> None:
        """See `Observer.run_finished`."""
        if hasattr(self, "_run"):
            self._run.summary.update({"ap": summary.ap, "af": summary.af, "parameters": summary.parameters})
            self._run.finish()


class MLflow(Observer):
    """Logs to MLflow, to the server named by `MLFLOW_TRACKING_URI`."""

    def __init__(self) -> None:
        self._mlflow = _package("mlflow")
        self._task = self._step = 0

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        """See `Observer.run_started`."""
        self._run = self._mlflow.start_run(run_name=f"{method} on {stream}")

    def task_started(self, index: int, name: str) -> None:
        """See `Observer.task_started`."""
        self._task = index

    def epoch(self, event: Epoch) -> None:
        """See `Observer.epoch`."""
        self._step += 1
        known = {"loss": event.loss, "accuracy": event.accuracy}
        self._mlflow.log_metrics({f"{event.stage}/{key}": value for key, value in known.items()}, step=self._step)

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """See `Observer.task_finished`."""
        self._mlflow.log_metrics(_standing(index, record, accuracy), step=index + 1)

    def run_finished(self, summary: RunRecord) -> None:
        """See `Observer.run_finished`."""
        if hasattr(self, "_run"):
            known = {"ap": summary.ap, "af": summary.af, "parameters": summary.parameters}
            self._mlflow.log_metrics({key: float(value) for key, value in known.items() if value is not None})
            self._mlflow.end_run()


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise LifelongError(f"--observe {name} needs the package {name}: pip install {name}; or leave it out") from None


def _variable(name: str) -> str:
    return os.environ.get(name) or "lifelong"


def _standing(index: int, record: TaskRecord, accuracy: list[float]) -> dict[str, float]:
    """Return the method's results after a task."""
    known = [value for value in accuracy if value == value]
    return {
        "tasks": float(index + 1),
        "mean accuracy": sum(known) / len(known) if known else 0.0,
        "parameters added": float(record.parameters_added or 0),
        "seconds": float(record.seconds or 0.0),
    }


class Observers(Observer):
    """Passes events on to several observers, in order.

    Errors of the first stop the run; any other observer that fails is dropped, with a note.

    Args:
        first: the observer that receives the notes.
        others: the other observers, by name.
    """

    def __init__(self, first: Observer, others: dict[str, Observer]) -> None:
        self.first, self.others = first, dict(others)

    def _tell(self, what: str, *told: Any) -> None:
        getattr(self.first, what)(*told)
        for name, other in list(self.others.items()):
            try:
                getattr(other, what)(*told)
            except LifelongError:
                raise  # the user can fix it, for example a full disk
            except Exception as error:  # third-party code may fail in any way
                del self.others[name]
                self.first.note(f"the observer '{name}' failed, and hears nothing more: {type(error).__name__}: {error}")

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        """See `Observer.run_started`."""
        self._tell("run_started", stream, method, tasks, done)

    def task_started(self, index: int, name: str) -> None:
        """See `Observer.task_started`."""
        self._tell("task_started", index, name)

    def candidate(self, number: int, count: int, values: dict[str, Any]) -> None:
        """See `Observer.candidate`."""
        self._tell("candidate", number, count, values)

    def phase(self, name: str) -> None:
        """See `Observer.phase`."""
        self._tell("phase", name)

    def epoch(self, event: Epoch) -> None:
        """See `Observer.epoch`."""
        self._tell("epoch", event)

    def advance(self, done: int, total: int) -> None:
        """See `Observer.advance`."""
        self._tell("advance", done, total)

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """See `Observer.task_finished`."""
        self._tell("task_finished", index, record, accuracy)

    def note(self, text: str) -> None:
        """See `Observer.note`."""
        self._tell("note", text)

    def task_saved(self, run: Path, entries: list[TaskRecord], accuracy: list[list[float]]) -> None:
        """See `Observer.task_saved`."""
        self._tell("task_saved", run, entries, accuracy)

    def run_finished(self, summary: RunRecord) -> None:
        """See `Observer.run_finished`."""
        self._tell("run_finished", summary)

    def close(self) -> None:
        """See `Observer.close`."""
        self._tell("close")


def observed(names: Sequence[str], first: Observer | None) -> Observer:
    """Make the observers of a run.

    Args:
        names: names of registered observers.
        first: an observer that is always told; None: no one.

    Raises:
        LifelongError: an observer is not registered, or lacks a package.
    """
    listener = first or Observer()
    return Observers(listener, {name: OBSERVERS[name]() for name in dict.fromkeys(names)}) if names else listener


@checked
def register_observer(name: str, observer: Any, *, summary: str = "") -> None:
    """Register your own observer for `--observe` and the argument `observe`.

    Args:
        name: letters, digits, dashes and underscores.
        observer: a subclass of `Observer` that can be made without arguments; called once per run.
        summary: what it does, in one line.

    Raises:
        LifelongError: the name is taken or invalid, or the class is not an observer.
    """
    OBSERVERS.register_class(name, observer, Observer, summary=summary)


@checked
def check_observer(name: str) -> None:
    """Try a registered observer on an artificial run of two tasks.

    Checked: it can receive all events of a run, twice, and does not change its arguments.

    Raises:
        ConformanceError: what is broken.
        LifelongError: there is no such observer, or it lacks a package.
    """
    entries = [TaskRecord(name=f"task {index}", classes=["one", "two"], parameters_added=10, seconds=1.0) for index in range(2)]
    accuracy = [[0.5], [0.5, 1.0]]
    made = {"stream": "made", "method": "finetune", "seed": 0, "ap": 0.75, "af": 0.0, "parameters": 20}
    summary = RunRecord.model_validate({**made, "tasks": entries, "accuracy": accuracy})
    given = deepcopy((entries, accuracy, summary))
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            observer = OBSERVERS[name]()
            told: list[tuple[str, tuple[Any, ...]]] = [("run_started", ("made", "finetune", 2, 0)), ("note", ("a note",))]
            for index in range(2):
                told += [("task_started", (index, f"task {index}")), ("phase", ("train",)), ("epoch", (Epoch("train", 1, 1, 0.5, 0.5),))]
                told += [("advance", (1, 1)), ("task_finished", (index, entries[index], accuracy[index]))]
                told += [("task_saved", (Path(folder), entries[: index + 1], accuracy[: index + 1]))]
            for what, values in [*told, ("run_finished", (summary,)), ("close", ())]:
                try:
                    getattr(observer, what)(*values)
                except Exception as error:
                    require(False, f"observer '{name}': {what} failed: {type(error).__name__}: {error}")
            require((entries, accuracy, summary) == given, f"observer '{name}' changes what it is given")
