"""One more task in a finished run: what is learned, what stays, and what an interruption leaves."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment.continuing import learn_more
from lifelong.experiment.observer import Observer
from lifelong.experiment.results import read_summary
from lifelong.experiment.run import run
from lifelong.learner import Learner
from lifelong.storage import load_tree
from tests.learned import HERE, small_config, small_run
from tests.resaved import change_state
from tests.trees import same


def images_of_bars(folder: Path, seed: int = 0) -> Path:
    """A folder with two classes: bright bars on the left and on the right, under noise."""
    noise = np.random.default_rng(seed)
    for name, column in (("left", 1), ("right", 5)):
        (folder / name).mkdir(parents=True)
        for index in range(30):
            pixels = noise.integers(0, 60, (8, 8, 3))
            pixels[:, column : column + 2] += 180
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    """Finished runs of PAR and Finetune beside their stream, and a new task's images; to be copied."""
    folder = tmp_path_factory.mktemp("learned")
    for method in ("par", "finetune"):
        small_run(folder, method)
    images_of_bars(folder / "bars")
    return folder


@pytest.fixture
def place(learned, tmp_path) -> Path:
    """A copy of the runs. Their configuration names the stream where it was."""
    return Path(shutil.copytree(learned, tmp_path / "copy"))


@pytest.fixture(scope="module")
def after(learned, tmp_path_factory) -> Path:
    """The same runs once each has learned the new task, too; to be copied."""
    folder = tmp_path_factory.mktemp("after")
    for method in ("par", "finetune"):
        out = shutil.copytree(learned / method, folder / method)
        assert learn_more(out, bars(learned), HERE) == read_summary(out)
    return folder


@pytest.fixture
def grown(after, tmp_path) -> Path:
    """A copy of them."""
    return Path(shutil.copytree(after, tmp_path / "grown"))


def bars(place: Path) -> str:
    return f"folder:{place / 'bars'}"


def weights(path: Path) -> dict:
    return load_tree(path / "checkpoint" / "run.safetensors")["method"]


class StopAt(Observer):
    """Raises KeyboardInterrupt at the end of an epoch of the new task."""

    def __init__(self, epoch: int) -> None:
        self.left = epoch

    def epoch(self, event) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_the_task_is_learned_and_the_others_stay(learned, after):
    before, summary = (read_summary(folder / "par") for folder in (learned, after))
    assert summary["complete"]
    assert [task["name"] for task in summary["tasks"]] == ["a", "b", "a-again", "bars"]
    assert summary["tasks"][:3] == before["tasks"]
    assert summary["tasks"][3]["decision"] == "search"
    assert len(summary["tasks"][3]["divergences"]) == 3
    assert summary["accuracy"][3][:3] == before["accuracy"][2]  # a new expert: nothing else changed
    assert summary["accuracy"][3][3] > 0.9
    assert summary["task_agnostic"]["routing"][3] > 0.9
    assert len((after / "par" / "results.jsonl").read_text().splitlines()) == 4
    answers = Learner.load(after / "par").predict(learned / "bars" / "left")
    assert sum((answer.task, answer.label) == ("bars", "left") for answer in answers) >= 27


def test_again_only_reads(learned, grown):
    state = grown / "par" / "checkpoint" / "run.safetensors"
    before = state.stat().st_mtime_ns
    assert learn_more(grown / "par", bars(learned), HERE) == read_summary(grown / "par")
    assert state.stat().st_mtime_ns == before


def test_events_of_the_new_task_are_written_where_they_are_asked_for(learned, grown):
    pytest.importorskip("tensorboard", reason="no package tensorboard: pip install lifelong[tensorboard]")
    out = grown / "finetune"
    assert not (out / "tensorboard").exists()
    learn_more(out, bars(learned), replace(HERE, tensorboard=True))  # what is learned is not learned again
    assert (out / "tensorboard" / "task-004").is_dir()
    images_of_bars(grown / "more", seed=5)
    learn_more(out, f"folder:{grown / 'more'}", replace(HERE, tensorboard=True), name="bars 2")
    assert (out / "tensorboard" / "task-005").is_dir()


