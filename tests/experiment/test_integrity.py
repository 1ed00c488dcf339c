"""A run directory proves itself: whatever is damaged, swapped or forged is found, or does no harm, and the run goes on to the same end."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

import lifelong
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment import runner
from lifelong.experiment.compare import read_summaries
from lifelong.experiment.results import RunDirectory, read_summary
from lifelong.experiment.run import run
from lifelong.experiment.saved import open_run
from lifelong.learner import Learner
from lifelong.settings.run import RunConfig
from lifelong.storage import load_tree
from tests.experiment.damage import (
    HERE,
    Notes,
    StopIn,
    again,
    config,
    copied,
    files_of,
    finished,
    flip,
    found_or_harmless,
    some_bits,
    stopped,
)
from tests.resaved import change_record, change_state, without_digest
from tests.trees import same

STORED = Path(__file__).parent / "stored"
STATE, PREVIOUS = "checkpoint/run.safetensors", "checkpoint/run.previous.safetensors"
IDENTITY = "checkpoint/identity.json"
CERTAIN = ("version", "complete", "parameters", "ap", "af", "bwt", "forgetting", "weighted_accuracy", "accuracy")
"""Of a summary: what two runs of one command have in common."""


def slow(*cases: str) -> list:
    """Cases that `make test-all` alone runs."""
    return [pytest.param(case, marks=pytest.mark.slow) for case in sorted(cases)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Finished runs of two seeds, and one that was stopped and its end, with the stream that they learned."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        finished(folder, "finetune", seed)
    again(copied(stopped(folder, "par"), folder / "par-0"), config(folder, "par"))
    return folder


def end(out: Path) -> dict:
    """What a run came to."""
    state = load_tree(out / STATE)
    return {"method": state["method"], "accuracy": state["accuracy"], "digests": state["digests"]}


def again_or_refused(out: Path, how: RunConfig) -> tuple[dict | None, list[str]]:
    """As `again`; None for a run that is refused, which takes one line."""
    try:
        return again(out, how)
    except LifelongError as error:
        return None, str(error).splitlines()


def certain(summary: dict) -> dict:
    return {key: summary[key] for key in CERTAIN}


# Flips


def test_a_flipped_bit_is_found_or_harmless(base, tmp_path):
    """A sample of the bits of every file that is read; `test_every_flipped_bit_is_found_or_harmless` flips them all."""
    counts = {"found": 0, "harmless": 0, "missed": 0}
    for name in ("finetune-0", "par-0-stopped"):
        out = copied(base / name, tmp_path / name)
        for file in files_of(out):
            for key, count in found_or_harmless(out, file, some_bits(out / file, 120)).items():
                counts[key] += count
    assert counts["missed"] == 0
    assert counts["found"] > 1500
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
    # What was damaged was said; what was harmless need not be.
    assert found.sound or said or file == PREVIOUS


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
    words = "run.safetensors was damaged (its tensors do not fit their digest): continued from the state before it"
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
    flip(out / STATE, 100_000)
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
        assert said or file == PREVIOUS, file
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


# Forgeries


FORGED = {
    "ap": 0.999,
    "af": 0.5,
    "bwt": 0.5,
    "forgetting": -0.5,
    "weighted_accuracy": 0.999,
    "parameters": 7,
    "memory": {"replay": 1},
    "seconds": 0.5,
    "seconds_by_phase": {"train": 1.0},
    "accuracy": [[1.0], [1.0, 1.0]],
    "complete": False,
    "notes": ["forged"],
    "seed": 5,
    "method": "par",
    "version": "9",
    "tasks": [],
    "task_agnostic": {"routing": [1.0, 1.0]},
    "invented": 1,
}


@pytest.mark.parametrize(
    "key", ["ap", "parameters", "tasks", "invented", *slow(*(FORGED.keys() - {"ap", "parameters", "tasks", "invented"}))]
)
def test_a_forged_summary_is_not_believed(base, tmp_path, key):
    """Also with the right digest."""
    out = copied(base / "finetune-0", tmp_path / "run")
    wanted = read_summary(out)
    change_record(out / "summary.json", **{key: FORGED[key]})
    assert not lifelong.verify(out).sound
    # One that contradicts itself is refused as it is read.
    malformed = {"tasks": "is not of 0 tasks", "task_agnostic": "field required"}
    shown = malformed.get(key, r"summary\.json is not what the run's state says")
    with pytest.raises(LifelongError, match=shown):
        read_summaries([out])
    summary, said = again(out, config(base))
    assert summary == wanted
    assert read_summary(out) == wanted
    wrong = "summary.json was damaged" if key in malformed else f"summary.json is not what the run's state says ({key})"
    assert any(wrong in note for note in said)


@pytest.mark.parametrize(
    "key", ["ap", "af", "bwt", "forgetting", "weighted_accuracy", "parameters", "memory", "seconds", "seconds_by_phase"]
)
def test_a_number_that_a_state_is_made_to_say_is_derived_again(base, tmp_path, key):
    out = copied(base / "finetune-0", tmp_path / "run")
    wanted = read_summary(out)
    change_state(out, lambda state: state["summary"].update({key: FORGED[key]}))
    assert again(out, config(base))[0] == wanted
    assert open_run(out).summary() == {name: value for name, value in wanted.items() if name != "digest"}


def forge_accuracy(state) -> None:
    state["accuracy"][-1][0] = 1.0


def forge_weights(state) -> None:
    name = next(iter(state["method"]["heads"][0]))
    state["method"]["heads"][0][name] += 1


def test_a_state_that_does_not_bear_itself_out_is_found(base, tmp_path):
    out = copied(base / "finetune-0", tmp_path / "run")
    change_state(out, forge_accuracy)
    found = [each.about for each in lifelong.verify(out).files if each.condition == "damaged" and each.file == STATE]
    assert found == ["task 'a': its accuracy is not that of its confusion matrix"]


def test_weights_that_were_not_judged_are_found(base, tmp_path):
    out = copied(base / "finetune-0", tmp_path / "run")
    change_state(out, forge_weights)
    found = [each.about for each in lifelong.verify(out).files if each.condition == "damaged"]
    assert "task 'a': its weights are not those that were judged" in found


def test_only_the_images_find_a_state_that_is_forged_all_through(base, tmp_path):
    """Accuracy and confusion matrix: what a digest cannot find, since who forges a state can forge its digest."""
    out = copied(base / "finetune-0", tmp_path / "run")

    def forge(state) -> None:
        forge_accuracy(state)
        state["entries"][0]["judged"]["confusion"] = [[8, 0], [0, 8]]

    change_state(out, forge)
    again(out, config(base))
    assert lifelong.verify(out).sound
    judged = lifelong.verify(out, judge=True, device="cpu", threads=1)
    assert [task.right for task in judged.judged] == [False, True]
    assert not judged.sound
    assert all(task.right for task in lifelong.verify(base / "finetune-0", judge=True, device="cpu", threads=1).judged)


def test_a_configuration_that_was_edited_is_not_used(base, tmp_path):
    out = copied(base / "finetune-0", tmp_path / "run")
    file = out / "config.toml"
    text = file.read_text()
    file.write_text(text.replace("lr = 0.05", "lr = 0.5"))
    for use in (lambda: Learner.load(out), lambda: lifelong.learn(out, "digits", progress=False)):
        with pytest.raises(LifelongError, match=r"config\.toml says lr = 0\.5, not 0\.05, as the run was learned; .*--repair"):
            use()
    _, said = again(out, config(base))
    assert any(note.startswith("config.toml was damaged or changed") for note in said)
    assert file.read_text() == text
    file.write_text(text.replace("lr = 0.05", "lr = 0.5"))
    assert lifelong.verify(out, repair=True).sound
    assert file.read_text() == text


def test_results_of_a_task_earlier_are_no_damage(base, tmp_path, monkeypatch):
    """Killed between the state and what is written from it: made up for without a word."""
    out = tmp_path / "run"
    write = runner.write_results

    def killed(directory, entries, *rest):
        if len(entries) == 2:
            raise KeyboardInterrupt
        return write(directory, entries, *rest)

    monkeypatch.setattr(runner, "write_results", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config(base), out, HERE)
    monkeypatch.undo()
    assert len(read_summary(out)["tasks"]) == 1
    assert lifelong.verify(out).sound
    summary, said = again(out, config(base))
    assert not any("not what" in note or "damaged" in note for note in said)
    assert certain(summary) == certain(read_summary(base / "finetune-0"))
    assert len(without_digest(out / "summary.json")["tasks"]) == 2


# Nothing intact is overwritten


@pytest.mark.parametrize("left", ["results.jsonl", *slow("summary.json")])
def test_results_without_their_state_are_not_overwritten(base, tmp_path, left):
    out = copied(base / "finetune-0", tmp_path / "run")
    for name in {STATE, PREVIOUS, "summary.json", "results.jsonl"} - {left}:
        (out / name).unlink()
    before = (out / left).read_bytes()
    with pytest.raises(LifelongError, match=rf"holds results \({left}\), but .*run\.safetensors is missing: put it back from a copy"):
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


# The command


def test_the_command(base, tmp_path, capsys):
    out = copied(base / "finetune-0", tmp_path / "run")
    before = {name: (out / name).read_bytes() for name in files_of(out)}
    assert main(["verify", str(out)]) == 0
    assert "sound: 2 tasks learned" in capsys.readouterr().out
    assert main(["verify", str(out), "--judge", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["sound"], found["tasks"], len(found["judged"])) == (True, 2, 2)
    assert {name: (out / name).read_bytes() for name in files_of(out)} == before, "it only reads"
    flip(out / STATE, 50_000)
    assert main(["verify", str(out), "--json"]) == 1
    conditions = {each["file"]: each["condition"] for each in json.loads(capsys.readouterr().out)["files"]}
    assert (conditions[STATE], conditions[PREVIOUS]) == ("damaged", "good")
    assert main(["verify", str(out), "--repair"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "run.safetensors: replaced by the state before it (the last of 1 tasks is 'a')" in shown
    assert list(Learner.load(out).tasks) == ["a"]
    assert certain(again(out, config(base))[0]) == certain(read_summary(base / "finetune-0"))
    assert main(["verify", str(tmp_path / "none")]) == 2
    assert "holds no run" in capsys.readouterr().err


@pytest.mark.parametrize("file", [IDENTITY, "config.toml", "curves.jsonl", *slow("summary.json", "results.jsonl", PREVIOUS)])
def test_repair_restores_what_follows_from_the_state(base, tmp_path, file):
    """All but the lines of a curve, and a state before the last."""
    out = copied(base / "finetune-0", tmp_path / "run")
    before = (out / file).read_bytes()
    for damage in (lambda: (out / file).write_bytes(b"x" * 50), lambda: (out / file).unlink()):
        damage()
        lifelong.verify(out, repair=True)
        assert lifelong.verify(out).sound
        if file not in ("curves.jsonl", PREVIOUS):
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
