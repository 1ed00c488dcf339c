"""Derive the numbers of a summary from the records of its tasks; whenever a run is opened, they are computed again, never trusted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lifelong.digests import DIGEST
from lifelong.errors import DamagedError
from lifelong.experiment.metrics import (
    average_forgetting,
    average_performance,
    backward_transfer,
    maximal_forgetting,
    weighted_accuracy,
)
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.summaries import differing, read_summary
from lifelong.methods.method import Method
from lifelong.records.base import plain, said
from lifelong.records.run import RunRecord, TuningCost
from lifelong.records.task import TaskRecord
from lifelong.storage import Tree

GROWING = ("tasks", "accuracy")
"""The fields of a summary that grow with each task."""


def entries_of(state: Tree) -> list[TaskRecord]:
    """Return the records of the tasks of a state.

    Raises:
        DamagedError: they do not have the right form.
    """
    found: list[TaskRecord] = []
    for place, entry in enumerate(state["entries"]):
        try:
            found.append(TaskRecord.model_validate(plain(entry)))
        except ValidationError as error:
            raise DamagedError(f"the run's state: entries/{place}: {said(error)}; restore a copy of the run, or learn it again") from error
    return found


# `Any`: the fields of a `RunRecord` by name, before it is made.
def derived(entries: Sequence[TaskRecord], accuracy: list[list[float]], best: Sequence[float] | None = None) -> dict[str, Any]:
    """Return the numbers of a run, by their keys in its summary.

    Args:
        entries: the records of its tasks.
        accuracy: row i: accuracies on tasks 0..i after task i was learned.
        best: see `maximal_forgetting`.
    """
    phases: dict[str, float] = {}
    for entry in entries:
        for phase, seconds in (entry.seconds_by_phase or {}).items():
            phases[phase] = phases.get(phase, 0.0) + (seconds or 0.0)
    cost = tuning_cost(entries)
    return {
        "ap": average_performance(accuracy),
        "af": average_forgetting(accuracy),
        "bwt": backward_transfer(accuracy),
        "forgetting": maximal_forgetting(accuracy, best),
        "weighted_accuracy": weighted_accuracy(accuracy, [entry.test for entry in entries]),
        "seconds": sum(phases.values()),
        "seconds_by_phase": phases,
        "accuracy": accuracy,
        "tasks": list(entries),
    } | ({} if cost is None else {"tuning": cost})


def tuning_cost(entries: Sequence[TaskRecord]) -> TuningCost | None:
    """Return the cost of tuning so far; None for a run that is not tuned."""
    reports = [entry.tuning for entry in entries if entry.tuning is not None]
    if not reports:
        return None
    return TuningCost(
        seconds=sum(report.seconds or 0.0 for report in reports),
        epochs=sum(report.epochs for report in reports),
        candidates=sum(len(report.candidates) for report in reports),
    )


# `Any`: as of `derived`.
def of_method(method: Method) -> dict[str, Any]:
    """Return the numbers that follow from the method as it was saved."""
    return {
        "parameters": method.num_parameters(),
        "parameters_frozen": method.frozen_parameters(),
        "memory": method.memory(),
        "bytes": method.bytes_in_all(),
    }


def summary_of(
    state: Tree, read: RunRecord | None, method: Method | None = None, entries: Sequence[TaskRecord] | None = None
) -> RunRecord | None:
    """Return the summary that belongs to a state.

    Args:
        state: the run's state.
        read: the summary that was read, for states of versions that did not store theirs; None: there is none.
        method: the state's method; None: the numbers that follow from it are taken from the summary.
        entries: the records of its tasks; None: they are made from the state.

    Returns:
        The summary, with everything derived that can be; None if neither the state nor `read` has one.
    """
    kept = state.get("summary") or read
    if kept is None:
        return None
    found = derived(entries_of(state) if entries is None else entries, state["accuracy"]) | ({} if method is None else of_method(method))
    # A summary of an earlier version has no more keys than it had.
    try:
        return RunRecord.model_validate(plain({key: found.get(key, value) for key, value in kept.items()}))
    except ValidationError as error:
        raise DamagedError(
            f"the run's state: its summary is damaged ({said(error)}); restore a copy of the run, or learn it again"
        ) from error


# `Any`: a summary without the fields derived from the tasks is not a `RunRecord`.
def head_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a summary that a state stores: everything that cannot be derived, and the order of the keys."""
    return {key: None if key in GROWING else plain(value) for key, value in summary.items() if key != DIGEST}


def known_summary(path: Path) -> RunRecord:
    """Return the summary.json of a run directory, checked against the run's state if that exists.

    Raises:
        DamagedError: it is damaged, or contradicts the state.
        LifelongError: there is none, or it cannot be read.
    """
    summary, directory = read_summary(path), RunDirectory(path)
    stored = directory.plain_state() if directory.identity_file.exists() else None
    found = None if stored is None else summary_of(stored.tree, summary)
    if found is not None and (keys := differing(summary, found)):
        raise DamagedError(f"{path}: summary.json is not what the run's state says ({', '.join(keys)}); {directory.remedy()}")
    return summary
