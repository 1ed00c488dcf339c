"""A bundle answers as the `Learner` of its run does."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

import lifelong
from lifelong.bundling import check, graphs, write
from lifelong.bundling.check import compared
from lifelong.cli import main
from lifelong.cli.tables import print_export_bundle
from lifelong.errors import LifelongError
from lifelong.experiment.saved import open_run
from lifelong.learner import Learner
from lifelong.methods.conformance import made_context, made_task
from lifelong.methods.registry import METHODS, make_method
from lifelong.networks import masks, max_pool
from lifelong.networks.pretrained import Pixels
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.prediction import Prediction
from lifelong.predictor import Predictor
from lifelong.relatedness import recognition
from lifelong.relatedness.bank import Prototypes
from lifelong.runtime import Bundle
from lifelong.settings.training import TrainingSettings
from tests.bundling.runs import exported_run
from tests.learned import HERE
from tests.methods.test_conformance import small_settings


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> tuple[Path, Path]:
    """A run whose method recognizes tasks by the features that its heads read, and its bundle."""
    folder = tmp_path_factory.mktemp("frozen")
    run = exported_run(folder, "linear-probe", (8, 8, 8))
    with redirect_stdout(io.StringIO()) as said:
        assert main(["export", str(run), "--bundle", str(folder / "bundle"), "--json"]) == 0
    made = json.loads(said.getvalue())
    assert made["largest_difference"] <= 1e-5
    assert made["test_images"] == made["images"] == 54
    return run, folder / "bundle"


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[Path, Path]:
    """A run with one network for tasks of two image sizes, and its bundle."""
    folder = tmp_path_factory.mktemp("shared")
    run = exported_run(folder, "finetune", (8, 12), batch_norm="per-task")
    assert lifelong.export(run, bundle=folder / "bundle")["largest_difference"] <= 1e-5
    return run, folder / "bundle"


def pictures(count: int, size: int = 20) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return list(draw.integers(0, 256, (count, size, size + 3, 3), np.uint8))


def assert_same(ours: list[Prediction], theirs: list[Prediction]) -> None:
    assert [(one.task, one.label, one.strange, one.image) for one in ours] == [
        (one.task, one.label, one.strange, one.image) for one in theirs
    ]
    for own, other in zip(ours, theirs, strict=True):
        assert list(own.classes) == list(other.classes)
        np.testing.assert_allclose(list(own.classes.values()), list(other.classes.values()), atol=1e-5)
        assert (own.tasks is None) == (other.tasks is None)
        np.testing.assert_allclose(list((own.tasks or {}).values()), list((other.tasks or {}).values()), atol=1e-5)
        assert own.probability == pytest.approx(other.probability, abs=1e-5)


@pytest.mark.parametrize("infer", ["auto", "method", "confidence"])
def test_recognizing_tasks_by_frozen_features(frozen, infer):
    run, bundle = frozen
    # As many as pass the network in two parts.
    assert_same(Bundle(bundle).predict(pictures(300), infer=infer), Learner.load(run).predict(pictures(300), infer=infer))


def test_tasks_that_look_at_images_alike_are_computed_together(frozen, monkeypatch):
    asked, run = [], Bundle._run
    monkeypatch.setattr(Bundle, "_run", lambda self, position, names, values: asked.append(names) or run(self, position, names, values))
    Bundle(frozen[1]).predict(pictures(5), infer="confidence")
    # The features, and all heads once: the one that answers is not asked again.
    assert asked[1:] == [["logits_001", "logits_002", "logits_003"]]


def test_a_named_task(frozen, shared):
    for run, bundle in (frozen, shared):
        for task in Learner.load(run).tasks:
            assert_same(Bundle(bundle).predict(pictures(5), task), Learner.load(run).predict(pictures(5), task))


def test_arrays_of_every_kind(shared):
    run, bundle = shared
    rows = np.random.default_rng(1).integers(0, 256, (5, 20, 20, 3), np.uint8)
    opened, learner = Bundle(bundle), Learner.load(run)
    for some in (rows, rows / 255, rows.transpose(0, 3, 1, 2), rows.astype(np.int64), rows.astype(np.uint16) * 257, rows[..., 0], rows[:0]):
        assert_same(opened.predict(some), learner.predict(some))
        assert_same(opened.predict(list(some)), learner.predict(list(some)))
    assert_same(opened.predict(torch.from_numpy(rows[..., 0]) / 255), learner.predict(torch.from_numpy(rows[..., 0]) / 255))


def test_tasks_of_two_image_sizes_by_the_confidence_of_heads(shared):
    run, bundle = shared
    assert_same(Bundle(bundle, threads=0).predict(pictures(40)), Learner.load(run).predict(pictures(40)))
    with pytest.raises(LifelongError, match="cannot infer an image's task"):
        Bundle(bundle).predict(pictures(1), infer="method")


def test_what_is_shared_is_stored_once(frozen, shared):
    """The features are in the first graph, from which the heads begin; one network for all tasks is in one graph."""
    first, second = (onnx.load(frozen[1] / f"model-00{number}.onnx") for number in (1, 2))
    assert {value.name for value in first.graph.input} == {"images_8"}
    assert "images_8" not in {value.name for value in second.graph.input}
    assert [value.name for value in second.graph.output] == ["logits_001", "logits_002", "logits_003"]
    (only,) = (file for file in shared[1].iterdir() if file.suffix == ".onnx")
    method = open_run(shared[0]).method
    tensors = [tensor for task in range(2) for module in method.modules(task) for tensor in module.state_dict().values()]
    held = sum({tensor.data_ptr(): tensor.numel() for tensor in tensors}.values())
    assert sum(np.prod(tensor.dims) for tensor in onnx.load(only).graph.initializer) <= 1.1 * held


def test_what_stands_in_a_bundle(frozen):
    run, bundle = frozen
    about, spreads = json.loads((bundle / "bundle.json").read_text()), open_run(run).method.recognition.spreads
    assert [task["name"] for task in about["tasks"]] == ["task 0", "task 1", "task 2"]
    for task, learned, spread in zip(about["tasks"], open_run(run).method.tasks, spreads, strict=True):
        assert task["normalization"]["mean"] == pytest.approx(learned.normalization.mean)
        assert task["limit"] == pytest.approx(spread.limit**0.5)
    # And in each model, of its own tasks.
    inside = json.loads(onnxruntime.InferenceSession(bundle / "model-002.onnx").get_modelmeta().custom_metadata_map["lifelong"])
    assert [task["classes"] for task in inside["tasks"]] == [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"]]
    assert inside["run"] == about["run"]


def test_without_the_test_images_the_check_says_so(frozen, monkeypatch):
    run, bundle = frozen
    monkeypatch.setattr(check, "images_of", lambda saved, sources: [None] * 3)
    found = check.check_bundle(Bundle(bundle), Predictor.load(run, HERE), open_run(run), HERE)
    assert (found.images, found.of_tests) == (12, 0)
    printed = Console(record=True, width=200)
    about = {"folder": "b", "tasks": {"t": ["x", "y"]}, "models": 1, "bytes": 10**6, "recognizes": [], "notes": ["read this"]}
    print_export_bundle(printed, about | {"images": 12, "test_images": 0, "largest_difference": 1e-6})
    said = printed.export_text()
    assert "task t: x, y" in said
    assert "by the confidence of the heads; does not flag unknown images; 1 ONNX file, 1.0 MB" in said
    assert "note: read this" in said
    assert "12 images, 0 of them test images: largest difference 1e-06" in said


def test_only_a_bundle_is_replaced(tmp_path):
    def fill(folder: Path) -> None:
        (folder / "bundle.json").write_text("new")

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bundle.json").write_text("old")
    write.in_place(tmp_path / "photos", fill)
    assert (tmp_path / "photos" / "bundle.json").read_text() == "new"
    (tmp_path / "photos" / "holiday.jpg").write_text("dear")
    with pytest.raises(LifelongError, match="not an empty folder, and not a bundle"):
        write.in_place(tmp_path / "photos", fill)
    with pytest.raises(ZeroDivisionError):
        write.in_place(tmp_path / "other", lambda folder: print(1 / 0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]


def test_a_bundle_that_answers_otherwise_is_not_kept():
    ours = Prediction("a", "x", 0.6, {"x": 0.6, "y": 0.4}, {"a": 0.9, "b": 0.1}, False)
    run = Path("run")
    assert compared(ours, ours, run) == 0
    near = Prediction("a", "x", 0.60005, {"x": 0.60005, "y": 0.39995}, {"a": 0.9, "b": 0.1}, False)
    assert compared(ours, near, run) == pytest.approx(5e-5)
    others = (
        Prediction("b", "x", 0.6, {"x": 0.6, "y": 0.4}, {"b": 0.9, "a": 0.1}, False),
        Prediction("a", "x", 0.7, {"x": 0.7, "y": 0.3}, {"a": 0.9, "b": 0.1}, False),
        Prediction("a", "x", 0.6, {"x": 0.6, "y": 0.4}, {"a": 0.9, "b": 0.1}, True),
    )
    for other in others:
        with pytest.raises(LifelongError, match="not kept"):
            compared(ours, other, run)
    # Features of half precision: a rounding may go the other way.
    further = Prediction("a", "x", 0.6005, {"x": 0.6005, "y": 0.3995}, {"a": 0.9, "b": 0.1}, False)
    assert compared(ours, further, run, check.HALF_TOLERANCE) == pytest.approx(5e-4)
    with pytest.raises(LifelongError, match="not kept"):
        compared(ours, further, run)


def test_what_is_traced_equals_what_is_computed(monkeypatch):
    """What has another form while a program is traced: the distances to prototypes, and masks."""
    torch.manual_seed(0)
    packed = torch.randint(0, 256, (3, 5), dtype=torch.uint8)
    prototypes = Prototypes(torch.randn(4, 6, dtype=torch.float64), torch.tensor([3, 0, 2, 1]))
    prototypes.means[1] = 0
    features = torch.randn(7, 6, dtype=torch.float64)
    plain = masks.unpack(packed, 37), recognition._nearest_squares(features, prototypes)
    maps = {size: torch.randn(2, 3, *size) for size in ((3, 3), (7, 5), (2, 8))}
    pooled = {size: torch.nn.functional.adaptive_max_pool2d(one, 3) for size, one in maps.items()}
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(masks.unpack(packed, 37), plain[0])
    for size, one in maps.items():
        assert torch.equal(max_pool.adaptive_max_pool(one, 3), pooled[size])
    torch.testing.assert_close(recognition._nearest_squares(features, prototypes), plain[1], rtol=1e-12, atol=1e-12)


def test_tasks_of_one_network_are_one_computation_whatever_their_normalizations():
    """The network is told which normalization is asked for, and computed once for all tasks, not once for each."""
    method = make_method("finetune", small_settings("finetune"))
    for index in range(3):
        method.learn(made_task(index, 4), made_context(index, TrainingSettings(epochs=1, batch_size=8)))
    assert len({task.normalization for task in method.tasks}) == 3
    asked, calls = graphs.Asked(method, (8, 8, 8), (0, 1, 2), recognizing=False), []
    assert asked.inputs == ["images_8", "normalization"]
    shared = next(part for part in method.modules(0) if part in method.modules(1))
    next(part for part in shared.modules() if isinstance(part, torch.nn.Conv2d)).register_forward_hook(lambda *_: calls.append(1))
    images = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    asked.eval()
    for index, task in enumerate(method.tasks):
        how = task.normalization
        factors = torch.tensor([[1 / (255 * std) for std in how.std], [-mean / std for mean, std in zip(how.mean, how.std, strict=True)]])
        calls.clear()
        with torch.no_grad():
            answers = asked((images,), factors)
        assert len(calls) == 1
        torch.testing.assert_close(answers[index], method.logits(images, index), rtol=1e-4, atol=1e-5)
    # Tasks that look at images in the same way need not be told.
    assert graphs.Asked(method, (8, 8, 8), (1,), recognizing=False).inputs == ["images_8"]


def test_a_module_computes_its_answer_once():
    calls = []
    module, images = Pixels(), torch.rand(1, 3, 4, 4)
    forward = module.forward
    module.forward = lambda given: calls.append(1) or forward(given)
    with graphs._computed_once([module]):
        first, second, other = module(images), module(images), module(images + 1)
    assert first is second
    assert not torch.equal(first, other)
    assert len(calls) == 2


def test_a_task_or_a_bundle(frozen, tmp_path, capsys):
    with pytest.raises(LifelongError, match="either a task or bundle"):
        lifelong.export(frozen[0])
    with pytest.raises(LifelongError, match="leave out format and out"):
        lifelong.export(frozen[0], bundle=tmp_path / "b", format="torch")
    for flags in (["--bundle", "b", "--task", "a"], ["--bundle", "b", "--format", "torch"]):
        assert main(["export", str(frozen[0]), *flags]) == 2
    assert "leave out --out and --format" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(METHODS))
def test_bundles_of_every_method(name, tmp_path):
    run = exported_run(tmp_path, name)
    made = lifelong.export(run, bundle=tmp_path / "bundle")
    assert made["largest_difference"] <= 1e-5
    assert made["images"] == made["test_images"]
    Image.fromarray(pictures(1)[0]).save(tmp_path / "one.png")
    assert_same(Bundle(tmp_path / "bundle").predict(tmp_path / "one.png"), Learner.load(run).predict(tmp_path / "one.png"))


SMALL_PAR = {"cells": 1, "enough_accuracy": 1.0, "side_channels": 2, "side_epochs": 1, "adapter_rank": 2}
ON_FROZEN: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "heads": ("par", (16, 24, 16), {"expert": "head"}),
    "heads of one group": ("par", (16, 16), {"expert": "head", "alpha": 1.0, "beta": 1.0}),
    "side networks": ("par", (16, 24), {"expert": "side", **SMALL_PAR}),
    "adapters": ("par", (16, 16), {"expert": "adapter", **SMALL_PAR}),
    "cells": ("par", (8, 16), {"variant": "fixed"}),
    "expert gate": ("expert-gate", (16, 16), {}),
    "RanPAC": ("ranpac", (16, 24), {}),
    "RanPAC with common statistics": ("ranpac", (16, 16), {"statistics": "common"}),
    "FeCAM": ("fecam", (16, 24), {"covariance": "class"}),
    "one task": ("ncm", (16,), {}),
    "half precision": ("linear-probe", (16, 16), {"feature_precision": "half"}),
    "several stages": ("linear-probe", (16, 16), {"feature_stages": ("layer2", "layer3")}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ON_FROZEN)
def test_bundles_on_a_pretrained_network(case, tmp_path):
    """Whatever looks at images through the network, and in however many sizes: its weights are in the bundle once."""
    name, sizes, settings = ON_FROZEN[case]
    torch.manual_seed(0)
    weights = tmp_path / "random.safetensors"
    save_file(ImageNetResNet18("layer3").state_dict(), weights)
    run = exported_run(tmp_path, name, sizes, weights, extractor="resnet18", **settings)
    made = lifelong.export(run, bundle=tmp_path / "bundle", weights=weights)
    # Random weights of large logits: rounding weighs more than in a network that was trained.
    assert made["largest_difference"] <= (1e-3 if case == "half precision" else 5e-5)
    assert made["images"] == made["test_images"]
    assert made["bytes"] <= 1.25 * weights.stat().st_size
