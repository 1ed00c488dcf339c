import json
import math

import pytest

from lifelong.errors import LifelongError
from lifelong.experiment.curves import Curves
from lifelong.experiment.results import RunDirectory
from lifelong.json_files import read_lines
from lifelong.storage import Seal
from lifelong.training.stages import Epoch


def report(curves: Curves, stage: str, *epochs: int, loss: float = 0.5) -> None:
    for epoch in epochs:
        curves.epoch(Epoch(stage, epoch, 9, loss, 0.75))


def kept(file) -> list[tuple]:
    lines = read_lines(file, Seal())
    assert lines.whole
    assert lines.checked
    return [(line["task"], line.get("candidate"), line["stage"], line["epoch"], line["loss"]) for line in lines.found]


def test_a_line_for_each_epoch(tmp_path):
    file = tmp_path / "curves.jsonl"
    curves = Curves(file)
    curves.task(0)
    curves.epoch(Epoch("search", 1, 2, 1 / 3, 0.9))
    curves.task(1)
    curves.candidate(4)
    curves.epoch(Epoch("train", 1, 2, 123.4567891, math.nan))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(len(line.pop("digest")) == 32 for line in lines)
    assert lines == [
        {"task": 0, "stage": "search", "epoch": 1, "loss": 0.333333, "accuracy": 0.9},
        {"task": 1, "candidate": 4, "stage": "train", "epoch": 1, "loss": 123.457, "accuracy": None},
    ]


def test_a_continued_stage_takes_the_place_of_the_old_epochs(tmp_path):
    file = tmp_path / "curves.jsonl"
    first = Curves(file)
    report(first, "search", 1, 2)
    report(first, "train", 1, 2, 3, 4)
    again = Curves(file)
    # It goes on behind its last save, after epoch 2, and this time ends with epoch 3.
    report(again, "train", 3, loss=0.25)
    assert kept(file) == [(0, None, "search", epoch, 0.5) for epoch in (1, 2)] + [
        (0, None, "train", 1, 0.5),
        (0, None, "train", 2, 0.5),
        (0, None, "train", 3, 0.25),
    ]


def test_candidates_and_tasks_are_kept_apart(tmp_path):
    file = tmp_path / "curves.jsonl"
    first = Curves(file)
    for number in (0, 1):
        first.candidate(number)
        report(first, "train", 1, 2)
    again = Curves(file)
    again.candidate(1)
    report(again, "train", 2, 3)
    again.task(1)
    report(again, "train", 1)
    places = [(task, candidate, epoch) for task, candidate, _, epoch, _ in kept(file)]
    assert places == [(0, 0, 1), (0, 0, 2), (0, 1, 1), (0, 1, 2), (0, 1, 3), (1, None, 1)]


@pytest.mark.parametrize("torn", ['{"task": 0, "sta', "\0\0\0\0", '{"task": 0, "stage": "train", "epoch": 3, "loss"\n'])
def test_a_torn_line_is_left_out(torn, tmp_path):
    file = tmp_path / "curves.jsonl"
    report(Curves(file), "train", 1, 2)
    with file.open("a") as stream:
        stream.write(torn)
    report(Curves(file), "train", 3)
    assert [epoch for *_, epoch, _ in kept(file)] == [1, 2, 3]


@pytest.mark.parametrize("damage", [lambda line: line[:-9], lambda line: line.replace("0.5", "0.4"), lambda line: "\0" * len(line)])
def test_a_damaged_line_costs_no_other(damage, tmp_path):
    file = tmp_path / "curves.jsonl"
    report(Curves(file), "train", 1, 2, 3)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], damage(lines[1]), lines[2]]) + "\n")
    assert Curves(file).lost == 1
    assert [epoch for *_, epoch, _ in kept(file)] == [1, 3]


def test_lines_of_another_run_are_not_this_one_s(tmp_path):
    file = tmp_path / "curves.jsonl"
    report(Curves(file, Seal("one")), "train", 1, 2)
    assert Curves(file, Seal("other")).lost == 2
    assert file.read_text() == ""


def test_lines_without_digests_are_those_of_an_earlier_version(tmp_path):
    file = tmp_path / "curves.jsonl"
    file.write_text('{"task": 0, "stage": "train", "epoch": 1, "loss": 0.5, "accuracy": 0.75}\n')
    assert not read_lines(file, Seal("run")).checked
    assert read_lines(file, Seal("run", required=True)).lost == 1  # in a run whose lines carry them, its key was damaged
    report(Curves(file, Seal("run")), "train", 2)
    assert [line["epoch"] for line in read_lines(file, Seal("run")).found] == [1, 2]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    curves = Curves(tmp_path / "gone" / "curves.jsonl")
    with pytest.raises(LifelongError, match=r"cannot write .*curves.jsonl: No such file"):
        report(curves, "train", 1)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "curves.jsonl").mkdir()
    with pytest.raises(LifelongError, match=r"cannot read .*curves.jsonl"):
        Curves(tmp_path / "curves.jsonl")


def test_what_was_begun_and_never_saved_begins_anew(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.claim({"lr": 1.0}, "")
    report(Curves(directory.curves), "train", 1, 2)
    directory.claim({"lr": 0.1}, "")
    assert not directory.curves.exists()
