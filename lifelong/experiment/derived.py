"""The numbers of a summary that follow from what was recorded of the tasks: derived whenever a run is opened, never believed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifelong.errors import DamagedError
from lifelong.experiment.metrics import (
    average_forgetting,
    average_performance,
    backward_transfer,
    maximal_forgetting,
    weighted_accuracy,
)
from lifelong.experiment.results import RunDirectory, differing, plain, read_summary
from lifelong.methods.method import Method
from lifelong.storage import Tree


def derived(entries: list[dict[str, Any]], accuracy: list[list[float]]) -> dict[str, Any]:
    """Return the numbers of a run, by their keys in its summary.

    Args:
        entries: of its tasks.
        accuracy: row i: on tasks 0..i after task i was learned.
    """
    phases: dict[str, float] = {}
    for entry in entries:
        for phase, seconds in entry["seconds_by_phase"].items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    return {
        "ap": average_performance(accuracy),
        "af": average_forgetting(accuracy),
        "bwt": backward_transfer(accuracy),
        "forgetting": maximal_forgetting(accuracy),
        "weighted_accuracy": weighted_accuracy(accuracy, [entry["test"] for entry in entries]),
        "seconds": sum(phases.values()),
        "seconds_by_phase": phases,
        "accuracy": accuracy,
        "tasks": entries,
    } | tuning_cost(entries)


def tuning_cost(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what tuning cost so far, the chosen candidates included; nothing for a run that is not tuned."""
    reports = [entry["tuning"] for entry in entries if "tuning" in entry]
    if not reports:
        return {}
    totals = {key: sum(report[key] for report in reports) for key in ("seconds", "epochs")}
    return {"tuning": totals | {"candidates": sum(len(report["candidates"]) for report in reports)}}


def of_method(method: Method) -> dict[str, Any]:
    """Return the numbers that follow from the method as it was saved."""
    return {
        "parameters": method.num_parameters(),
        "parameters_frozen": method.frozen_parameters(),
        "memory": method.memory(),
        "bytes": method.bytes_in_all(),
    }


def summary_of(state: Tree, read: Mapping[str, Any] | None, method: Method | None = None) -> dict[str, Any] | None:
    """Return the summary that belongs to a state.

    Args:
        state: of a run.
        read: the summary as it was read, for states of versions that did not keep theirs; None: there is none.
        method: as the state has it; None: what follows from it is taken as it stands.

    Returns:
        All that can be derived is; None: the state has no summary, and none was read.
    """
    kept = state.get("summary") or read
    if kept is None:
        return None
    found = derived(state["entries"], state["accuracy"]) | ({} if method is None else of_method(method))
    # A summary of an earlier version has no more keys than it had.
    return json.loads(json.dumps(plain({key: found.get(key, value) for key, value in kept.items()})))


def to_keep(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a state keeps of its summary: all that cannot be derived, and the order of its keys."""
    return {key: None if key in ("tasks", "accuracy") else value for key, value in summary.items()}


def known_summary(path: Path) -> dict[str, Any]:
    """Return the summary.json of a run directory, held against the run's state where that is there.

    Raises:
        DamagedError: it is damaged, or not what the state says.
        LifelongError: there is none, or it cannot be read.
    """
    summary, directory = read_summary(path), RunDirectory(path)
    stored = directory.plain_state() if directory.identity_file.exists() else None
    found = None if stored is None else summary_of(stored.tree, summary)
    if found is not None and (keys := differing(summary, found)):
        raise DamagedError(f"{path}: summary.json is not what the run's state says ({', '.join(keys)}); {directory.remedy()}")
    return summary
