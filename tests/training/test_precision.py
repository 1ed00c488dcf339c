"""What a precision changes and what it leaves alone; what a device cannot do is refused before a run begins."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lifelong
from lifelong.data.task import Split, Task
from lifelong.errors import LifelongError
from lifelong.methods.registry import METHODS, make_method
from lifelong.networks.cells import CellNetwork
from lifelong.networks.depthwise import depthwise
from lifelong.networks.genotype import DARTS_V1
from lifelong.networks.layout import autocast_to, layout
from lifelong.settings.training import TrainingSettings
from lifelong.training import precision
from lifelong.training.examples import image_examples
from lifelong.training.fit import Batch, fit
from lifelong.training.precision import bf16_slowdown, check_training, compiled, exact_float32, resolved, use_precision
from lifelong.training.stages import Stage, seeded
from tests.made import made_task
from tests.methods.test_conformance import small_settings
from tests.resaved import as_earlier_version
from tests.trees import same

pytestmark = pytest.mark.usefixtures("shallow_networks")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_is_float32() -> None:
    assert [resolved(name) for name in ("auto", "float32", "tf32", "bf16")] == ["float32", "float32", "tf32", "bf16"]


@pytest.mark.parametrize("name", ["auto", "float32"])
def test_float32_on_a_cpu_is_nothing_special(name: precision.Precision) -> None:
    with use_precision(name, CPU):
        assert autocast_to("cpu") is None


def test_cells_in_bf16_keep_their_statistics_and_come_near_float32() -> None:
    """Features, gradients of all weights and running statistics: types, and values to the resolution of bfloat16."""
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    networks = []
    for name in ("float32", "bf16"):
        with seeded(1):
            network = CellNetwork(DARTS_V1, 8)
        with use_precision(name, CPU):
            features = network(images)
        assert features.dtype == (torch.bfloat16 if name == "bf16" else torch.float32)
        features.float().square().sum().backward()
        networks.append(network)
    exact, reduced = networks
    for one, other in zip(exact.state_dict().values(), reduced.state_dict().values(), strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.02)
    gradients = [[p.grad for p in network.parameters() if p.grad is not None] for network in networks]
    assert {gradient.dtype for gradient in gradients[1]} == {torch.float32}
    one, other = (torch.cat([gradient.flatten() for gradient in found]) for found in gradients)
    # As near as a network of PyTorch's own modules comes (`benchmarks/plain_cells.py`: 0.98 as well).
    assert F.cosine_similarity(one, other, dim=0) > 0.97


@pytest.mark.parametrize(("stride", "dilation", "size"), [(1, 1, 8), (1, 2, 8), (2, 2, 8), (2, 1, 8), (1, 1, 2), (1, 2, 5)])
def test_depthwise_in_bf16_is_that_of_pytorch(stride: int, dilation: int, size: int) -> None:
    """Against autocast around PyTorch's own convolution, forward and both gradients."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(4, 6, size, size, generator=generator), torch.randn(6, 1, 3, 3, generator=generator)
    results = []
    for convolve in (
        lambda x, w: depthwise(x, w, stride, dilation),
        lambda x, w: F.conv2d(x, w, stride=stride, padding=dilation, dilation=dilation, groups=6),
    ):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        with use_precision("bf16", CPU):
            y = convolve(*leaves)
        assert y.dtype == torch.bfloat16
        results.append((y.float(), *torch.autograd.grad(y.float().square().sum(), leaves)))
    for ours, plain in zip(*results, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, plain, rtol=0.02, atol=0.02 * plain.detach().abs().max().item())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_trains_in_bf16(name: str) -> None:
    """One task: no type meets another that it cannot be mixed with, and answers are float32."""
    from lifelong.methods.conformance import _Trial, made_task

    def enlarged(index: int) -> Task:
        """As large as images must be on a processor: `SMALLEST`."""
        small = made_task(index, 8)
        splits = {kind: getattr(small, kind) for kind in ("train", "valid", "test")}
        twice = {kind: Split(split.images.repeat_interleave(2, 2).repeat_interleave(2, 3), split.labels) for kind, split in splits.items()}
        return Task(small.name, small.classes, twice.__getitem__, augmentation=small.augmentation)

    training = TrainingSettings(epochs=2, batch_size=16, lr=0.05, precision="bf16")
    trial = _Trial(lambda: make_method(name, small_settings(name)), training, 8)
    method = trial.make()
    for index in range(2):
        method.learn(enlarged(index), trial._context(index, None))
        logits = method.logits(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), index)
        assert logits.dtype == torch.float32
        assert bool(logits.isfinite().all())


