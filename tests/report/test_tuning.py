"""Tuned runs in tables and pages."""

import pytest
from rich.console import Console

from lifelong.report.html import write_report
from lifelong.report.runs import group
from lifelong.report.tables import tuning_table
from lifelong.report.tuning import candidate_rows, chosen_rows
from tests.report.made import NASTY


def tuned(make_summary, **settings):
    """A summary of a run that chose a rate and a flag for each of two tasks; one candidate diverged."""
    summary = make_summary(
        tasks=2, decides=False, names=NASTY[:2], method="lwf", grid="lr=0.1,0.01 augment=true", tolerance=0.0, trials=0, **settings
    )
    for index, task in enumerate(summary["tasks"]):
        trials = [
            {"values": {"lr": 0.1, "augment": True}, "valid_accuracy": None if index else 0.9, "seconds": 1.0, "epochs": 1, "failure": ""},
            {"values": {"lr": 0.01, "augment": True}, "valid_accuracy": 0.75, "seconds": 61.0, "epochs": 20, "failure": ""},
        ]
        task["tuning"] = {"candidates": trials, "chosen": index, "seconds": 62.0, "epochs": 21}
    return summary | {"tuning": {"seconds": 124.0, "epochs": 42, "candidates": 4}}


def test_what_was_chosen(make_summary) -> None:
    headings, rows = chosen_rows(tuned(make_summary))
    assert headings == ["task", "lr", "augment", "validation", "candidate", "epochs of all", "time of all"]
    assert [row[1:] for row in rows] == [
        ["0.1", "true", "0.900", "1 of 2", "21", "1 min 02 s"],
        ["0.01", "true", "0.750", "2 of 2", "21", "1 min 02 s"],
    ]
    assert candidate_rows(tuned(make_summary).tasks[1].tuning)[1] == [
        ["1", "0.1", "true", "diverged", "1", "1.00 s"],
        ["2, chosen", "0.01", "true", "0.750", "20", "1 min 01 s"],
    ]
    console = Console(width=120, record=True)
    console.print(tuning_table(tuned(make_summary)))
    assert "1 of 2" in console.export_text()


@pytest.mark.parametrize("tasks", [0, 2])
def test_the_page(make_summary, tmp_path, tasks: int) -> None:
    summary = tuned(make_summary)
    summary |= {"tasks": summary["tasks"][:tasks], "accuracy": summary["accuracy"][:tasks]}
    page = write_report(tmp_path, summary).read_text()
    assert 'id="tuning"' in page
    assert "4 candidates, 42 epochs, 2 min 04 s" in page
    assert ("diverged" in page) == (tasks == 2)
    assert "<script>alert" not in page


def test_the_page_of_other_runs_has_none_of_it(make_summary, tmp_path) -> None:
    page = write_report(tmp_path, make_summary(tasks=1, cells=False)).read_text()
    assert 'id="tuning"' not in page
    assert "Candidates" not in page


def test_labels(make_summary) -> None:
    plain = make_summary(tasks=2, method="lwf", decides=False, lr=0.5)
    assert [one.label for one in group([plain, tuned(make_summary), tuned(make_summary, seed=1)])] == ["lwf", "lwf (tuned)"]
    seeds = [make_summary(tasks, method="lwf", decides=False, seed=seed) for seed, tasks in enumerate((2, 2, 3))]
    assert [(one.label, len(one.summaries)) for one in group(seeds)] == [("lwf (tasks 2)", 2), ("lwf (tasks 3)", 1)]  # one has grown
    begun = [*seeds[:2], seeds[2] | {"complete": False}]
    assert [(one.label, len(one.summaries)) for one in group(begun)] == [("lwf", 3)]
    other = tuned(make_summary)
    other["settings"] = other["settings"] | {"tolerance": 0.1, "epochs": 9}
    labels = [one.label for one in group([tuned(make_summary), other])]
    assert labels == ["lwf (tuned, epochs 30, tolerance 0.0)", "lwf (tuned, epochs 9, tolerance 0.1)"]