def test_a_second_task_and_the_first_command(grown, learned):
    images_of_bars(grown / "more", seed=5)
    summary = learn_more(grown / "par", f"folder:{grown / 'more'}", HERE, name="bars 2")
    assert [task["name"] for task in summary["tasks"]][3:] == ["bars", "bars 2"]
    distances = summary["tasks"][4]["divergences"]
    assert min(distances) == distances[3]  # by the prototypes of the task that was added before
    assert len(summary["accuracy"][4]) == 5
    # The command that made the run still only reads it.
    assert run(small_config(learned), grown / "par", HERE) == summary


def test_interrupted_the_run_is_valid_and_continues_to_the_same_bits(place, learned, after):
    before = read_summary(place / "par")
    for epoch in (1, 4):  # while it searches, and while it trains
        with pytest.raises(KeyboardInterrupt):
            learn_more(place / "par", bars(place), HERE, StopAt(epoch))
        assert read_summary(place / "par") == before
        assert run(small_config(learned), place / "par", HERE) == before
        assert list(Learner.load(place / "par").tasks) == ["a", "b", "a-again"]
    summary = learn_more(place / "par", bars(place), HERE)
    assert summary["accuracy"] == read_summary(after / "par")["accuracy"]
    assert same(weights(place / "par"), weights(after / "par"))


def test_killed_before_the_summary_was_written(place, monkeypatch):
    """The state is saved first; what is written from it is made up for."""
    from lifelong.experiment.runner import Runner

    write = Runner._write
    monkeypatch.setattr(Runner, "_write", lambda self: (_ for _ in ()).throw(KeyboardInterrupt) if len(self.entries) == 4 else write(self))
    with pytest.raises(KeyboardInterrupt):
        learn_more(place / "finetune", bars(place), HERE)
    monkeypatch.undo()
    assert len(read_summary(place / "finetune")["tasks"]) == 3
    assert len(Learner.load(place / "finetune").tasks) == 4
    summary = learn_more(place / "finetune", bars(place), HERE)
    assert len(summary["tasks"]) == len(summary["accuracy"]) == 4


def test_another_task_drops_what_was_begun(place):
    with pytest.raises(KeyboardInterrupt):
        learn_more(place / "finetune", bars(place), HERE, StopAt(2))
    images_of_bars(place / "other", seed=9)
    summary = learn_more(place / "finetune", f"folder:{place / 'other'}", HERE)
    fresh = shutil.copytree(place / "finetune", place / "kept")
    assert [task["name"] for task in summary["tasks"]][3:] == ["other"]
    added = json.loads((fresh / "checkpoint" / "added.json").read_text())["tasks"]
    assert [task["name"] for task in added] == ["other"]


def test_curves_of_a_dropped_task_are_not_those_of_the_next(place):
    curves = place / "par" / "curves.jsonl"
    lines = curves.read_text()
    dropped = {"task": 3, "stage": "distill", "epoch": 1, "loss": 1.0, "accuracy": 0.5}
    with pytest.raises(KeyboardInterrupt):
        learn_more(place / "par", bars(place), HERE, StopAt(2))
    with curves.open("a") as file:
        file.write(json.dumps(dropped) + "\n")
    images_of_bars(place / "other", seed=9)
    learn_more(place / "par", f"folder:{place / 'other'}", HERE)
    after = curves.read_text()
    assert after.startswith(lines)
    assert {json.loads(line)["stage"] for line in after[len(lines) :].splitlines()} == {"search", "train"}


def test_images_that_have_moved_are_the_same_task(learned, grown):
    moved = Path(shutil.copytree(learned / "bars", grown / "elsewhere" / "bars"))
    assert learn_more(grown / "par", f"folder:{moved}", HERE) == read_summary(grown / "par")
    (added,) = json.loads((grown / "par" / "checkpoint" / "added.json").read_text())["tasks"]
    assert added["source"] == f"folder:{moved.resolve()}"  # there they are looked for when the next task is learned


def test_a_lost_summary_is_written_anew_by_the_command_that_began_the_run(grown, learned):
    whole = read_summary(grown / "par")
    (grown / "par" / "summary.json").unlink()
    with pytest.raises(LifelongError, match=r"has no summary.json; rerun the command that started the run to write it again"):
        learn_more(grown / "par", bars(learned), HERE)
    again = run(small_config(learned), grown / "par", HERE)
    assert again == read_summary(grown / "par")
    assert again["complete"]
    assert (again["accuracy"], again["tasks"], again["ap"]) == (whole["accuracy"], whole["tasks"], whole["ap"])
    assert learn_more(grown / "par", bars(learned), HERE) == again


