"""What a person does, on a device that is not the CPU (`tests/pretend.py`): run, stop and continue, tune, learn on, predict, export."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lifelong
from lifelong.experiment.continuing import learn_more
from lifelong.experiment.distances import distances
from lifelong.experiment.observer import Observer
from lifelong.experiment.results import read_summary
from lifelong.experiment.run import run
from lifelong.learner import Learner
from lifelong.settings.device import ACCELERATORS
from lifelong.settings.par import PARSettings
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.tuning import TuningSettings
from lifelong.storage import load_tree
from tests import pretend
from tests.experiment.test_continuing import bars, images_of_bars
from tests.learned import HERE, small_config
from tests.methods.test_on_device import branches_of_a_device, tensors


def config(folder: Path, method: str = "par") -> RunConfig:
    """A small run, of one step an epoch."""
    made = small_config(folder, method)
    return replace(made, training=replace(made.training, epochs=2, batch_size=64))


def weights(path: Path) -> list[torch.Tensor]:
    return tensors(load_tree(path / "checkpoint" / "run.safetensors")["method"])


def assert_equal_runs(one: Path, other: Path) -> None:
    for left, right in zip(weights(one), weights(other), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


class StopAt(Observer):
    """Stops a run at the end of an epoch, counted over all stages."""

    def __init__(self, epoch: int) -> None:
        self.left = epoch

    def epoch(self, event) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.fixture
def there(accelerator: torch.device, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """The device by its name, as a person gives it."""
    monkeypatch.setitem(ACCELERATORS, accelerator.type, True)
    return replace(HERE, device=accelerator.type, save_every=0.0)


@pytest.fixture(scope="module")
def learned(pretended: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of PAR on the device, beside its stream and the images of one more task; not to be changed."""
    folder = tmp_path_factory.mktemp("learned")
    images_of_bars(folder / "bars")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", pretend.AnyGenerator)
        patch.setitem(ACCELERATORS, pretend.NAME, True)
        run(config(folder), folder / "par", replace(HERE, device=pretend.NAME))
    return folder


def test_a_run_comes_to_the_numbers_of_the_cpu(there: Environment, learned: Path, tmp_path: Path) -> None:
    found = read_summary(learned / "par")
    assert found["device"] == "pretend"
    assert found["machine"].endswith("its GPU (pretend)")
    assert [task["decision"] for task in found["tasks"]] == ["search", "search", "reuse-expert"]
    with branches_of_a_device():
        reference = run(config(learned), tmp_path / "cpu", HERE)
    assert found["accuracy"] == reference["accuracy"]
    assert found["task_agnostic"] == reference["task_agnostic"]
    assert_equal_runs(learned / "par", tmp_path / "cpu")


def test_a_run_that_was_stopped_is_continued(there: Environment, learned: Path, tmp_path: Path) -> None:
    """In the search of the first task, in its training, in the distillation of the third."""
    for epoch in (2, 2, 7):
        with pytest.raises(KeyboardInterrupt):
            run(config(learned), tmp_path / "run", there, StopAt(epoch))
    run(config(learned), tmp_path / "run", there)
    assert_equal_runs(tmp_path / "run", learned / "par")


def test_a_run_is_continued_on_another_device(there: Environment, learned: Path, tmp_path: Path) -> None:
    """By `lifelong.run`, where a device has a name."""
    stream, out = config(learned).stream, tmp_path / "run"
    options = {"epochs": 2, "batch_size": 64, "init_channels": 4, "threads": 1, "save_every": 0.0}
    with pytest.raises(KeyboardInterrupt):
        lifelong.run(stream, "finetune", out=out, device="pretend", progress=StopAt(4), **options)
    summary = lifelong.run(stream, "finetune", out=out, device="cpu", progress=False, **options)
    assert summary["complete"]
    assert "started on pretend, continued on cpu: with other random numbers, so not equal to an uninterrupted run" in summary["notes"]


def test_a_tuned_run(there: Environment, tmp_path: Path) -> None:
    made = config(tmp_path, "finetune")
    tasks = Path(made.stream).read_text().split("[[task]]")
    Path(made.stream).write_text("[[task]]".join(tasks[:3]))
    summary = run(replace(made, tuning=TuningSettings(grid=(("lr", (0.01, 0.1)),))), tmp_path / "tuned", there)
    assert summary["complete"]
    candidates = [tried["valid_accuracy"] for task in summary["tasks"] for tried in task["tuning"]["candidates"]]
    assert len(candidates) == 4
    assert None not in candidates


def test_what_was_learned_is_put_to_use(there: Environment, learned: Path, tmp_path: Path) -> None:
    shutil.copytree(learned / "par", tmp_path / "par")
    with pytest.raises(KeyboardInterrupt):
        learn_more(tmp_path / "par", bars(learned), there, StopAt(3))
    summary = learn_more(tmp_path / "par", bars(learned), there)
    assert summary["complete"]
    assert len(summary["accuracy"][3]) == 4

    here, other = (Learner.load(tmp_path / "par", device=device) for device in ("cpu", "pretend"))
    folder = learned / "bars" / "left"
    for task in (None, "bars"):
        for one, two in zip(here.predict(folder, task), other.predict(folder, task), strict=True):
            assert (one.task, one.label, one.strange) == (two.task, two.label, two.strange)
            assert two.classes == pytest.approx(one.classes, abs=1e-4)
            assert two.tasks == (None if one.tasks is None else pytest.approx(one.tasks, abs=1e-4))
    assert other.logits(here.read(folder), "bars").device.type == "pretend"

    exported = lifelong.export(tmp_path / "par", "bars", format="torch")
    assert exported["largest_difference"] < 1e-4


def test_distances(there: Environment, learned: Path) -> None:
    settings, stream = PARSettings(extractor="pixels"), config(learned).stream
    found, wanted = (distances(stream, 0, settings, place) for place in (there, HERE))
    assert found["divergences"] == [pytest.approx(row, rel=1e-5) for row in wanted["divergences"]]
    assert found["groups"] == wanted["groups"]
