"""What was chosen for each task of a tuned run, as text for a table."""

from typing import Any

from lifelong.report.wording import accuracy, clean, duration, finite
from lifelong.settings.fields import show_default


def tuned(summary: dict[str, Any]) -> bool:
    """Tell whether hyper-parameters were tuned task by task."""
    return "grid" in (summary.get("settings") or {})


def chosen_rows(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and one row a task: the chosen values, their validation accuracy, and what all candidates cost.

    Args:
        summary: of a tuned run.
    """
    reports = [(index, task, task["tuning"]) for index, task in enumerate(summary["tasks"]) if task.get("tuning")]
    keys = list(reports[0][2]["candidates"][0]["values"]) if reports else []
    rows = []
    for index, task, report in reports:
        trial = report["candidates"][report["chosen"]]
        rows.append(
            [
                f"{index + 1} · {clean(task['name'])}",
                *(value(trial["values"][key]) for key in keys),
                accuracy(trial["valid_accuracy"]),
                f"{report['chosen'] + 1} of {len(report['candidates'])}",
                str(report["epochs"]),
                duration(report["seconds"]),
            ]
        )
    return ["task", *map(clean, keys), "validation", "candidate", "epochs of all", "time of all"], rows


def candidate_rows(task: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and one row a candidate of a task.

    Args:
        task: of a tuned run.
    """
    trials = task["tuning"]["candidates"]
    rows = [
        [
            f"{index + 1}{', chosen' if index == task['tuning']['chosen'] else ''}",
            *map(value, trial["values"].values()),
            accuracy(trial["valid_accuracy"]) if finite(trial["valid_accuracy"]) is not None else "diverged",
            str(trial["epochs"]),
            duration(trial["seconds"]),
        ]
        for index, trial in enumerate(trials)
    ]
    return ["candidate", *map(clean, trials[0]["values"]), "validation", "epochs", "time"], rows


def value(given: Any) -> str:
    """Write a hyper-parameter with at most four digits."""
    return f"{given:.4g}" if isinstance(given, float) else clean(show_default(given))
