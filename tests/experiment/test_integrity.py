"""A run directory proves itself: whatever is damaged, swapped or forged is found, or does no harm, and the run goes on to the same end."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

import lifelong
from lifelong.errors import LifelongError
from lifelong.experiment.results import RunDirectory, read_summary
from lifelong.experiment.run import run
from lifelong.learner import Learner
from lifelong.storage import load_tree
from tests.experiment.damage import (
    HERE,
    IDENTITY,
    PARTS,
    PREVIOUS,
    STATE,
    Notes,
    StopIn,
    again,
    again_or_refused,
    certain,
    config,
    copied,
    end,
    files_of,
    flip,
    found_or_harmless,
    slow,
    some_bits,
    stopped,
)
from tests.trees import same

STORED = Path(__file__).parent / "stored"


# Flips


def test_a_flipped_bit_is_found_or_harmless(base, tmp_path):
    """A sample of the bits of every file that is read; `test_every_flipped_bit_is_found_or_harmless` flips them all."""
    counts = {"found": 0, "harmless": 0, "missed": 0}
    for name in ("finetune-0", "par-0-stopped"):
        out = copied(base / name, tmp_path / name)
        for file in files_of(out):
            for key, count in found_or_harmless(out, file, some_bits(out / file, 60)).items():
                counts[key] += count
    assert counts["missed"] == 0
    assert counts["found"] > 900
    print(counts)


@pytest.mark.slow
def test_every_flipped_bit_is_found_or_harmless(base, tmp_path):
    counts: dict[str, dict[str, int]] = {}
    for name in ("finetune-0", "par-0-stopped"):
        out = copied(base / name, tmp_path / name)
        for file in files_of(out):
            large = (out / file).stat().st_size > 8_000
            counts[f"{name}/{file}"] = found_or_harmless(out, file, some_bits(out / file, 6_000 if large else 10**9))
    for file, each in counts.items():
        print(file, each)
    assert not any(each["missed"] for each in counts.values())


def check_end_of_finished(base: Path, place: Path, file: str, bit: int) -> None:
    """A finished run with a flipped bit: the command that made it comes to the same end, or says in one line why not."""
    out = copied(base / "finetune-0", place)
    wanted = read_summary(out)
    flip(out / file, bit)
    found = lifelong.verify(out)
    summary, said = again_or_refused(out, config(base))
    if summary is None:
        assert len(said) == 1
        assert not found.sound
        return
    assert certain(summary) == certain(wanted)
    assert same(end(out), end(base / "finetune-0"))
    assert certain(json.loads((out / "summary.json").read_text())) == certain(wanted)
    # What was damaged was said; what was harmless need not be, nor a copy of which the other one was read.
    assert found.sound or said or file == PREVIOUS or file.startswith(PARTS)


@pytest.mark.parametrize("file", [STATE, "config.toml", *slow(PREVIOUS, IDENTITY, "summary.json", "results.jsonl", "curves.jsonl")])
def test_a_finished_run_with_a_flipped_bit_comes_to_its_end(base, tmp_path, file):
    check_end_of_finished(base, tmp_path / "run", file, random.Random(file).randrange(8 * (base / "finetune-0" / file).stat().st_size))


@pytest.mark.parametrize(
    "file",
    [
        STATE,
        "checkpoint/stages/task-001/search.done.safetensors",
        "checkpoint/stages/task-001/train.running.safetensors",
        *(
            pytest.param(file, marks=pytest.mark.slow)
            for file in (IDENTITY, "config.toml", "summary.json", "results.jsonl", "curves.jsonl")
        ),
    ],
)
def test_a_stopped_run_with_a_flipped_bit_comes_to_the_end_of_one_without(base, tmp_path, file):
    out = copied(base / "par-0-stopped", tmp_path / "run")
    flip(out / file, random.Random(file).randrange(8 * (out / file).stat().st_size))
    if file == STATE:
        # There is none before the first.
        with pytest.raises(LifelongError, match="damaged or missing, and so is the state before it"):
            again(out, config(base, "par"))
        return
    found = lifelong.verify(out).sound
    summary, said = again(out, config(base, "par"))
    assert found or said
    assert same(end(out), end(base / "par-0"))
    assert certain(summary) == certain(read_summary(base / "par-0"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_many_flips_end_to_end(base, tmp_path, seed):
    chance = random.Random(seed)
    for number in range(12):
        file = chance.choice(files_of(base / "finetune-0"))
        check_end_of_finished(base, tmp_path / "run", file, chance.randrange(8 * (base / "finetune-0" / file).stat().st_size))
        file = chance.choice([file for file in files_of(base / "par-0-stopped") if file != STATE])
        out = copied(base / "par-0-stopped", tmp_path / f"stopped-{number}")
        flip(out / file, chance.randrange(8 * (out / file).stat().st_size))
        if again_or_refused(out, config(base, "par"))[0] is not None:
            assert same(end(out), end(base / "par-0"))


def test_a_damaged_state_falls_back_to_the_one_before_it(base, tmp_path):
    out = copied(base / "finetune-0", tmp_path / "run")
    content = (out / STATE).read_bytes()
    (out / STATE).write_bytes(content[:-3] + bytes([content[-3] ^ 4]) + content[-2:])
    for use in (lambda: Learner.load(out), lambda: lifelong.export(out, "a"), lambda: lifelong.learn(out, "digits", progress=False)):
        with pytest.raises(LifelongError, match=r"run\.safetensors: damaged .*lifelong verify .* --repair, from the state before it"):
            use()
    summary, said = again(out, config(base))
    words = "run.safetensors was damaged (its header does not fit its digest): continued from the state before it"
    assert words in said
    assert words in summary["notes"]
    assert same(end(out), end(base / "finetune-0"))
    assert len(load_tree(out / PREVIOUS)["entries"]) == 1
    assert lifelong.verify(out).sound


def test_a_missing_state_falls_back_too(base, tmp_path):
    out = copied(base / "finetune-0", tmp_path / "run")
    (out / STATE).unlink()
    summary, said = again(out, config(base))
    assert "run.safetensors was missing: continued from the state before it" in said
    assert certain(summary) == certain(read_summary(base / "finetune-0"))


def test_a_file_that_may_not_be_read_is_not_taken_for_damaged(base, tmp_path, monkeypatch):
    out = copied(base / "finetune-0", tmp_path / "run")
    before = (out / STATE).read_bytes()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lifelong.storage.np.fromfile", refuse)
    with pytest.raises(LifelongError, match="Permission denied"):
        again(out, config(base))
    assert (out / STATE).read_bytes() == before


@pytest.mark.parametrize("step", range(6))
def test_killed_while_a_state_is_saved(base, tmp_path, monkeypatch, step):
    """At each of the system calls: what is there is the new state or the old one, and never neither."""
    out = copied(base / "finetune-0", tmp_path / "run")
    directory = RunDirectory(out)
    state = directory.load()
    calls = iter(range(100))

    def dying(call):
        def called(*arguments, **more):
            if next(calls) == step:
                raise KeyboardInterrupt
            return call(*arguments, **more)

        return called

    for where, name in ((os, "link"), (os, "fsync"), (Path, "replace"), (Path, "unlink")):
        monkeypatch.setattr(where, name, dying(getattr(where, name)))
    with pytest.raises(KeyboardInterrupt):
        directory.save(state | {"marker": True})
    monkeypatch.undo()
    stored, repaired = RunDirectory(out).recover()
    assert repaired == []
    assert len(stored.tree["entries"]) == 2
    assert len(RunDirectory(out).read_state(out / PREVIOUS).tree["entries"]) in (1, 2)
    RunDirectory(out).drop_parts()
    assert not list(out.rglob(".*.part"))


def test_where_a_file_cannot_have_two_names(base, tmp_path, monkeypatch):
    out = copied(base / "finetune-0", tmp_path / "run")

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    directory = RunDirectory(out)
    directory.save(directory.load())
    assert len(directory.read_state(directory.previous_file).tree["entries"]) == 2
    flip(out / STATE, 5_000)
    assert RunDirectory(out).recover()[1]


# Swaps


@pytest.mark.parametrize("kind", ["finetune-{}", pytest.param("par-{}-stopped", marks=pytest.mark.slow)])
def test_a_file_of_another_seed_changes_no_number(base, tmp_path, kind):
    """Every file of seed 1 in the place of seed 0's: refused in one line, or made up for."""
    mine, other = base / kind.format(0), base / kind.format(1)
    if not other.exists():
        stopped(base, "par", 1)
    wanted = base / ("finetune-0" if "finetune" in kind else "par-0")
    swapped = 0
    for file in files_of(mine):
        if (mine / file).read_bytes() == (other / file).read_bytes():
            continue
        out = copied(mine, tmp_path / "run")
        (out / file).unlink()
        shutil.copy(other / file, out / file)
        swapped += 1
        assert not lifelong.verify(out).sound, file
        before = {name: (out / name).read_bytes() for name in files_of(out)}
        summary, said = again_or_refused(out, config(base, kind.split("-")[0]))
        if summary is None:
            assert len(said) == 1
            assert file in (STATE, IDENTITY)
            assert {name: (out / name).read_bytes() for name in files_of(out)} == before, "nothing is overwritten"
            continue
        assert said or file == PREVIOUS or file.startswith(PARTS), file
        assert certain(summary) == certain(read_summary(wanted)), file
        assert same(end(out), end(wanted)), file
    print(kind, swapped)
    assert swapped >= 7


