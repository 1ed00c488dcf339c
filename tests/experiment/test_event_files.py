"""What TensorBoard is given. The files themselves are read where the package is there."""

import json
import math
import sys

import pytest

from lifelong.errors import LifelongError
from lifelong.experiment import event_files
from lifelong.experiment.run import run
from lifelong.records.task import TaskRecord
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.training import TrainingSettings
from tests.experiment.kill_driver import STREAM

ENTRIES = [TaskRecord(name=name, classes=[], parameters_added=added) for name, added in (("a", 100), ("b", 10))]
ACCURACY = [[0.8], [0.5, 0.75]]


@pytest.fixture
def config(tmp_path) -> RunConfig:
    stream = tmp_path / "three.toml"
    stream.write_text(STREAM)
    training = TrainingSettings(epochs=2, batch_size=16, lr=0.05)
    settings = FinetuneSettings(init_channels=4, backbone="cells")
    return RunConfig(stream=str(stream), method="finetune", seed=0, preset="paper", training=training, settings=settings)


def test_epochs_of_a_task():
    lines = [
        {"task": 0, "stage": "train", "epoch": 1, "loss": 2.0, "accuracy": None},
        {"task": 0, "candidate": 2, "stage": "train", "epoch": 7, "loss": 0.5, "accuracy": 0.9},
    ]
    assert event_files.epoch_points(lines) == [
        ("train/loss", 1, 2.0),
        ("train/accuracy", 1, None),
        ("train, candidate 3/loss", 7, 0.5),
        ("train, candidate 3/accuracy", 7, 0.9),
    ]


def test_how_the_method_stands_after_a_task():
    assert event_files.stream_points(ENTRIES, ACCURACY) == [
        ("AP", 2, 0.625),
        ("AF", 2, pytest.approx(-0.15)),
        ("parameters", 2, 110.0),
        ("accuracy/task-001", 2, 0.5),
        ("accuracy/task-002", 2, 0.75),
    ]


def test_without_the_package_one_line_before_anything_is_written(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(LifelongError, match=r"--tensorboard needs the package tensorboard: pip install 'lifelong\[tensorboard\]'"):
        run(config, tmp_path / "run", Environment(device="cpu", tensorboard=True))
    assert not (tmp_path / "run").exists()


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    """Every chart of a folder as TensorBoard itself reads it."""
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no package tensorboard: pip install lifelong[tensorboard]"
    )
    found = loader.EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_what_tensorboard_reads(tmp_path):
    pytest.importorskip("tensorboard", reason="no package tensorboard: pip install lifelong[tensorboard]")
    lines = [
        {"task": task, "stage": "train", "epoch": epoch, "loss": 1 / epoch, "accuracy": None if task else 0.5}
        for task in (0, 1)
        for epoch in (1, 2)
    ]
    (tmp_path / "curves.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    event_files.write_events(tmp_path, ENTRIES[:1], ACCURACY[:1])
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("events*")}
    assert len(before) == 2
    event_files.write_events(tmp_path, ENTRIES, ACCURACY)
    # What was written stays: a TensorBoard that is open reads on.
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert scalars(tmp_path / "tensorboard/task-001") == {"train/loss": [(1, 1.0), (2, 0.5)], "train/accuracy": [(1, 0.5), (2, 0.5)]}
    assert list(scalars(tmp_path / "tensorboard/task-002")) == ["train/loss"]
    found = scalars(tmp_path / "tensorboard/stream")
    assert found["AP"] == [(1, pytest.approx(0.8)), (2, 0.625)]
    assert found["accuracy/task-001"] == [(1, pytest.approx(0.8)), (2, 0.5)]
    assert found["parameters"] == [(1, 100.0), (2, 110.0)]


def test_a_run_that_was_learned_without_events_gets_them(config, tmp_path):
    pytest.importorskip("tensorboard", reason="no package tensorboard: pip install lifelong[tensorboard]")
    out = tmp_path / "run"
    summary = run(config, out, Environment(device="cpu"))
    assert not (out / "tensorboard").exists()
    run(config, out, Environment(device="cpu", tensorboard=True))
    found = scalars(out / "tensorboard/stream")
    assert [step for step, _ in found["AP"]] == [1, 2, 3]
    assert math.isclose(found["AP"][-1][1], summary["ap"], rel_tol=1e-6)
    assert [step for step, _ in scalars(out / "tensorboard/task-003")["train/loss"]] == [1, 2]
