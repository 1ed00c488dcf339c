"""A task's network as a file: it gives the method's logits, for every method."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch

from lifelong import exports
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment.run import run as run_experiment
from lifelong.exports import AllTasks, TaskNetwork, export
from lifelong.learner import Learner
from lifelong.methods import conformance
from lifelong.methods.method import Context
from lifelong.methods.registry import METHODS, make_method
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.par import PARSettings
from lifelong.settings.pretrained import FeCAMSettings, LinearProbeSettings, NCMSettings, RanPACSettings
from lifelong.settings.training import TrainingSettings
from lifelong.words import file_name
from tests.learned import HERE, small_config
from tests.made import made_task
from tests.methods.test_conformance import small_settings
from tests.methods.test_floors import COMMON, FECAM, HEADS, ONE_COVARIANCE, PROBE, RANPAC, learn

SIDE = replace(HEADS, expert="side", enough_accuracy=1.0, side_channels=2, side_epochs=1, cells=1)
NAMES = {PARSettings: "par", LinearProbeSettings: "linear-probe", RanPACSettings: "ranpac", FeCAMSettings: "fecam"}


LIKE_ANOTHER = {"agem", "cat", "er", "ewc", "fecam", "gpm", "joint", "lwf", "mas", "mntdp-s", "ncm", "ranpac", "supsup", "wsn"}
"""Methods whose networks are made of the same parts as another method's: `make test-all` traces these, too."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Three tasks, with a network that is quickly traced."""
    folder = tmp_path_factory.mktemp("run")
    run_experiment(replace(small_config(folder, "finetune"), settings=FinetuneSettings(init_channels=4)), folder / "finetune", HERE)
    return folder / "finetune"


def images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def test_onnx_by_another_runtime(run, tmp_path):
    made = export(run, "b", out=tmp_path / "b.onnx")
    assert made["classes"] == ["7", "8", "9"]
    session = onnxruntime.InferenceSession(made["file"])
    for count in (1, 5):
        (found,) = session.run(None, {"images": images(count).numpy()})
        torch.testing.assert_close(torch.from_numpy(found), Learner.load(run).logits(images(count), "b"), rtol=1e-4, atol=1e-4)
    # What the file is of stands in it, and the number of images has a name.
    assert session.get_modelmeta().custom_metadata_map == {"task": "b", "classes": '["7", "8", "9"]', "image_size": "8"}
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("images", ["n", 3, 8, 8])
    assert (answered.name, answered.shape) == ("logits", ["n", 3])


def test_a_program_of_torch(run):
    made = export(run, "a-again", format="torch")
    assert made["file"] == str(run / "exports" / "003-a-again.pt2")
    about = {"task": "", "classes": "", "image_size": ""}
    found = torch.export.load(made["file"], extra_files=about).module()(images(4))
    assert about == {"task": "a-again", "classes": json.dumps(made["classes"]), "image_size": "8"}
    torch.testing.assert_close(found, Learner.load(run).logits(images(4), "a-again"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in LIKE_ANOTHER else []) for name in sorted(METHODS)])
def test_networks_of_every_method_can_be_traced(name):
    method = make_method(name, small_settings(name))
    training = TrainingSettings(epochs=1, batch_size=8, lr=0.05)
    for index in range(2):
        context = Context(
            task_index=index,
            task_name=str(index),
            training=training,
            seed=0,
            device=torch.device("cpu"),
            open_extractor=conformance._open_extractor,
        )
        method.learn(conformance.made_task(index, 8), context)
    program = exports._traced(TaskNetwork(method, 0).eval(), images(2), "0")
    torch.testing.assert_close(program.module()(images(5)), method.logits(images(5), 0))


