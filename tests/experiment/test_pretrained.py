"""Runs on a frozen pretrained network, from the first task to the export: without its weights file once the first task is learned."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import lifelong
from lifelong.api import configure, finished
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment.run import run
from lifelong.experiment.runner import Runner
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.settings.run import Environment
from lifelong.storage import load_tree
from tests.experiment.mutations import mutations
from tests.experiment.test_states import STATE, outcome, uses
from tests.photographs import picture
from tests.resaved import resave
from tests.trees import same

TINY = "digits?tasks=3&train_per_class=8&valid_per_class=4&test_per_class=4"
METHODS: dict[str, dict[str, Any]] = {
    "ncm": {},
    "linear-probe": {"probe_penalties": (1.0, 0.1)},
    "ranpac": {"random_features": 50, "statistics": "common"},
    "fecam": {"covariance": "common"},
    "par": {"expert": "adapter", "enough_accuracy": 1.0, "adapter_rank": 2, "epochs": 2, "alpha": 0.7},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights in the place of ImageNet's."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file(ImageNetResNet18("layer3").state_dict(), file)
    return file


def begin(method: str, out: Path, weights: Path | None = None, **more: Any) -> None:
    """Learn the tiny stream, without a report."""
    config = configure(TINY, method, preset="quick", **METHODS[method] | {"extractor": "resnet18"} | more)
    run(config, out, Environment(device="cpu", threads=1, weights=weights))


@pytest.fixture(scope="module")
def runs(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        begin(method, folder / method, weights=weights)
    return {method: folder / method for method in METHODS}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photographs") / "new"
    for number in range(16):
        (place / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        picture(number, 1).save(place / "ab"[number % 2] / f"{number}.png")
    return place


@pytest.fixture(autouse=True)
def _no_weights_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIFELONG_WEIGHTS", raising=False)


IMAGES = torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_answers_learns_on_and_is_exported_without_its_weights_file(
    method: str, runs: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(runs[method], tmp_path / method)
    learner = lifelong.Learner.load(copy, device="cpu", threads=1)
    before = {task: learner.logits(IMAGES, task) for task in learner.tasks}
    assert all(prediction.task in learner.tasks for prediction in learner.predict(IMAGES))
    lifelong.learn(copy, f"folder:{photographs}", device="cpu", threads=1, progress=False)
    later = lifelong.Learner.load(copy, device="cpu", threads=1)
    assert [*later.tasks] == [*before, "new"]
    if method not in ("ranpac", "fecam"):  # whose common statistics move earlier answers
        assert all(torch.equal(later.logits(IMAGES, task), logits) for task, logits in before.items())
    made = lifelong.export(copy, "new", format="torch")
    found = torch.export.load(made["file"]).module()(IMAGES)
    torch.testing.assert_close(found, later.logits(IMAGES, "new"), rtol=1e-4, atol=1e-4)
    assert (copy / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("method", ["ranpac", "fecam", "par"])
def test_onnx_gives_the_logits(method: str, runs: dict[str, Path], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    learner = lifelong.Learner.load(runs[method], device="cpu", threads=1)
    task = [*learner.tasks][2]
    made = lifelong.export(runs[method], task, out=tmp_path / "task.onnx")
    (found,) = onnxruntime.InferenceSession(made["file"]).run(None, {"images": IMAGES.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), learner.logits(IMAGES, task), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["linear-probe", "ranpac", "fecam", "par"])
def test_a_stopped_run_goes_on_to_the_same_bits(
    method: str, runs: dict[str, Path], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Runner._task

    def stop(self: Runner, index: int) -> None:
        if index == 1:
            raise KeyboardInterrupt
        learn(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "_task", stop)
        with pytest.raises(KeyboardInterrupt):
            begin(method, tmp_path / "run", weights=weights)
    begin(method, tmp_path / "run", weights=weights)
    assert same(load_tree(tmp_path / "run" / STATE)["method"], load_tree(runs[method] / STATE)["method"])


def test_the_weights_are_named_where_they_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--stream", TINY, "--method", "ncm", "--extractor", "resnet18", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "the extractor 'resnet18' needs ImageNet weights: give them with --weights FILE" in capsys.readouterr().err


def test_adapters_on_pixels_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(LifelongError, match="--expert adapter needs the extractor 'resnet18', not 'pixels'; use --expert head"):
        begin("par", tmp_path / "run", extractor="pixels")


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_value_is_one_line(method: str, runs: dict[str, Path], photographs: Path, tmp_path: Path) -> None:
    tree, seen = load_tree(runs[method] / STATE), []
    for number, (what, wrong) in enumerate(mutations(tree, 6, 3)):
        copy = shutil.copytree(runs[method], tmp_path / str(number))
        resave(copy, copy / STATE, wrong)
        try:
            seen.append(outcome(uses(copy, photographs)["predict"]))
        except BaseException as error:
            raise AssertionError(f"{method}, {what}: predict ends in {error!r}") from error
    assert "no line" not in seen
    assert "refused" in seen


def test_a_comparison_tells_what_is_frozen(runs: dict[str, Path], tmp_path: Path) -> None:
    summaries = finished([*runs.values()], out=tmp_path / "compared")
    network = sum(tensor.numel() for tensor in ImageNetResNet18("layer3").parameters())
    with (tmp_path / "compared" / "comparison.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    for summary in summaries:
        assert summary["parameters_frozen"] == network
        assert summary["bytes"] == 4 * summary["parameters"] + sum(summary["memory"].values())
        assert float(rows[summary["method"]]["trained_mean"]) == summary["parameters"] - network
        assert float(rows[summary["method"]]["bytes_mean"]) == summary["bytes"]
    assert summaries[0]["parameters"] == network + sum(
        256 * classes + 1 for classes in map(len, (t["classes"] for t in summaries[0]["tasks"]))
    )
    assert "<th>trained</th>" in (tmp_path / "compared" / "report.html").read_text().replace(' scope="col"', "")
