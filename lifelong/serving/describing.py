"""What clients are told of a run: its tasks with distances and decisions, in words and as numbers, and its versions."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lifelong
from lifelong.errors import LifelongError
from lifelong.experiment.summaries import read_summary
from lifelong.predictor import Prediction
from lifelong.records.task import TaskRecord
from lifelong.report.html import write_report
from lifelong.report.wording import against_thresholds, clean, decision, finite, learned_and_now, nearest, sentence
from lifelong.serving.model import Opened
from lifelong.words import counted

log = logging.getLogger(__name__)

DECIDED = {
    "search": "A new expert was made for it, and its cell was searched.",
    "reuse-cell": "A new expert was made for it, with a cell that was found before.",
    "allocate": "A new expert was made for it.",
    "reuse-expert": "It shares the expert of an earlier task.",
    "head": "Only a head on the frozen network was trained for it.",
    "adapter": "Adapters on the frozen network were trained for it.",
    "side": "A side network on the frozen network was trained for it.",
}
"""What each decision means for a person who has not read the paper."""


def run_of(opened: Opened) -> dict[str, Any]:
    """Describe a run."""
    summary = opened.summary
    known = {"version": opened.version, "method": summary.method, "stream": clean(summary.stream), "sentence": sentence(summary)}
    return known | {
        "parameters": summary.parameters,
        "lifelong": lifelong.__version__,
        "notes": [clean(note) for note in summary.notes or []],
    }


def tasks_of(opened: Opened) -> list[dict[str, Any]]:
    """Describe the tasks of a run in the order in which they were learned."""
    summary, names = opened.summary, list(opened.predictor.tasks)
    learned, now = learned_and_now(summary.accuracy)
    return [
        {
            "name": name,
            "classes": list(opened.predictor.tasks[name]),
            "image_size": opened.predictor.image_sizes[name],
            "images": {"train": record.train, "valid": record.valid, "test": record.test},
            "accuracy_learned": learned[index],
            "accuracy_now": now[index] if index < len(now) else None,
            "seconds": finite(record.seconds),
            "decision": record.decision,
            "expert": record.expert,
            "decided": _decided(record, summary.tasks[:index], names),
            "short": decision(record),
            "reason": clean(record.reason or ""),
            "against": against_thresholds(record) if record.group_distances else "",
            "nearest": nearest(record),
            "alpha": finite(record.alpha),
            "beta": finite(record.beta),
            "distances": _distances(record, names),
            "groups": [finite(value) for value in record.group_distances or []],
            "notes": [clean(note) for note in record.notes or []],
        }
        for index, (name, record) in enumerate(zip(names, summary.tasks, strict=True))
    ]


def answer_of(place: int, answer: Prediction | str) -> dict[str, Any]:
    """Describe the answer for an image."""
    if isinstance(answer, str):
        return {"image": place, "error": answer}
    known = {"image": place, "task": answer.task, "task_probability": finite(answer.task_probability), "label": answer.label}
    shares = {"probability": finite(answer.probability), "classes": _shares(answer.classes), "tasks": _shares(answer.tasks)}
    return known | shares | {"strange": answer.strange, "error": None}


def versions_of(run: Path) -> list[dict[str, Any]]:
    """Describe the versions of a run, to which it can be brought back."""
    return [asdict(version) for version in lifelong.history(run)]


def roll_back(run: Path, to: int) -> None:
    """Bring a run back to an earlier version."""
    lifelong.rollback(run, to=to)
    _follow(run)


def forget(run: Path, task: str, dry_run: bool) -> dict[str, Any]:
    """Forget a task of a run, or only say what would go with it; its report is written again.

    Raises:
        LifelongError: the task cannot be forgotten.
    """
    found = asdict(lifelong.forget(run, task, dry_run))
    if not dry_run:
        _follow(run)
    # The pages of the run are made again at once; that they go is no loss.
    pages = [f"{place} in the run directory" for place in ("report.html", "figures")]
    return found | {"removed": [line for line in found["removed"] if line not in pages]}


def _follow(run: Path) -> None:
    """Write the report again, which shows tasks that are gone."""
    try:
        write_report(run, read_summary(run))
    except LifelongError as error:
        log.warning("the report cannot be written: %s", error)


def _shares(shares: Mapping[str, float] | None) -> dict[str, float | None] | None:
    """Return shares as JSON can say them: a network whose numbers have run away answers NaN."""
    return None if shares is None else {name: finite(share) for name, share in shares.items()}


def _decided(record: TaskRecord, before: list[TaskRecord], names: list[str]) -> str:
    """Say in a sentence or two what was decided for a task."""
    if record.decision is None:
        return "This method decides nothing: it trains every task in the same way."
    words = DECIDED.get(record.decision, clean(record.decision) + ".")
    shared = [names[index] for index, other in enumerate(before) if record.expert is not None and other.expert == record.expert]
    if record.decision == "reuse-expert" and shared:
        words = (
            f"It shares the expert of {', '.join(shared[:3])}" + (f" and {counted(len(shared) - 3, 'more task')}" * (len(shared) > 3)) + "."
        )
    if record.frozen and record.decision == "reuse-expert":
        words += " The expert stays as it is; only the task's own head was trained."
    return words


def _distances(record: TaskRecord, names: list[str]) -> list[dict[str, Any]]:
    """Return the distances to earlier tasks, the nearest first."""
    known = [(value, index) for index, item in enumerate(record.divergences or []) if (value := finite(item)) is not None]
    return [{"task": names[index], "distance": value} for value, index in sorted(known)]