def test_validation_and_update_are_outside() -> None:
    """Only the loss is computed in bf16."""
    seen: dict[str, torch.dtype | None] = {}
    task = made_task()
    with seeded(0):
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))

    def predict(inputs: torch.Tensor) -> torch.Tensor:
        seen["valid"] = autocast_to("cpu")
        return network(inputs)

    def loss(batch: Batch) -> torch.Tensor:
        seen["loss"] = autocast_to("cpu")
        return F.cross_entropy(network(batch.inputs), batch.labels)

    class Surround:
        def __enter__(self) -> None:
            seen["update"] = autocast_to("cpu")

        def __exit__(self, *error: object) -> None:
            pass

    settings = TrainingSettings(epochs=1, batch_size=8, precision="bf16")
    fit(network, image_examples(task), predict, settings, Stage("train", 0), loss=loss, update=lambda batch: Surround())  # ty: ignore
    assert seen == {"valid": None, "loss": torch.bfloat16, "update": None}


def test_layout() -> None:
    for device in ("cpu", "meta"):
        assert layout(torch.zeros(1, device=device)) == torch.channels_last


class Card:
    """A card of a generation."""

    def __init__(self, patch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
        patch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


@pytest.mark.parametrize("name", ["tf32", "bf16"])
def test_a_card_before_ampere_has_neither(name: precision.Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    Card(monkeypatch, (7, 5))
    with pytest.raises(LifelongError, match=f"--precision {name}: cuda .*Ampere"):
        check_training(TrainingSettings(precision=name), CUDA, 32)
    Card(monkeypatch, (8, 0))
    assert check_training(TrainingSettings(precision=name, compile=True), CUDA, 8) == []


def test_what_a_cpu_cannot_do_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    refused = [
        ({"precision": "tf32"}, "--precision tf32: cpu"),
        ({"precision": "bf16"}, "at least 16 pixels wide and high, and some of these are 8"),
        ({"compile": True}, "--compile pays on a CUDA GPU only"),
    ]
    for settings, message in refused:
        with pytest.raises(LifelongError, match=message):
            lifelong.run("digits", "finetune", out=tmp_path / "run", device="cpu", progress=False, **settings)
    assert not (tmp_path / "run").exists()


def test_a_slow_bf16_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_slowdown", lambda: 18.2)
    (note,) = check_training(TrainingSettings(precision="bf16"), CPU, 16)
    assert "18 times slower" in note
    monkeypatch.setattr(precision, "bf16_slowdown", lambda: 0.5)
    assert check_training(TrainingSettings(precision="bf16"), CPU, 16) == []


def test_the_probe_measures() -> None:
    assert 0.01 < bf16_slowdown() < 1000


def test_tf32_is_set_around_a_step_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def flags() -> tuple[bool, str]:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()

    before = flags()
    with exact_float32(CUDA):
        assert flags() == (False, "highest")
        with use_precision("tf32", CUDA):
            assert flags() == (True, "high")
        assert flags() == (False, "highest")
    assert flags() == before


def test_parts_are_compiled_and_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: called.append(self))
    network = nn.ModuleList([nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)])
    with compiled(network, False):
        assert called == []
    with compiled(network, True):
        assert called == [network[0], network[2]]
    called.clear()
    with compiled(network[0], True):
        assert called == [network[0]]
    assert all(part._compiled_call_impl is None for part in network)


def test_the_precision_stands_in_the_run_and_old_runs_have_the_default(tmp_path: Path) -> None:
    """A run that was started before precision was a setting is continued; one in another precision is another run."""
    out = tmp_path / "run"
    small = {"preset": "quick", "epochs": 1, "init_channels": 4, "progress": False, "device": "cpu"}
    first = lifelong.run("digits?tasks=1", "finetune", out=out, **small)
    assert (first["settings"]["precision"], first["precision"]) == ("auto", "float32")
    as_earlier_version(out, "precision", "compile")
    assert same(lifelong.run("digits?tasks=1", "finetune", out=out, **small)["accuracy"], first["accuracy"])
    with pytest.raises(LifelongError, match="precision = 'auto', not 'float32'"):
        lifelong.run("digits?tasks=1", "finetune", out=out, precision="float32", **small)
