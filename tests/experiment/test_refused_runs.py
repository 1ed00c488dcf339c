"""What a run refuses, in one line and without harm: other settings, other folders, no room, no weights."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lifelong.errors import LifelongError
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import run
from lifelong.methods.finetune import Finetune
from lifelong.settings.run import Environment
from tests.experiment.kill_driver import STREAM
from tests.experiment.small_runs import config

HERE = Environment(device="cpu")
ROOT = Path(__file__).resolve().parents[2]


def test_a_device_that_is_full_is_one_line(stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")

    monkeypatch.setattr(Finetune, "learn", full)
    with pytest.raises(LifelongError, match=r"task 'a': the device 'cpu' has not enough memory; .*--workers") as caught:
        run(config(stream), tmp_path / "run", HERE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: replace(c, seed=1), "seed = 0, not 1"),
        (lambda c: replace(c, training=replace(c.training, lr=0.1)), r"lr = 0\.05, not 0\.1"),
        (lambda c: replace(c, settings=replace(c.settings, init_channels=8)), "init_channels = 4, not 8"),
    ],
)
def test_another_configuration_is_refused(stream: str, tmp_path: Path, change, words: str) -> None:
    out = tmp_path / "run"
    run(config(stream), out, HERE)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.raises(LifelongError, match=words):
        run(change(config(stream)), out, HERE)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_another_version_of_the_state_is_refused(stream: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(config(stream), out, HERE)
    identity = out / "checkpoint/identity.json"
    identity.write_text(json.dumps(json.loads(identity.read_text()) | {"version": 0}))
    with pytest.raises(LifelongError, match=r"another version of lifelong .*, in form 0; this is .*, which reads form 2"):
        run(config(stream), out, HERE)


def test_a_changed_stream_file_is_refused(stream: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(config(stream), out, HERE)
    Path(stream).write_text(STREAM.replace("train_per_class = 20", "train_per_class = 19"))
    with pytest.raises(LifelongError, match="stream images"):
        run(config(stream), out, HERE)


def test_a_folder_with_other_things_is_refused(stream: str, tmp_path: Path) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(LifelongError, match="not empty and holds no run"):
        run(config(stream), out, HERE)
    assert [file.name for file in out.iterdir() if file.name != ".lock"] == ["holiday.jpg"]


def test_an_unwritable_place_is_named(stream: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LifelongError, match=r"cannot write to .*file/run: .*; make it writable, or use another folder"):
        run(config(stream), tmp_path / "file" / "run", HERE)


def test_a_damaged_state_is_named(stream: str, tmp_path: Path) -> None:
    """Where the one before it is damaged too."""
    out = tmp_path / "run"
    run(config(stream), out, HERE)
    for name in ("run.safetensors", "run.previous.safetensors"):
        state = out / "checkpoint" / name
        state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(LifelongError, match=r"cannot read .*run\.safetensors: damaged or missing, and so is the state before it"):
        run(config(stream), out, HERE)


def test_two_processes_do_not_share_a_folder(stream: str, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    with directory.locked(), pytest.raises(LifelongError, match="another process is running"):
        run(config(stream), tmp_path / "run", HERE)


def test_a_loss_that_is_not_finite_says_where(stream: str, tmp_path: Path) -> None:
    with pytest.raises(LifelongError, match=r"task 'a', train, epoch 1, with lr 1e\+30"):
        run(config(stream, lr=1e30, clip_norm=0.0), tmp_path / "run", HERE)


def test_a_folder_of_something_else_is_not_touched(stream: str, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    (out / "sub").mkdir(parents=True)
    parts = [out / ".letter.part", out / "sub" / ".movie.part"]
    for part in parts:
        part.write_text("being written")
    with pytest.raises(LifelongError, match="is not empty and holds no run"):
        run(config(stream), out, HERE)
    assert all(part.exists() for part in parts)


def test_what_a_killed_process_has_left_is_dropped_and_nothing_else(stream: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(config(stream), out, HERE)
    left, others = [out / ".summary.json.x.part", out / "checkpoint" / "stages" / ".y.part"], [out / "notes" / ".mine.part"]
    for part in left + others:
        part.parent.mkdir(exist_ok=True)
        part.write_text("")
    run(config(stream), out, HERE)
    assert not any(part.exists() for part in left)
    assert all(part.exists() for part in others)


FULL = """
import resource, sys
from lifelong.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_is_one_line_and_loses_nothing(stream: str, tmp_path: Path) -> None:
    """No file may grow beyond 30 kB: what a full disk looks like to the program."""
    command = ["run", "--stream", stream, "--method", "finetune", "--backbone", "cells", "--init-channels", "16", "--epochs", "1"]
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", FULL, *command, "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert not list(out.rglob("*.part"))
    assert (out / "config.toml").exists()


def test_a_run_that_learned_nothing_may_be_started_anew(stream: str, tmp_path: Path) -> None:
    """A rate that was too high, or weights that were missing, do not spoil the folder."""
    out = tmp_path / "run"
    with pytest.raises(LifelongError, match="NaN or infinite"):
        run(config(stream, lr=1e30, clip_norm=0.0), out, HERE)
    assert run(config(stream), out, HERE)["complete"]
    assert "lr = 0.05" in (out / "config.toml").read_text()


def test_missing_weights_leave_nothing_behind(stream: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LIFELONG_WEIGHTS", raising=False)
    asked = config(stream, "par")
    with pytest.raises(LifelongError, match="needs ImageNet weights"):
        run(replace(asked, settings=replace(asked.settings, extractor="resnet18")), tmp_path / "run", replace(HERE, weights=None))
    assert not (tmp_path / "run").exists()