def test_images_of_earlier_tasks_are_gone(learned, place, monkeypatch):
    """What Finetune changed cannot be judged again; PAR changed nothing."""
    from lifelong.experiment import grown_stream

    def gone(*arguments):
        raise LifelongError("no such stream")

    monkeypatch.setattr(grown_stream, "open_stream", gone)
    par = learn_more(place / "par", bars(place), HERE)
    assert par["accuracy"][3][:3] == par["accuracy"][2]
    assert par["ap"] == pytest.approx(sum(par["accuracy"][3]) / 4)
    assert "task_agnostic" not in par
    assert any("no such stream" in note for note in par["notes"])
    finetune = learn_more(place / "finetune", bars(place), HERE)
    assert finetune["accuracy"][3][:3] == [None, None, None]
    assert finetune["accuracy"][3][3] > 0.5
    assert finetune["ap"] is None
    assert main(["learn", str(place / "finetune"), "--task", bars(place)]) == 0  # its report can say so
    monkeypatch.undo()  # They are back: what was not judged is judged now, and nothing is learned again.
    before = weights(place / "finetune")
    known = learn_more(place / "finetune", bars(place), HERE)
    assert same(weights(place / "finetune"), before)
    assert None not in known["accuracy"][3]
    assert known["ap"] == pytest.approx(sum(known["accuracy"][3]) / 4)
    assert known["accuracy"][3][3] == finetune["accuracy"][3][3]
    assert not any("not here" in note for note in known["notes"])
    assert read_summary(place / "finetune") == known
    # PAR was judged by what did not change; the next task says nothing of images that are back.
    images_of_bars(place / "more", seed=5)
    later = learn_more(place / "par", f"folder:{place / 'more'}", HERE, name="bars 2")
    assert not any("not here" in note for note in later["notes"])
    assert len(later["task_agnostic"]["accuracy"]) == 5


def test_what_was_not_judged_is_judged_with_the_next_task(place, monkeypatch):
    """Also where the next task leaves the modules alone that answer for it."""
    from lifelong.experiment import grown_stream
    from lifelong.watch import Watch

    digests = Watch.digests

    def all_changed(watch: Watch, tasks: list) -> list[str]:
        return [f"{digest} {len(tasks)}" for digest in digests(watch, tasks)]

    monkeypatch.setattr(grown_stream, "open_stream", lambda *arguments: (_ for _ in ()).throw(LifelongError("no such stream")))
    monkeypatch.setattr(Watch, "digests", all_changed)
    assert learn_more(place / "par", bars(place), HERE)["accuracy"][3][:3] == [None, None, None]
    monkeypatch.undo()
    images_of_bars(place / "more", seed=5)
    monkeypatch.setattr(Watch, "digests", lambda watch, tasks: [f"{digest} 4" for digest in digests(watch, tasks)])
    assert None not in learn_more(place / "par", f"folder:{place / 'more'}", HERE, name="bars 2")["accuracy"][4]


def test_other_images_than_then_are_no_judges(place, learned):
    """The stream's file names other classes now."""
    file = learned / "three.toml"
    text = file.read_text()
    file.write_text(text.replace('["7", "8", "9"]', '["7", "8", "4"]'))
    try:
        summary = learn_more(place / "finetune", bars(place), HERE)
    finally:
        file.write_text(text)
    assert summary["accuracy"][3][0] is None
    assert any("others than those it learned" in note for note in summary["notes"])
    assert not math.isnan(summary["accuracy"][3][3])


def test_what_is_refused(learned, grown, tmp_path):
    images_of_bars(tmp_path / "elsewhere" / "bars", seed=3)
    with pytest.raises(LifelongError, match="has learned a task 'bars' before, from other images"):
        learn_more(grown / "par", f"folder:{tmp_path / 'elsewhere' / 'bars'}", HERE)
    with pytest.raises(LifelongError, match="no images for source"):
        learn_more(grown / "par", "folder:nowhere", HERE)
    with pytest.raises(LifelongError, match="holds no run"):
        learn_more(tmp_path / "none", bars(learned), HERE)
    assert not (tmp_path / "none").exists()
    change_state(grown / "finetune", lambda state: state["summary"].update(complete=False))
    with pytest.raises(LifelongError, match="is not finished"):
        learn_more(grown / "finetune", bars(learned), HERE)


