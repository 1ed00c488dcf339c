"""A run's saved state, held against its form before anything is made of it."""

from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import torch
from annotated_types import Ge, Le
from jaxtyping import Int64
from pydantic import ValidationError
from torch import Tensor

from lifelong.errors import LifelongError
from lifelong.experiment.accuracies import Rows
from lifelong.experiment.remaining import FORGOTTEN
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.tuning import method_after
from lifelong.methods.form import MisfitError, hold_tree
from lifelong.methods.method import Method
from lifelong.methods.restoring import restore
from lifelong.methods.state_checks import Recorded
from lifelong.records.base import plain, said
from lifelong.records.task import TaskRecord
from lifelong.settings.run import RunConfig
from lifelong.storage import Tree
from lifelong.uncollected import uncollected

Count = Annotated[int, Ge(0)]
Seconds = Annotated[float, Ge(0)]
Plain = bool | int | float | str | list[Any] | tuple[Any, ...] | dict[str, Any] | None


class _Judged(TypedDict):
    recall: list[float | None]
    confusion: list[list[Count]] | None
    majority: float | None


class _Candidate(TypedDict):
    values: dict[str, Plain]
    valid_accuracy: float | None
    seconds: Seconds
    epochs: Count
    failure: str


class _Tuning(TypedDict):
    candidates: list[_Candidate]
    chosen: Count
    seconds: Seconds
    epochs: Count


class _Entry(TypedDict):
    """What every version has written of a task."""

    name: str
    classes: list[str]
    train: Count
    valid: Count
    test: Count
    image_size: Annotated[int, Ge(1)]
    seconds_by_phase: dict[str, Seconds]
    seconds: Seconds
    decision: str | None
    expert: Count | None
    divergences: list[float]
    group_distances: list[float]
    alpha: float | None
    beta: float | None
    reason: str
    frozen: bool
    genotype: str | None
    epochs: Count
    hyperparameters: dict[str, Plain]
    parameters_added: int


class _Added(TypedDict):
    name: str
    source: str
    fingerprint: str
    content: NotRequired[str]


LATER: dict[str, Any] = {
    "edges": Count,
    "undecided_edges": Count,
    "notes": list[str],
    "judged": _Judged,
    "tuning": _Tuning,
    "task_distances": list[float],
}
"""What later versions, or some runs, have of a task besides."""

PARTS: dict[str, Any] = {
    "accuracy": list[list[Annotated[float, Ge(0), Le(1)] | float]],
    "digests": list[str],
    "contents": list[dict[str, Int64[Tensor, "n"]]],
    "arithmetic": dict[str, str],
    "device": str,
    "summary": dict[str, Any],
    "identity": dict[str, Plain],
    "added": list[_Added],
    FORGOTTEN: list[Count],
}
"""The other parts of a state; earlier versions had fewer."""


def check_state(file: Path | str, state: Tree) -> list[TaskRecord]:
    """See that a run's saved state is of its form, but for the method's part of it.

    Args:
        file: which it was read from.
        state: as it was read.

    Returns:
        The records of its tasks.

    Raises:
        LifelongError: it is not; the line says what.
    """
    try:
        hold_tree(dict[str, Any], state, "")
        for key in ("method", "entries", "accuracy", "digests"):
            _require(key in state, f"'{key}' is missing")
        hold_tree(list[dict[str, Any]], state["entries"], "entries")
        records = []
        for place, entry in enumerate(state["entries"]):
            later = {key: value for key, value in entry.items() if key in LATER}
            hold_tree(_Entry, {key: value for key, value in entry.items() if key in _Entry.__annotations__}, f"entries/{place}")
            for key, value in later.items():
                hold_tree(LATER[key], value, f"entries/{place}/{key}")
            _check_choice(entry, f"entries/{place}")
            try:
                records.append(TaskRecord.model_validate(plain(entry)))
            except ValidationError as error:
                raise MisfitError(f"entries/{place}: {said(error)}") from error
        for key, form in PARTS.items():
            # Rows that were made from their changes were checked as they were made.
            if key in state and not isinstance(state[key], Rows):
                hold_tree(form, state[key], key)
        _check_numbers(state)
        return records
    except MisfitError as error:
        raise LifelongError(f"{file}: {error}; restore a copy of the run, or learn it again") from error


def _check_choice(entry: dict[str, Any], where: str) -> None:
    """Which candidate was chosen."""
    if "tuning" in entry:
        count, chosen = len(entry["tuning"]["candidates"]), entry["tuning"]["chosen"]
        _require(chosen < count, f"{where}/tuning/chosen: {chosen} of {count} candidates")


def _check_numbers(state: Tree) -> None:
    """One row of accuracies and one digest for each task."""
    tasks, rows = len(state["entries"]), state["accuracy"]
    _require(tasks > 0, "entries: none")
    # Row i has the accuracies after task i, of which there may be none for tasks whose images were away.
    _require([len(row) for row in rows] == list(range(1, tasks + 1)), f"accuracy: rows of {[len(row) for row in rows]} for {tasks} tasks")
    within = isinstance(rows, Rows) or all(not value < 0 and not value > 1 for row in rows for value in row)
    _require(within, "accuracy: outside 0 to 1")
    _require(len(state["digests"]) == tasks, f"digests: {len(state['digests'])} for {tasks} tasks")
    if state.get("contents"):
        _require(len(state["contents"]) == tasks, f"contents: {len(state['contents'])} for {tasks} tasks")

    forgotten = state.get(FORGOTTEN, [])
    right = len(set(forgotten)) == len(forgotten) and all(place < tasks + len(forgotten) for place in forgotten)
    _require(right, f"{FORGOTTEN}: {forgotten} are not positions of a stream")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise MisfitError(message)


@uncollected()
def restored(directory: RunDirectory, config: RunConfig, state: Tree, device: torch.device | str) -> tuple[Method, list[TaskRecord]]:
    """Restore the method of a run from its state, whose tensors it may take over, and the records of its tasks.

    Args:
        directory: of the run.
        config: of the run.
        state: as it was read.
        device: where its networks shall be.

    Raises:
        LifelongError: the state is not of a run of this configuration.
    """
    file = directory.checkpoint / "run.safetensors"
    entries = check_state(file, state)
    method = method_after(config, entries)
    recorded = [Recorded(entry.name, len(entry.classes), entry.side) for entry in entries]
    restore(method, state["method"], device, file, recorded, own=True)
    return method, entries
