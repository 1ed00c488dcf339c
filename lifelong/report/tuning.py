"""What was chosen for each task of a tuned run, as text for a table."""

from typing import Any

from lifelong.records.run import RunRecord
from lifelong.records.task import TaskTuning
from lifelong.report.wording import accuracy, clean, duration, finite
from lifelong.settings.fields import show_default


def tuned(summary: RunRecord) -> bool:
    """Tell whether hyper-parameters were tuned task by task."""
    return "grid" in (summary.settings or {})


def chosen_rows(summary: RunRecord) -> tuple[list[str], list[list[str]]]:
    """Headings and one row a task: the chosen values, their validation accuracy, and what all candidates cost.

    Args:
        summary: of a tuned run.
    """
    reports = [(index, task, task.tuning) for index, task in enumerate(summary.tasks) if task.tuning is not None]
    keys = list(reports[0][2].candidates[0].chosen_values) if reports else []
    rows = [
        [
            f"{index + 1} · {clean(task.name)}",
            *(value(report.choice.chosen_values[key]) for key in keys),
            accuracy(report.choice.valid_accuracy),
            f"{report.chosen + 1} of {len(report.candidates)}",
            str(report.epochs),
            duration(report.seconds),
        ]
        for index, task, report in reports
    ]
    return ["task", *map(clean, keys), "validation", "candidate", "epochs of all", "time of all"], rows


def candidate_rows(tuning: TaskTuning) -> tuple[list[str], list[list[str]]]:
    """Headings and one row a candidate of a task.

    Args:
        tuning: of the task.
    """
    rows = [
        [
            f"{index + 1}{', chosen' if index == tuning.chosen else ''}",
            *map(value, trial.chosen_values.values()),
            accuracy(trial.valid_accuracy) if finite(trial.valid_accuracy) is not None else "diverged",
            str(trial.epochs),
            duration(trial.seconds),
        ]
        for index, trial in enumerate(tuning.candidates)
    ]
    return ["candidate", *map(clean, tuning.candidates[0].chosen_values), "validation", "epochs", "time"], rows


def value(given: Any) -> str:
    """Write a hyper-parameter with at most four digits."""
    return f"{given:.4g}" if isinstance(given, float) else clean(show_default(given))