def test_all_tasks_in_one_file_by_another_runtime(run, tmp_path, capsys):
    """Of a method without a frozen network: an output for each task, and none that tells tasks."""
    file = tmp_path / "all.onnx"
    assert main(["export", str(run), "--all", "--out", str(file)]) == 0
    assert "001-a: logits of 0, 1, 2" in capsys.readouterr().out
    outputs = {
        "001-a": {"task": "a", "classes": ["0", "1", "2"]},
        "002-b": {"task": "b", "classes": ["7", "8", "9"]},
        "003-a-again": {"task": "a-again", "classes": ["0", "1", "2"]},
    }
    session, learner = onnxruntime.InferenceSession(file), Learner.load(run)
    assert [output.name for output in session.get_outputs()] == list(outputs)
    assert json.loads(session.get_modelmeta().custom_metadata_map["outputs"]) == outputs
    for found, about in zip(session.run(None, {"images": images(3).numpy()}), outputs.values(), strict=True):
        torch.testing.assert_close(torch.from_numpy(found), learner.logits(images(3), about["task"]), rtol=1e-4, atol=1e-4)


def test_all_tasks_of_a_frozen_network_with_what_tells_them_apart(tmp_path):
    """One more output, the same task probabilities as the method's."""
    method, file = make_method("ncm", NCMSettings(extractor="pixels")), tmp_path / "all.onnx"
    learn(method, [made_task(train=8), made_task(kind=1, seed=5, train=8)])
    exports._written(AllTasks(method).eval(), file, "onnx", 8, {}, ["1", "2", "tasks"], "all tasks")
    *logits, tasks = onnxruntime.InferenceSession(file).run(None, {"images": images(3).numpy()})
    torch.testing.assert_close(torch.from_numpy(tasks), method.task_probabilities(images(3)), rtol=1e-3, atol=1e-4)
    for index, found in enumerate(logits):
        torch.testing.assert_close(torch.from_numpy(found), method.logits(images(3), index), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [HEADS, SIDE, RANPAC, COMMON, PROBE, FECAM, ONE_COVARIANCE],
    ids=["heads", "side", "ranpac", "common", "probe", "fecam", "one covariance"],
)
def test_the_answers_for_all_tasks_are_those_for_each(settings):
    """Of methods on a frozen network, which compute its features once; and they can be traced."""
    method = make_method(NAMES[type(settings)], settings)
    learn(method, [made_task(train=8), made_task(kind=1, seed=5, train=8)])
    logits, tasks = method.answers(images(5))
    for index, found in enumerate(logits):
        torch.testing.assert_close(found, method.logits(images(5), index), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tasks, method.task_probabilities(images(5)), rtol=1e-4, atol=1e-5)
    program = exports._traced(AllTasks(method).eval(), images(2), "all tasks")
    for found, wanted in zip(program.module()(images(5)), [*logits, tasks], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_network_that_tasks_share_is_held_once():
    method = make_method("par", replace(HEADS, extractor="resnet18"))
    learn(method, [made_task(train=8), made_task(kind=1, seed=5, train=8)])
    held = sum(parameter.numel() for parameter in AllTasks(method).parameters())
    assert held == method.num_parameters() < 1.1 * method.frozen_parameters()


def test_a_file_with_other_logits_is_not_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "_through_onnx", lambda program, file, images, *about: [torch.zeros(len(images), 3)])
    file = tmp_path / "a.onnx"
    file.write_text("an earlier one")
    with pytest.raises(LifelongError, match="logits differ from the run's by"):
        export(run, "a", out=file)
    assert [found.name for found in tmp_path.iterdir()] == ["a.onnx"]
    assert file.read_text() == "an earlier one"


def test_without_the_packages(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LifelongError, match=r"pip install 'lifelong\[onnx\]'") as caught:
        export(run, "a", out=tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)


def test_a_name_never_becomes_a_path():
    assert file_name("../../etc/x y", "task") == "etc-x-y"
    assert file_name("..", "task") == "task"


def test_the_command(run, tmp_path, capsys):
    assert main(["export", str(run), "--task", "a", "--format", "torch", "--out", str(tmp_path / "a.pt2")]) == 0
    assert "largest difference" in capsys.readouterr().out
    for flags in ([], ["--all", "--task", "a"]):
        assert main(["export", str(run), *flags]) == 2
        assert "give either a task or all" in capsys.readouterr().err
    assert main(["export", str(run), "--task", "c"]) == 2
    assert "has learned no task 'c'" in capsys.readouterr().err
