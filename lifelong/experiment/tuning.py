"""Choosing hyper-parameters task by task, without a look at the future or the past.

A task is learned once per candidate, each time from the same state and with the same random numbers, and each result is judged on
the task's own validation images. The chosen candidate's result is kept; the run goes on from it. Nothing else is looked at: no
test image, no other task's images (but what a method keeps as its own memory, which trains it, and is never judged by), and no later
task, so that a choice never changes afterwards.

Which is chosen: the most accurate, the first of equals. That alone would always prefer the weakest penalty of a regularizer: what
protects earlier tasks can only cost accuracy on the new one, which is all that is judged here. With a tolerance t the first
candidate is taken whose accuracy is at least the best one's less t. Order a grid from stable to plastic (strong penalties first), and
that is the most stable one that learns the new task almost as well as the best.

Source: the continual hyperparameter framework of De Lange et al., "A continual learning survey: defying forgetting in classification
tasks", TPAMI 2021, arXiv 1909.08383. It first seeks the highest accuracy that the new task allows, then decays the hyper-parameters of
stability from high values until the accuracy is within a margin of that one. Differences: the margin is a difference here, a share of the
accuracy there; the candidates are given here, halvings of one value there; all are tried, so that the cost is known beforehand.

A candidate's stages lie in a folder of its own below the task's, with its result beside it: an interrupted task goes on in the
candidate in which it stopped. States of candidates that can no longer be chosen are dropped.
"""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lifelong.data.task import Task
from lifelong.errors import DivergedError, LifelongError
from lifelong.experiment.proposals import propose
from lifelong.extras import require_extra
from lifelong.methods.method import Context, LearnRecord, Method
from lifelong.methods.registry import make_method
from lifelong.methods.restoring import restore
from lifelong.records.base import plain
from lifelong.records.renames import renamed
from lifelong.records.task import Candidate, TaskRecord, TaskTuning
from lifelong.settings.run import RunConfig
from lifelong.storage import Tree, remove
from lifelong.training.examples import evaluate
from lifelong.training.stages import clear, derive_seed, read_sealed, save_sealed

ROUNDING = 1e-9
"""Accuracies that differ by less are equal: 0.92 - 0.02 is not quite 0.9."""


@dataclass(frozen=True)
class Trial:
    """What came of a candidate.

    Attributes:
        values: its hyper-parameters by key.
        valid_accuracy: on the task's validation images, in [0, 1]; None if it diverged.
        seconds: of learning and judging.
        epochs: of training.
        failure: why there is no result, or "".
    """

    values: dict[str, Any]
    valid_accuracy: float | None
    seconds: float
    epochs: int
    failure: str = ""


@dataclass(frozen=True)
class Tuned:
    """A task learned with the hyper-parameters that were chosen.

    Attributes:
        method: as the chosen candidate left it.
        record: the chosen candidate's; what the others took is its phase "tune".
        report: all candidates, and which was chosen.
    """

    method: Method
    record: LearnRecord
    report: TaskTuning


def tune_task(
    config: RunConfig,
    before: Tree,
    task: Task,
    context: Context,
    learn: Callable[[Method, Task, Context], LearnRecord],
    on_candidate: Callable[[int, int, dict[str, Any]], None] = lambda number, count, values: None,
) -> Tuned:
    """Learn a task with each candidate, and keep the one that its validation images choose.

    Args:
        config: of the run, with its tuning.
        before: the method's state before the task, as its `state_dict`.
        task: the task.
        context: of the task; candidates keep their states below its folder.
        learn: makes a method learn a task, and records all the time that it took.
        on_candidate: called before a candidate is learned, with its number from 0, how many there are, and its values.

    Raises:
        LifelongError: no candidate has a result, or a state cannot be written.
    """
    assert config.tuning is not None
    assert context.folder is not None
    folder = context.folder
    proposals = propose(config.tuning, derive_seed(context.seed, context.task_index, "tune"))
    trials: list[Trial] = []
    for number in range(proposals.count):
        values = proposals.ask()
        trial = _finished(context, number, values)
        if trial is None:
            on_candidate(number, proposals.count, values)
            trial = _attempt(config, before, values, task, context, learn, number)
            save_sealed(_result(folder, number), asdict(trial), context.seal)
        clear(_stages(folder, number))
        proposals.tell(trial.valid_accuracy or 0.0)
        trials.append(trial)
        _drop_losers(folder, trials, config.tuning.tolerance)
    if all(trial.valid_accuracy is None for trial in trials):
        raise LifelongError(f"task '{task.name}': no candidate could be trained; the last one: {trials[-1].failure}")
    chosen = contenders([trial.valid_accuracy for trial in trials], config.tuning.tolerance)[0]
    stored = read_sealed(_state(folder, chosen), context.seal)
    if stored is None:
        # Damaged on the disk: learned once more, it is the same.
        _attempt(config, before, trials[chosen].values, task, context, learn, chosen)
        stored = read_sealed(_state(folder, chosen), context.seal)
        clear(_stages(folder, chosen))
    return _keep(config, trials, chosen, stored, context)


