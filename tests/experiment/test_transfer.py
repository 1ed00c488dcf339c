"""Transfer between all pairs of tasks: against runs of PAR that do the same, stopped and continued, and bad input."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

import lifelong
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment.observer import Observer
from lifelong.records.transfer import TransferRecord
from lifelong.settings.sockets import MEASURES
from lifelong.training.stages import Epoch

STREAM = "digits?tasks=3&train_per_class=6&valid_per_class=4&test_per_class=6"
FEW = {"preset": "quick", "epochs": 2, "init_channels": 2, "device": "cpu", "threads": 1, "progress": False}
ALL = ("share", "fine-tune", "head", "cell")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[TransferRecord, Path]:
    folder = tmp_path_factory.mktemp("transfer") / "out"
    return lifelong.transfer(STREAM, strategies=ALL, measures=["prototype-kl", "leep"], out=folder, variant="fixed", **FEW), folder


def of(result: TransferRecord, source: int, target: int, strategy: str) -> Any:
    pairs = result.seeds[0].pairs
    return next(pair for pair in pairs if (pair.source, pair.target, pair.strategy) == (source, target, strategy))


def test_every_pair_is_measured(found) -> None:
    result, _ = found
    pairs = [(pair.source, pair.target, pair.strategy) for pair in result.seeds[0].pairs]
    assert sorted(pairs) == sorted((i, j, how) for i in range(3) for j in range(3) if i != j for how in ALL)
    for pair in result.seeds[0].pairs:
        assert pair.gain == pytest.approx(pair.accuracy - result.seeds[0].alone[pair.target].accuracy)
        assert pair.change == 0 or pair.strategy == "share"
    (head, new) = of(result, 0, 1, "head"), of(result, 0, 1, "fine-tune")
    assert head.parameters == 8 * 5 + 5  # a head alone: 4 x 2 features, 5 classes
    assert new.parameters == result.seeds[0].alone[1].parameters > head.parameters
    assert of(result, 0, 1, "share").parameters == head.parameters


def test_alone_equals_a_run_that_shares_nothing(found, tmp_path) -> None:
    """Task by task and to the bit: the seeds are those of a run."""
    result, _ = found
    run = lifelong.run(STREAM, out=tmp_path / "run", variant="fixed", **FEW)
    assert [one.accuracy for one in result.seeds[0].alone] == [row[-1] for row in run.accuracy]
    assert [one.parameters for one in result.seeds[0].alone] == [task.parameters_added for task in run.tasks]
    # A new expert of the source's cell, which is the fixed one, is the target learned alone.
    assert all(pair.gain == 0 for pair in result.seeds[0].pairs if pair.strategy == "cell")


@pytest.mark.parametrize(("strategy", "ratio"), [("share", 0.0), ("head", 100.0)])
def test_sharing_equals_a_run_that_shares_always(found, tmp_path, strategy, ratio) -> None:
    """The first task and the second, by one expert of PAR."""
    result, _ = found
    two = STREAM.replace("tasks=3", "tasks=2")
    run = lifelong.run(two, out=tmp_path / "run", variant="regularization", freeze_ratio=ratio, **FEW)
    pair = of(result, 0, 1, strategy)
    assert [run.accuracy[1][1], run.accuracy[1][0] - run.accuracy[0][0]] == [pair.accuracy, pytest.approx(pair.change)]


def test_distances_are_those_of_the_command_distances(found) -> None:
    """Of later tasks from earlier ones, which is all that the command measures."""
    result, _ = found
    known = lifelong.distances(STREAM, preset="quick", device="cpu", progress=False)
    (measured,) = [one for one in result.seeds[0].measured if one.measure == "prototype-kl"]
    for index, row in enumerate(known.divergences):
        assert measured.divergences[index][:index] == pytest.approx(row)
        assert measured.divergences[index][index] is None
        # Eq. 6.
        for divergence, distance in zip(measured.divergences[index], measured.distances[index], strict=True):
            assert distance is None or distance == pytest.approx(min(divergence, 1 - math.exp(-2 * divergence)))


def test_measures_that_look_through_experts_see_those_of_a_run(found, tmp_path) -> None:
    """The second task as the first one's expert sees it."""
    result, _ = found
    run = lifelong.run(STREAM.replace("tasks=3", "tasks=2"), out=tmp_path / "run", allocation="fixed", measure="leep", **FEW)
    (measured,) = [one for one in result.seeds[0].measured if one.measure == "leep"]
    assert measured.divergences[1][0] == pytest.approx((run.tasks[1].divergences or [])[0], abs=1e-6)


