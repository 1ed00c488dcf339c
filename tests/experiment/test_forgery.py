"""What someone has changed in a run directory is not believed: numbers, states, configurations."""

import pytest

import lifelong
from lifelong.errors import LifelongError
from lifelong.experiment import learned_so_far
from lifelong.experiment.compare import read_summaries
from lifelong.experiment.results import read_summary
from lifelong.experiment.run import run
from lifelong.experiment.saved import open_run
from lifelong.learner import Learner
from tests.experiment.damage import (
    HERE,
    STATE,
    again,
    certain,
    config,
    copied,
    slow,
)
from tests.resaved import change_record, change_state, without_digest

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
    write = learned_so_far.append_line

    def killed(file, line, owner):
        if line["name"] == "b":
            raise KeyboardInterrupt
        return write(file, line, owner)

    monkeypatch.setattr(learned_so_far, "append_line", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config(base), out, HERE)
    monkeypatch.undo()
    assert len(read_summary(out)["tasks"]) == 1
    assert lifelong.verify(out).sound
    summary, said = again(out, config(base))
    assert not any("not what" in note or "damaged" in note for note in said)
    assert certain(summary) == certain(read_summary(base / "finetune-0"))
    assert len(without_digest(out / "summary.json")["tasks"]) == 2
