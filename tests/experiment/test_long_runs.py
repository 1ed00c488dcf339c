"""Runs of many tasks: their files hold what is new, and are read as one record all the same."""

import json
import math
from pathlib import Path

import pytest
import torch

import lifelong
from lifelong.experiment import lines, outcome
from lifelong.experiment.accuracies import changes, rows_of, steps_of
from lifelong.experiment.judging import judged
from lifelong.experiment.lines import folded, line_of, rejudged_of
from lifelong.experiment.metrics import best_before, maximal_forgetting
from lifelong.experiment.results import RunDirectory, read_summary
from lifelong.experiment.run import run
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.report.thinning import MOST_DRAWN, note_of, places, thinned
from tests.experiment.damage import HERE, again, certain, config, copied


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of more than one task is a long one."""
    for module in (lines, outcome):
        monkeypatch.setattr(module, "MANY", 1)


@pytest.mark.usefixtures("long")
def test_a_long_run_is_read_as_a_short_one(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = run(config(base), out, HERE)
    head = json.loads((out / "summary.json").read_text())
    assert head["learned"] == 2
    assert not head.keys() & {"tasks", "accuracy"}
    assert summary == read_summary(out)
    assert certain(summary) == certain(read_summary(base / "finetune-0"))
    found = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert found[0]["accuracy"] == [summary["accuracy"][0][0]]
    assert found[1]["own_accuracy"] == summary["accuracy"][1][1]
    # Finetune changes the network of the first task.
    assert [each["task"] for each in found[1].get("rejudged", [])] in ([0], [])
    assert lifelong.verify(out).sound
    lifelong.write_report(out)


@pytest.mark.usefixtures("long")
def test_the_results_of_a_long_run_are_made_up_for(base: Path, tmp_path: Path) -> None:
    """Lost, damaged, or a line further than the summary: as of a short one."""
    out = tmp_path / "run"
    wanted = run(config(base), out, HERE)
    text, summary = (out / "results.jsonl").read_text(), (out / "summary.json").read_text()
    for damaged in ("", text[:-5], text.replace('"own_accuracy"', '"own_accurac"'), text.splitlines(keepends=True)[0]):
        (out / "results.jsonl").write_text(damaged)
        # Fewer whole lines are no damage: a run that was killed leaves them.
        assert lifelong.verify(out).sound is (damaged in ("", text.splitlines(keepends=True)[0]))
        assert again(out, config(base))[0] == wanted
        assert read_summary(out) == wanted
    # Killed between a line and the summary, which then is of a task less.
    first = lifelong.rollback(out, 1)
    assert first.tasks == 1
    before = (out / "summary.json").read_text()
    lifelong.rollback(out, 2)
    (out / "summary.json").write_text(before)
    _, said = again(out, config(base))
    assert not any("summary" in note for note in said)
    assert json.loads((out / "summary.json").read_text())["learned"] == json.loads(summary)["learned"]


def test_lines_come_to_records_and_rows() -> None:
    """By hand: the third task changes the first, whose images were away then; the second stays as it was."""
    entries = [TaskRecord(name=name, classes=["x", "y"]) for name in "abc"]
    gone = TaskRecord(name="a", classes=["x", "y"])
    entries[0].judged = judged(torch.tensor([[2, 0], [1, 1]]))
    told = [
        line_of(entries[0], [0.75]),
        line_of(entries[1], [0.75, 0.5]),
        line_of(entries[2], [math.nan, 0.5, 1.0], [rejudged_of(0, math.nan, gone)]),
    ]
    records, rows = folded(told)
    assert rows == [[0.75], [0.75, 0.5], [None, 0.5, 1.0]]
    assert "judged" not in records[0]
    assert [record["name"] for record in records] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="line 1"):
        folded([{"name": "a", "rejudged": [{"task": 5, "accuracy": 1.0}]}])


def test_rows_and_their_changes() -> None:
    rows = [[0.5], [0.5, 0.25], [math.nan, 0.25, 1.0], [0.5, 0.25, 1.0, 0.0]]
    steps = [changes(before, row) for before, row in zip([[], *rows], rows, strict=False)]
    assert [step["tasks"] for step in steps] == [[0], [1], [0, 2], [0, 3]]
    assert str(rows_of(steps)) == str(rows)
    # Whether they know their changes or not.
    assert str(steps_of(rows_of(steps))) == str(steps_of(rows)) == str(steps)
    assert best_before(rows_of(steps)) == best_before(rows) == [0.5, 0.25, 1.0]
    for wrong in ({"tasks": [0], "accuracy": [1.5]}, {"tasks": [7], "accuracy": [0.5]}, {"tasks": [0]}, {"tasks": [-1], "accuracy": [0.5]}):
        with pytest.raises(lifelong.LifelongError, match="changes/0"):
            rows_of([wrong])
    assert best_before(rows[:3]) == [0.5, 0.25]
    assert maximal_forgetting(rows, best_before(rows)) == maximal_forgetting(rows)


def test_a_long_report_draws_some_tasks() -> None:
    count = 3 * MOST_DRAWN
    assert places(MOST_DRAWN) == list(range(MOST_DRAWN))
    wanted = places(count)
    assert (wanted[0], wanted[-1], len(set(wanted))) == (0, count - 1, MOST_DRAWN)
    tasks = [{"name": str(index), "classes": ["a"], "divergences": [float(other) for other in range(index)]} for index in range(count)]
    accuracy = [[other / count for other in range(index + 1)] for index in range(count)]
    summary = RunRecord.model_validate({"stream": "s", "method": "m", "seed": 0, "tasks": tasks, "accuracy": accuracy})
    found = thinned(summary)
    assert [task.name for task in found.tasks] == [str(place) for place in wanted]
    assert found.tasks[-1].divergences == [float(place) for place in wanted[:-1]]
    assert found.accuracy[-1] == [place / count for place in wanted]
    assert len(summary.tasks) == count
    assert note_of(MOST_DRAWN) == []
    assert f"{MOST_DRAWN} of its {count} tasks" in note_of(count)[0]


def test_a_copy_of_a_short_run_is_not_touched(base: Path, tmp_path: Path) -> None:
    out = copied(base / "finetune-0", tmp_path / "run")
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file() and file.name != ".lock"}
    again(out, config(base))
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file() and file.name != ".lock"} == before
    assert RunDirectory(out).version() == 2
