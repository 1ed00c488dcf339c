"""The command that verifies a run directory, and repairs it."""

import json
import shutil
from pathlib import Path

import pytest

import lifelong
from lifelong.cli import main
from lifelong.experiment.lines import folded
from lifelong.experiment.results import RunDirectory, read_summary
from lifelong.json_files import read_lines
from lifelong.learner import Learner
from tests.experiment.damage import (
    IDENTITY,
    PREVIOUS,
    STATE,
    again,
    certain,
    config,
    copied,
    end,
    files_of,
    flip,
    found_or_harmless,
    slow,
    some_bits,
)
from tests.trees import same


def test_the_command(base, tmp_path, capsys):
    out = copied(base / "finetune-0", tmp_path / "run")
    before = {name: (out / name).read_bytes() for name in files_of(out)}
    assert main(["verify", str(out)]) == 0
    assert "sound: 2 tasks learned" in capsys.readouterr().out
    assert main(["verify", str(out), "--judge", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["sound"], found["tasks"], len(found["judged"])) == (True, 2, 2)
    assert {name: (out / name).read_bytes() for name in files_of(out)} == before, "it only reads"
    flip(out / STATE, 10_000)
    assert main(["verify", str(out), "--json"]) == 1
    conditions = {each["file"]: each["condition"] for each in json.loads(capsys.readouterr().out)["files"]}
    assert (conditions[STATE], conditions[PREVIOUS]) == ("damaged", "good")
    assert main(["verify", str(out), "--repair"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "run.safetensors: replaced by the state before it (1 task, the last 'a')" in shown
    assert list(Learner.load(out).tasks) == ["a"]
    assert certain(again(out, config(base))[0]) == certain(read_summary(base / "finetune-0"))
    assert main(["verify", str(tmp_path / "none")]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_without_a_state_the_last_version_is_put_back(base, tmp_path, capsys):
    out = copied(base / "finetune-0", tmp_path / "run")
    for name in (STATE, PREVIOUS):
        (out / name).unlink()
    for words in (["history", str(out)], ["rollback", str(out), "--to", "1"], ["predict", str(out), "a.png"]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert f"holds results (results.jsonl), but {out / STATE} is missing; put it back: lifelong verify {out} --repair" in said
    assert main(["verify", str(out), "--repair"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "repaired: run.safetensors: was missing; put back from the last version (2 tasks, the last 'b')" in shown
    assert same(end(out), end(base / "finetune-0"))


def test_a_configuration_that_can_be_written_again(base, tmp_path, capsys):
    out = copied(base / "finetune-0", tmp_path / "run")
    for text in ("= [", 'lr = "fast"'):
        (out / "config.toml").write_text(text)
        assert main(["predict", str(out), "a.png"]) == 2
        assert f"or use: lifelong verify {out} --repair" in capsys.readouterr().err
        assert main(["verify", str(out), "--repair"]) == 0


def test_what_cannot_be_repaired_is_said(base, tmp_path, capsys):
    out = copied(base / "finetune-0", tmp_path / "run")
    for name in (STATE, PREVIOUS, "checkpoint/versions.jsonl"):
        (out / name).unlink()
    advice = "put the files back from a copy of the run, or learn it again in another folder"
    assert main(["verify", str(out), "--repair"]) == 1
    assert f"DAMAGED, and --repair could not repair it; {advice}" in " ".join(capsys.readouterr().out.split())
    assert main(["history", str(out)]) == 2
    assert f"is missing; {advice}" in capsys.readouterr().err


def lines_of(out: Path) -> tuple:
    """What the lines of a run come to."""
    return folded(read_lines(out / "results.jsonl", RunDirectory(out).seal).found)


@pytest.mark.parametrize("file", [IDENTITY, "config.toml", "curves.jsonl", *slow("summary.json", "results.jsonl", PREVIOUS)])
def test_repair_restores_what_follows_from_the_state(base, tmp_path, file):
    """All but the lines of a curve, and a state before the last."""
    out = copied(base / "finetune-0", tmp_path / "run")
    before = (out / file).read_bytes()
    for damage in (lambda: (out / file).write_bytes(b"x" * 50), lambda: (out / file).unlink()):
        damage()
        lifelong.verify(out, repair=True)
        assert lifelong.verify(out).sound
        if file == "results.jsonl":
            # How earlier tasks were answered in between is not known any more.
            assert lines_of(out) == lines_of(base / "finetune-0")
        elif file not in ("curves.jsonl", PREVIOUS):
            assert (out / file).read_bytes() == before
        else:
            shutil.copy(base / "finetune-0" / file, out / file)


def test_repair_drops_damaged_stages_and_an_identity_of_another_run(base, tmp_path):
    out = copied(base / "par-0-stopped", tmp_path / "run")
    stage = out / "checkpoint/stages/task-001/search.done.safetensors"
    flip(stage, 999)
    shutil.copy(base / "finetune-1" / IDENTITY, out / IDENTITY)
    found = lifelong.verify(out, repair=True)
    assert found.sound
    assert len(found.repaired) == 2
    assert not stage.exists()
    again(out, config(base, "par"))
    assert same(end(out), end(base / "par-0"))


def test_added_tasks_are_known_from_the_state(base, tmp_path):
    from tests.experiment.test_continuing import images_of_bars

    out = copied(base / "finetune-0", tmp_path / "run")
    images_of_bars(tmp_path / "bars")
    summary = lifelong.learn(out, f"folder:{tmp_path / 'bars'}", device="cpu", threads=1, progress=False)
    file = out / "checkpoint" / "added.json"
    before = file.read_bytes()
    flip(file, 1000)
    assert not lifelong.verify(out).sound
    assert lifelong.learn(out, f"folder:{tmp_path / 'bars'}", device="cpu", threads=1, progress=False) == summary
    assert file.read_bytes() == before
    counts = found_or_harmless(out, "checkpoint/added.json", some_bits(file, 150))
    assert counts["missed"] == 0
    judged = lifelong.verify(out, judge=True, device="cpu", threads=1).judged
    assert [each.right for each in judged] == [True, True, True]