def test_files(found) -> None:
    result, folder = found
    assert TransferRecord.model_validate(json.loads((folder / "transfer.json").read_text())) == result
    with (folder / "transfer.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    pair, row = of(result, 2, 0, "share"), next(row for row in rows if (row["source"], row["target"]) == ("mixed", "low"))
    assert float(row["gain"]) == pair.gain
    assert float(row["distance:prototype-kl"]) == result.seeds[0].measured[0].distances[0][2]
    page = (folder / "transfer.html").read_text()
    for part in ("How well distances predict it", "Rules against the oracle", "always alone", "prototype-kl"):
        assert part in page


class Stopping(Observer):
    """Counts epochs, and stops at one."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.epochs, self.done = at, 0, []

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        self.done.append(done)

    def epoch(self, event: Epoch) -> None:
        self.epochs += 1
        if self.epochs == self.at:
            raise KeyboardInterrupt


def test_what_was_stopped_continues(found, tmp_path) -> None:
    """In the middle of a pair of the second source: nothing is learned twice but the epoch in which it stopped, which was not saved."""
    result, _ = found
    few = {key: value for key, value in FEW.items() if key != "progress"} | {"variant": "fixed", "save_every": 0}
    asked = {"stream": STREAM, "strategies": ["share"], "measures": ["prototype-kl"], "out": tmp_path / "out"}
    # Three trainings of two epochs for each source.
    with pytest.raises(KeyboardInterrupt):
        lifelong.transfer(**asked, progress=Stopping(6 + 4), **few)
    rest, again = Stopping(), Stopping()
    continued = lifelong.transfer(**asked, progress=rest, **few)
    assert (rest.done, rest.epochs) == ([1], 3 * 6 - (6 + 3))
    once = lifelong.transfer(**asked, progress=again, **few)
    assert (again.done, again.epochs) == ([3], 0)
    wanted = [pair for pair in result.seeds[0].pairs if pair.strategy == "share"]
    for other in (continued, once):
        for one, two in zip(other.seeds[0].pairs, wanted, strict=True):
            assert one.to_dict() | {"seconds": 0} == two.to_dict() | {"seconds": 0}
    assert once.rules == continued.rules


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("", ["--stream"]),
        ("digist", ["'digist'", "'digits'"]),
        ("digits --strategies share,borrow", ["--strategies borrow", "fine-tune"]),
        ("digits --strategies share,share", ["twice"]),
        ("digits --measures prototype-lk", ["'prototype-lk'", "'prototype-kl'"]),
        ("digits --seeds 0,0", ["--seeds 0,0", "twice"]),
        ("digits --expert head", ["--expert head", "cells"]),
        ("digits?tasks=1", ["single task"]),
        ("digits --grid lr=0.1,0.2", ["--grid"]),
        ("digits --out taken", ["taken", "not empty"]),
    ],
)
def test_bad_input_is_one_line(words, parts, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken" / "seed0").mkdir(parents=True)
    (tmp_path / "taken" / "seed0" / "mine.txt").write_text("of another program")
    assert main(["transfer", *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for part in parts:
        assert part in line


def test_other_settings_need_another_folder(found) -> None:
    _, folder = found
    with pytest.raises(LifelongError, match=r"holds a run with epochs = 2, not 1"):
        lifelong.transfer(STREAM, out=folder, variant="fixed", **(FEW | {"epochs": 1}))


class Narrow(lifelong.Measure):
    """Measures nothing of more than two tasks."""

    def keep(self, sample, settings):
        return {}

    def divergences(self, sample, kept, settings):
        raise LifelongError("too many tasks")


def test_a_measure_that_cannot_be_computed_is_left_out(tmp_path) -> None:
    before = dict(MEASURES._entries)
    try:
        MEASURES._entries = {name: before[name] for name in ("prototype-kl", "knn-kl")}
        lifelong.register_measure("narrow", Narrow)
        two = {"stream": STREAM.replace("tasks=3", "tasks=2"), "strategies": ["head"], "variant": "fixed", **FEW, "epochs": 1}
        result = lifelong.transfer(out=tmp_path / "out", **two)
        assert result.left_out["narrow"] == "too many tasks"
        assert "--keep-features" in result.left_out["knn-kl"]
        assert result.measures == ["prototype-kl"]
        with pytest.raises(LifelongError, match="too many tasks"):
            lifelong.transfer(out=tmp_path / "out", measures=["narrow"], **two)
    finally:
        MEASURES._entries = before