def test_a_stage_in_the_place_of_another_is_computed_again(base, tmp_path):
    out = copied(base / "par-0-stopped", tmp_path / "run")
    stages = out / "checkpoint" / "stages" / "task-001"
    shutil.copy(stages / "train.running.safetensors", stages / "search.done.safetensors")
    _, said = again(out, config(base, "par"))
    assert any("search.done.safetensors was damaged or another's, and is computed again" in note for note in said)
    assert same(end(out), end(base / "par-0"))


def test_a_whole_checkpoint_of_another_seed_is_refused(base, tmp_path):
    out = copied(base / "finetune-0", tmp_path / "run")
    shutil.rmtree(out / "checkpoint")
    shutil.copytree(base / "finetune-1" / "checkpoint", out / "checkpoint")
    before = (out / "summary.json").read_bytes()
    with pytest.raises(LifelongError, match="holds a run with seed = 1, not 0"):
        again(out, config(base))
    with pytest.raises(LifelongError, match=r"config\.toml says seed = 0, not 1"):
        Learner.load(out)
    assert (out / "summary.json").read_bytes() == before


# Nothing intact is overwritten


@pytest.mark.parametrize("left", ["results.jsonl", *slow("summary.json")])
def test_results_without_their_state_are_not_overwritten(base, tmp_path, left):
    out = copied(base / "finetune-0", tmp_path / "run")
    for name in {STATE, PREVIOUS, "summary.json", "results.jsonl"} - {left}:
        (out / name).unlink()
    before = (out / left).read_bytes()
    with pytest.raises(LifelongError, match=rf"holds results \({left}\), but .*run\.safetensors is missing; put it back: lifelong verify"):
        again(out, config(base))
    assert (out / left).read_bytes() == before