def method_with(config: RunConfig, values: dict[str, Any]) -> Method:
    """Return a fresh method with the hyper-parameters of a candidate."""
    return make_method(config.method, config.with_values(values).settings)


def method_after(config: RunConfig, entries: list[TaskRecord]) -> Method:
    """Return a fresh method as a run continues with it: with the hyper-parameters chosen last, if it is tuned.

    Args:
        config: of the run.
        entries: what was recorded of its tasks so far.
    """
    if config.tuning is None or not entries:
        return make_method(config.method, config.settings)
    tuning = entries[-1].tuning
    assert tuning is not None  # as every entry of a tuned run
    return method_with(config, dict(tuning.choice.chosen_values))


def check_tuning(config: RunConfig, valid: dict[str, int]) -> None:
    """See before a run that it can be tuned.

    Args:
        config: of the run.
        valid: number of validation images by the task's name.

    Raises:
        LifelongError: a task has no validation images, or Optuna is wanted and not there.
    """
    if config.tuning is None:
        return
    if config.tuning.trials:
        require_extra("tune", ("optuna",), "--trials", "or list values in --grid and leave --trials out")
    for name, count in valid.items():
        if not count:
            raise LifelongError(f"{config.stream}: task '{name}' has no validation images to tune by; give it some, or run without --grid")


def contenders(accuracies: Sequence[float | None], tolerance: float) -> list[int]:
    """Return the candidates that can still be chosen, whatever those to come turn out to be; the first of them is the choice so far.

    Args:
        accuracies: of the candidates so far, in [0, 1]; None for one without a result.
        tolerance: in [0, 1).
    """
    best, records = -1.0, []
    for number, accuracy in enumerate(accuracies):
        # One that is no better than an earlier one never comes before it.
        if accuracy is not None and accuracy > best + ROUNDING:
            best = accuracy
            records.append((number, accuracy))
    return [number for number, accuracy in records if accuracy >= best - tolerance - ROUNDING]


def _attempt(
    config: RunConfig,
    before: Tree,
    values: dict[str, Any],
    task: Task,
    context: Context,
    learn: Callable[[Method, Task, Context], LearnRecord],
    number: int,
) -> Trial:
    """Learn and judge one candidate; its state is stored before it is said to be finished."""
    assert context.folder is not None
    method = method_with(config, values)
    restore(method, deepcopy(before), context.device, context.folder)
    own = replace(context, training=config.with_values(values).training, folder=_stages(context.folder, number))
    started = time.perf_counter()
    try:
        record = learn(method, task, own)
    except DivergedError as error:
        return Trial(values, None, time.perf_counter() - started, error.epoch, str(error))
    learned = time.perf_counter()
    accuracy = evaluate(lambda images: method.logits(images, own.task_index), task.valid, together=method.batch_dependent)
    save_sealed(_state(context.folder, number), {"method": method.state_dict(), "record": asdict(record)}, own.seal)
    return Trial(values, accuracy, sum(record.seconds.values()) + time.perf_counter() - learned, record.epochs)


def _keep(config: RunConfig, trials: list[Trial], chosen: int, stored: Tree, context: Context) -> Tuned:
    """Return the chosen candidate, read back from where it was stored."""
    assert context.folder is not None
    method = method_with(config, trials[chosen].values)
    restore(method, stored["method"], context.device, _state(context.folder, chosen))
    method.attach_extractor(context.extractor)
    record = LearnRecord(**renamed("task", stored["record"]))
    seconds, epochs = sum(trial.seconds for trial in trials), sum(trial.epochs for trial in trials)
    record.seconds["tune"] = seconds - sum(record.seconds.values())
    record.hyperparameters = trials[chosen].values | record.hyperparameters
    candidates = [Candidate.model_validate(plain(asdict(trial))) for trial in trials]
    report = TaskTuning(candidates=candidates, chosen=chosen, seconds=seconds, epochs=epochs)
    return Tuned(method, record, report)


def _finished(context: Context, number: int, values: dict[str, Any]) -> Trial | None:
    """Read what came of a candidate before an interruption."""
    assert context.folder is not None
    stored = read_sealed(_result(context.folder, number), context.seal)
    if stored is None:
        return None
    trial = Trial(**stored)
    if trial.values != values:
        raise LifelongError(
            f"candidate {number + 1} was {trial.values}, and Optuna now proposes {values}; "
            "continue with the version of Optuna that the run was started with, or start over with another --out"
        )
    return trial


def _drop_losers(folder: Path, trials: list[Trial], tolerance: float) -> None:
    alive = contenders([trial.valid_accuracy for trial in trials], tolerance)
    for number in range(len(trials)):
        if number not in alive:
            remove(_state(folder, number))


def _stages(folder: Path, number: int) -> Path:
    return folder / f"candidate-{number:03d}"


def _result(folder: Path, number: int) -> Path:
    return folder / f"candidate-{number:03d}.result.safetensors"


def _state(folder: Path, number: int) -> Path:
    return folder / f"candidate-{number:03d}.state.safetensors"
