"""What earlier versions saved is read: docs/compatibility.md. `stored/` has a small run of every method as version 0.1 wrote it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import lifelong
from lifelong import api
from lifelong.errors import LifelongError
from lifelong.experiment.results import read_summary
from lifelong.experiment.saved import open_run
from lifelong.learner import Learner
from lifelong.methods.registry import METHODS
from tests.resaved import change_record, under_old_names

STORED = Path(__file__).parent / "stored"
RUNS = sorted(folder.name for folder in STORED.iterdir())
LATER = {"fecam", "linear-probe", "ncm", "packnet", "ranpac", "supsup", "wsn"}
"""Methods that version 0.1 did not have."""


@pytest.fixture
def stored(tmp_path):
    """Copies one of the stored runs."""
    return lambda name: Path(shutil.copytree(STORED / name, tmp_path / name))


def test_every_method_has_one():
    assert set(RUNS) >= {name for name, entry in METHODS.items() if entry.target.startswith("lifelong.")} - LATER
    assert not LATER & set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_answers_as_it_did(name):
    images = torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    learner, wanted = Learner.load(STORED / name, device="cpu", threads=1), json.loads((STORED / name / "logits.json").read_text())
    for task in learner.tasks:
        torch.testing.assert_close(learner.logits(images, task), torch.tensor(wanted[task]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["finetune", "par"])
def test_the_command_that_made_it_still_only_reads_it(stored, name):
    place = stored(name)
    before = (place / "checkpoint" / "run.safetensors").read_bytes()
    summary = lifelong.run(config=place / "config.toml", out=place, device="cpu", threads=1, progress=False)
    assert summary == read_summary(STORED / name)
    assert (place / "checkpoint" / "run.safetensors").read_bytes() == before


def test_it_learns_one_more_task(stored):
    summary = lifelong.learn(stored("finetune"), "digits", name="all", device="cpu", threads=1, progress=False)
    assert [len(summary["tasks"]), len(summary["accuracy"][-1])] == [3, 3]


def without(place: Path, *keys: str) -> Path:
    """The run as a version wrote it that did not have some settings yet."""
    file = place / "config.toml"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if line.split(" = ")[0] not in keys))
    file = place / "checkpoint" / "identity.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key not in keys}))
    return place


def test_a_missing_setting_has_its_default_and_not_the_preset_s(stored):
    """Of the preset quick: what a later version gives it cannot have been in effect."""
    assert api.configure("digits", "finetune", preset="quick").training.batch_size == 32
    saved = open_run(without(stored("finetune"), "batch_size", "min_lr"))
    assert (saved.config.training.batch_size, saved.config.training.min_lr) == (64, 1e-6)
    assert saved.config.training.lr == 0.05


def test_an_unfinished_run_without_a_setting_goes_on(stored):
    place, command = without(stored("finetune"), "min_lr", "library"), STORED / "finetune" / "config.toml"
    (place / "summary.json").unlink()
    assert lifelong.run(config=command, out=place, device="cpu", threads=1, progress=False)["complete"]


def test_the_version_is_recorded_and_never_compared(tmp_path):
    settings = {"preset": "quick", "epochs": 1, "init_channels": 2, "device": "cpu", "threads": 1, "progress": False, "out": tmp_path}
    stream = "digits?tasks=1&train_per_class=3&valid_per_class=2&test_per_class=2"
    lifelong.run(stream, "finetune", **settings)
    file = tmp_path / "checkpoint" / "identity.json"
    identity = json.loads(file.read_text())
    assert identity["library"] == lifelong.__version__
    change_record(file, library="0.0.9")
    assert lifelong.run(stream, "finetune", **settings)["complete"]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (3, r"another version of lifelong \(9.1\), in form 3; .*update it"),
        (1, r"another version of lifelong \(9.1\), in form 1; .*use that version"),
    ],
)
def test_what_cannot_be_read_names_what_can(stored, form, words):
    place = stored("finetune")
    file = place / "checkpoint" / "identity.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": form, "library": "9.1"}))
    for use in (lambda: Learner.load(place), lambda: lifelong.export(place, "a"), lambda: lifelong.learn(place, "digits", progress=False)):
        with pytest.raises(LifelongError, match=words):
            use()
    with pytest.raises(LifelongError, match=words):
        lifelong.run(config=place / "config.toml", out=place, device="cpu", progress=False)


OLD = {
    "stream": "digits?tasks=3&train_per_class=4&valid_per_class=2&test_per_class=2",
    "method": "par",
    "preset": "quick",
    "epochs": 1,
    "search_epochs": 1,
    "init_channels": 2,
    "device": "cpu",
    "threads": 1,
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of PAR that nothing interrupted."""
    out = tmp_path_factory.mktemp("straight") / "run"
    lifelong.run(**OLD, out=out, progress=False)
    return out


def certain(summary) -> list:
    """What a run found out, without times."""
    tasks = [(task.name, task.decision, task.expert, task.divergences, task.group_distances, task.reason) for task in summary.tasks]
    return [summary.ap, summary.accuracy, summary.parameters, summary.task_agnostic, tasks]


def test_an_interrupted_run_under_old_names_goes_on(straight, tmp_path):
    class Stopped(lifelong.Observer):
        def task_started(self, index, name):
            if index == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lifelong.run(**OLD, out=tmp_path, progress=Stopped())
    under_old_names(tmp_path)
    assert '"distances": [' in (tmp_path / "results.jsonl").read_text()
    assert lifelong.verify(tmp_path).sound
    summary = lifelong.run(**OLD, out=tmp_path, progress=False)
    assert certain(summary) == certain(read_summary(straight))
    assert len(summary.tasks[2].divergences) == 2
    assert not any("damaged" in note or "rewritten" in note for note in summary.notes)
    # A line that was added stays as it was written.
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert ['"distances": [' in line for line in lines] == [True, True, False]
    for text in (lines[-1], (tmp_path / "summary.json").read_text()):
        assert '"divergences": [' in text
        assert '"distances": [' not in text


def test_a_finished_run_under_old_names_is_only_read(straight, tmp_path):
    place = under_old_names(Path(shutil.copytree(straight, tmp_path / "run")))
    files = [place / "summary.json", place / "results.jsonl", place / "checkpoint" / "run.safetensors"]
    before = [file.read_bytes() for file in files]
    assert b'"task_free"' in before[0]
    wanted = certain(read_summary(straight))
    assert certain(lifelong.run(**OLD, out=place, progress=False)) == wanted
    assert certain(api.finished([place], out=tmp_path / "compared")[0]) == wanted
    assert certain(open_run(place).summary()) == wanted
    assert lifelong.verify(place).sound
    assert [file.read_bytes() for file in files] == before


def test_a_candidate_kept_under_old_names_is_read():
    """Of a tuned task that was interrupted: its record is a `LearnRecord` as it was saved."""
    from lifelong.methods.method import LearnRecord
    from lifelong.records.renames import renamed

    assert LearnRecord(**renamed("task", {"distances": [1.5], "group_distances": [0.9]})).divergences == [1.5]