def test_the_very_folder_of_the_run(tmp_path, capsys):
    """Nothing is learned again of images that the stream had, and a path is answered with its address."""
    images_of_bars(tmp_path / "photos" / "bars")
    images_of_bars(tmp_path / "photos" / "more", seed=5)
    out = ["--out", str(tmp_path / "run"), "--threads", "1", "--preset", "quick", "--epochs", "1", "--init-channels", "4"]
    assert main(["run", "--stream", f"folder:{tmp_path / 'photos'}?size=8", "--method", "finetune", *out]) == 0
    capsys.readouterr()
    assert main(["learn", str(tmp_path / "run"), "--task", f"folder:{tmp_path / 'photos' / 'bars'}"]) == 2
    assert "has learned a task 'bars' before, from these images; nothing is left to learn" in capsys.readouterr().err
    assert main(["learn", str(tmp_path / "run"), "--task", str(tmp_path / "photos" / "bars")]) == 2
    assert f"is a folder: write folder:{tmp_path / 'photos' / 'bars'}" in capsys.readouterr().err


def test_the_command(place, capsys):
    assert main(["learn", str(place / "finetune"), "--task", bars(place), "--name", "sides", "--threads", "1"]) == 0
    assert "sides" in capsys.readouterr().out
    assert "sides" in (place / "finetune" / "report.html").read_text()
    assert main(["learn", str(place / "finetune")]) == 2


def contents(path: Path) -> list[dict]:
    """What a run remembers of its images, as sets of numbers."""
    stored = load_tree(path / "checkpoint" / "run.safetensors")["contents"]
    return [{split: set(numbers.tolist()) for split, numbers in task.items()} for task in stored]


def test_no_image_that_was_learned_judges_and_none_that_judges_is_learned(learned, grown):
    """A copy of a task under another name is drawn otherwise: what was trained on is left out of its tests, and the other way round."""
    shutil.copytree(learned / "bars", grown / "again")
    for side, name in (("left", "one"), ("right", "two")):  # a few that are new
        more = images_of_bars(grown / name, seed=7) / side
        for file in sorted(more.iterdir())[:20]:
            file.rename(grown / "again" / side / f"new-{file.name}")
    summary = learn_more(grown / "finetune", f"folder:{grown / 'again'}", HERE)
    before, after = contents(grown / "finetune")[3:]
    assert not after["test"] & (before["train"] | before["valid"])
    assert not after["train"] & (before["test"] | before["valid"])
    assert not after["valid"] & before["test"]
    notes = [note for note in summary["notes"] if "'bars'" in note]
    assert any("training images left out: the same content is among what task 'bars' is evaluated on" in note for note in notes)
    assert any("test images left out: the same content is among what task 'bars' was trained or validated on" in note for note in notes)
    assert summary["tasks"][4]["test"] == len(after["test"])
    state = (grown / "finetune" / "checkpoint" / "run.safetensors").read_bytes()
    assert learn_more(grown / "finetune", f"folder:{grown / 'again'}", HERE) == summary  # known again, and not learned again
    assert (grown / "finetune" / "checkpoint" / "run.safetensors").read_bytes() == state


def test_the_same_folder_again_is_no_new_task(learned, grown):
    with pytest.raises(LifelongError, match="has learned a task 'bars' before, from these images; nothing is left to learn"):
        learn_more(grown / "finetune", f"folder:{learned / 'bars'}?size=16", HERE)


def test_a_run_of_an_earlier_version_knows_its_images_where_they_are_here(place, monkeypatch):
    from lifelong.experiment import continuing, grown_stream

    kept = contents(place / "finetune")
    change_state(place / "finetune", lambda state: state.pop("contents"))
    old = shutil.copytree(place / "finetune", place / "old")
    summary = learn_more(place / "finetune", bars(place), HERE)
    assert contents(place / "finetune")[:3] == kept
    assert not any("not known by content" in note for note in summary["notes"])
    for module in (continuing, grown_stream):
        monkeypatch.setattr(module, "open_stream", lambda *arguments: (_ for _ in ()).throw(LifelongError("no such stream")))
    notes = learn_more(old, bars(place), HERE)["notes"]
    assert any("images of a, b, a-again are not known by content" in note for note in notes)