def test_what_another_command_is_writing_is_left_alone(base, tmp_path):
    """For an hour; what only the run itself writes, and safetensors' temporaries, at once."""
    out = copied(base / "finetune-0", tmp_path / "run")
    mine = [".summary.json.x.part", "checkpoint/.run.safetensors.y.part", "checkpoint/stages/.tmpAb12Cd", "checkpoint/.tmpxyzXYZ"]
    others = [".report.html.x.part", "exports/.a.onnx.x.part", "figures/.accuracy.png.x.part"]
    for name in mine + others:
        (out / name).parent.mkdir(exist_ok=True, parents=True)
        (out / name).write_text("x")
    again(out, config(base))
    assert not any((out / name).exists() for name in mine)
    assert all((out / name).exists() for name in others)
    for name in others:
        os.utime(out / name, (1, 1))
    again(out, config(base))
    assert not any((out / name).exists() for name in others)


def test_learn_clears_up_too(base, tmp_path):
    out = copied(base / "finetune-0", tmp_path / "run")
    left = out / "checkpoint" / ".added.json.x.part"
    left.write_text("x")
    with pytest.raises(LifelongError, match="no images"):
        lifelong.learn(out, f"folder:{tmp_path / 'nothing'}", progress=False)
    assert not left.exists()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o077, 0o027, 0o002])
def test_the_umask_is_kept(tmp_path, mask):
    from lifelong.storage import write_text

    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


# Versions and machines


def test_each_task_says_with_what_it_was_learned(base):
    for task in read_summary(base / "finetune-0")["tasks"]:
        assert task["made_with"]["library"] == f"lifelong {lifelong.__version__}"
        assert task["made_with"]["torch"] == f"torch {torch.__version__}"
        assert task["made_with"].keys() == {"library", "torch", "processor", "accelerator", "threads"}


def test_a_change_within_a_task_is_noted_for_good(base, tmp_path, monkeypatch):
    """Stopped in its first task: no task is there yet that says with what it was learned, but what the stage saved does."""
    from lifelong.experiment import machine

    out = tmp_path / "run"
    monkeypatch.setattr(machine, "__version__", "9.9")
    with pytest.raises(KeyboardInterrupt):
        run(config(base), out, HERE, StopIn("train", 3, task=0))
    monkeypatch.undo()
    words = f"started with lifelong 9.9, continued with lifelong {lifelong.__version__}: equal to rounding, not to the bit"
    summary, said = again(out, config(base))
    assert words in said
    assert words in summary["notes"]
    assert words in again(out, config(base))[0]["notes"]


def test_a_run_of_an_earlier_version_is_read_with_a_note(tmp_path):
    out = Path(shutil.copytree(STORED / "finetune", tmp_path / "run"))
    words = "run.safetensors: written before files carried digests; not checked"
    assert Learner.load(out).notes == (words,)
    listener = Notes()
    lifelong.run(config=out / "config.toml", out=out, device="cpu", threads=1, progress=listener)
    assert words in listener.said
    found = lifelong.verify(out)
    assert found.sound
    assert {each.file: each.condition for each in found.files}[STATE] == "unchecked"
    # The record of its judging tells its weights all the same.
    content = bytearray((out / STATE).read_bytes())
    content[-40] ^= 1
    (out / STATE).write_bytes(content)
    assert not lifelong.verify(out).sound
