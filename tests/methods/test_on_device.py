"""Every registered method on a device that is not the CPU (`tests/pretend.py`): it learns, answers, and goes through a file.

The pretended device computes with the CPU's kernels, so that its numbers must be those of the CPU to the bit, as long as the CPU takes the
same branches: see `branches_of_a_device`.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lifelong import devices
from lifelong.data import augment
from lifelong.methods.conformance import made_task
from lifelong.methods.finetune import Finetune
from lifelong.methods.method import Context, Method
from lifelong.methods.registry import METHODS, make_method
from lifelong.networks import depthwise, operations, strided
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.relatedness import extractor
from lifelong.relatedness.assessment import Relatedness
from lifelong.relatedness.extractor import Extractor, NetworkExtractor, PixelExtractor
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.training import TrainingSettings
from lifelong.storage import load_tree, save_tree
from lifelong.training.stages import Epoch, Stage, derive_seed
from tests import pretend
from tests.methods.test_conformance import small_settings
from tests.steps import watched

pytestmark = pytest.mark.usefixtures("shallow_networks")

CPU = torch.device("cpu")
TRAINING = TrainingSettings(epochs=2, batch_size=12, lr=0.05)
TASKS = 3

AT_AN_EPOCHS_END = 6
"""Waits between the last step of an epoch and the first of the next, at most: for losses and accuracies."""

MAY_WAIT = {"mntdp-s": ("search/reinforce.py", "_to_copy")}
"""Where the steps of a search wait, and in which operation. MNTDP-S reads rewards, from which the next paths follow."""

IN_CLOSED_FORM = {"fecam", "linear-probe", "ncm", "ranpac"}
"""Methods without a training."""

CLOSE = 1e-4
"""How far logits of the same weights may lie apart where the CPU takes branches of its own: sums of float32 in another order."""


@contextmanager
def branches_of_a_device() -> Generator[None]:
    """A block in which the CPU takes the branches of all other devices.

    These are: images in the order in which they come, other ways to the same convolutions and pools, and a generator of its own for what
    the host has to know.
    """

    def apart(stage: Stage, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
        return stage.generator(device), torch.Generator().manual_seed(derive_seed(stage.seed, "host"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "generators", apart)
        for user in (augment, extractor):
            patch.setattr(user, "order_of_images", lambda device: torch.preserve_format)
        for user in (depthwise, operations, strided):
            patch.setattr(user, "on_cpu", lambda x: False)
        yield


def opener(device: torch.device) -> Callable[[str, str], Extractor]:
    """Pixels; for "resnet18", a network of its shape with random weights."""

    def opened(name: str, feature_input: str) -> Extractor:
        if name != "resnet18":
            return PixelExtractor(device)
        torch.manual_seed(0)
        return NetworkExtractor(name, ImageNetResNet18("layer3"), "random", feature_input=feature_input, device=device)

    return opened


def learn(
    method: Method, device: torch.device, training: TrainingSettings = TRAINING, tasks: int = TASKS, **options: Any
) -> list[dict[str, Any]]:
    """Learn made tasks on a device, up to so many; what was noted of each, but for the time. Options are those of a `Context`.

    The second task's images are not augmented: what is computed once for all epochs then, and not otherwise, is computed too.
    """
    records = []
    for index in range(len(method.tasks), tasks):
        context = Context(
            task_index=index,
            task_name=f"made-{index}",
            training=replace(training, augment=index != 1),
            seed=0,
            device=device,
            open_extractor=opener(device),
            save_every=0.0,
            **options,
        )
        records.append(asdict(method.learn(made_task(index, 8).to(device), context)))
        del records[-1]["seconds"]
    return records


@dataclass(frozen=True)
class Answers:
    """What a method answers about some images, brought to the CPU."""

    logits: list[Tensor]
    tasks: Tensor | None
    strangeness: Tensor | None

    @classmethod
    def of(cls, method: Method, device: torch.device) -> "Answers":
        images = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8).to(device)
        logits = [method.logits(images, task) for task in range(len(method.tasks))]
        others = method.task_probabilities(images), method.strangeness(images)
        assert all(answer.device.type == device.type for answer in [*logits, *others] if answer is not None)
        return cls([answer.cpu() for answer in logits], *(None if answer is None else answer.cpu() for answer in others))

    def assert_like(self, other: "Answers", tolerance: float = 0.0) -> None:
        torch.testing.assert_close(vars(self), vars(other), rtol=0, atol=tolerance)


def tensors(value: Any) -> list[Tensor]:
    """All tensors of a state, on the CPU."""
    if isinstance(value, Tensor):
        return [value.detach().cpu()]
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
    return [tensor for item in inner for tensor in tensors(item)]


def assert_alike(records: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """The same decisions, by the same distances: the CPU takes some of the products for them in float32."""
    for record, other in zip(records, others, strict=True):
        for key in ("divergences", "group_distances"):
            assert record[key] == pytest.approx(other[key], rel=1e-5)
        assert record == other | {key: record[key] for key in ("divergences", "group_distances")}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_comes_to_the_numbers_of_the_cpu(name: str, accelerator: torch.device, tmp_path: Path) -> None:
    """Also where it goes on from a file before the last task. And no step waits for the device."""
    begun, method, reference, restored, elsewhere = (make_method(name, small_settings(name)) for _ in range(5))
    with watched() as watch:
        records = learn(begun, accelerator, tasks=TASKS - 1, on_epoch=watch.epoch)
        save_tree(tmp_path / "begun", begun.state_dict())
        method.load_state_dict(load_tree(tmp_path / "begun"), accelerator)
        records += learn(method, accelerator, on_epoch=watch.epoch)
    if any(record["epochs"] for record in records):  # what is solved in closed form has no steps
        assert len(watch.within) >= 2 * TASKS
        assert [sync for sync in watch.waits() if (sync.where.partition(":")[0], sync.operation) != MAY_WAIT.get(name)] == []
        assert max(map(len, watch.within)) <= (1 if name in MAY_WAIT else 0)
        assert max(map(len, watch.between)) <= AT_AN_EPOCHS_END
    else:
        assert name in IN_CLOSED_FORM
    answers = Answers.of(method, accelerator)
    with branches_of_a_device():
        assert_alike(records, learn(reference, CPU))
        answers.assert_like(Answers.of(reference, CPU))
    for found, wanted in zip(tensors(method.state_dict()), tensors(reference.state_dict()), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    save_tree(tmp_path / "state", method.state_dict())
    # What was learned on a device answers there again, and on the CPU by its own branches.
    for other, device, tolerance in ((restored, accelerator, 0.0), (elsewhere, CPU, CLOSE)):
        other.load_state_dict(load_tree(tmp_path / "state"), device)
        other.attach_extractor(opener(device))
        Answers.of(other, device).assert_like(answers, tolerance)
    for other in (reference, restored, elsewhere):
        assert other.num_parameters() == method.num_parameters()
        assert other.memory() == method.memory()


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("agem", {"batch_norm": "per-task"}),
    ("er", {"memory_policy": "reservoir", "memory_size": 10, "batch_norm": "per-task-stats"}),
    ("ewc", {"fisher": "sampled", "fisher_samples": 10, "batch_norm": "per-task"}),
    ("ewc", {"fisher": "batched", "penalty": "online"}),
    ("ewc", {"fisher": "batched", "penalty": "average", "start": "kaiming"}),
    ("ewc", {"fisher": "empirical", "fisher_samples": 6, "backbone": "cells"}),
    ("finetune", {"batch_norm": "frozen", "stem_pool": True}),
    ("gpm", {"backbone": "cells", "plain_sgd": False}),
    ("hat", {"batch_norm": "shared", "binary_masks": False}),
    ("joint", {"batch_norm": "per-task"}),
    ("lmc", {"outlier_threshold": 1e-9, "module_init": "mean"}),
    ("lmc", {"outlier_threshold": 1e-9, "batch_prior": False}),
    ("lwf", {"backbone": "cells"}),
    ("par", {"variant": "regularization", "train_old_heads": True}),
    ("par", {"variant": "coarse+fine", "beta": 1.0, "leave_one_out": True, "clamp": "class", "feature_split": "both"}),
    ("par", {"alpha": 1.0, "freeze_ratio": 9.0, "zero_is_far": True, "map_before_mean": True, "group_reduce": "max"}),
    ("par", {"alpha": 0.0, "beta": 0.0, "search_sampling": "batch", "search_projection": "softmax", "reduce_bn": False}),
    ("par", {"alpha": 0.0, "beta": 0.0, "search_bn": "running", "search_idle": "move", "search_ties": "first"}),
    ("par", {"variant": "fixed+regularization", "decision": "posterior", "regularizer": "ewc"}),
    ("par", {"variant": "fixed+regularization", "decision": "z-score", "regularizer": "feature-distillation", "share_z": 99.0}),
    ("par", {"variant": "fixed+regularization", "decision": "outlier", "regularizer": "mas", "share_outlier": 99.0}),
    ("par", {"variant": "fixed+regularization", "decision": "gradient-angle", "regularizer": "l2-sp"}),
    ("par", {"variant": "fixed+regularization", "decision": "calibrated", "calibration_tasks": 1, "train_old_heads": True}),
    ("par", {"expert": "head", "alpha": 1.0}),
    ("par", {"expert": "adapter", "extractor": "resnet18", "enough_accuracy": 1.0, "adapter_rank": 2}),
    ("linear-probe", {"refit": True}),
    ("ranpac", {"statistics": "common", "refit": True}),
    ("ranpac", {"random_features": 0, "feature_size": "32"}),
    ("fecam", {"covariance": "common", "refit": True}),
    ("fecam", {"covariance": "class", "extractor": "resnet18", "feature_size": "32"}),
    ("ncm", {"extractor": "resnet18", "feature_stages": ("layer1", "layer3"), "feature_size": "32"}),
    ("packnet", {"backbone": "cells", "batch_norm": "frozen", "use_weight_decay": True}),
    ("pnn", {"lateral": "copies"}),
    ("pnn", {"lateral_scales": "normal"}),
    ("mas", {"importance": "par-code"}),
    ("supsup", {"score_start": "mean", "batch_norm": "per-task"}),
    ("wsn", {"batch_norm": "per-task-stats", "use_weight_decay": True}),
    ("learn-to-grow", {"search_start": "random", "search_kept": "best"}),
]
"""Options whose code no default runs."""


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_options_of_methods_run_on_a_device(name: str, options: dict[str, Any], accelerator: torch.device) -> None:
    method = make_method(name, small_settings(name, **options))
    decays = (0.0, 0.01) if name in ("finetune", "lmc") else ()
    learn(method, accelerator, TrainingSettings(epochs=1, batch_size=12, weight_decay_grid=decays), tasks=2)
    assert all(bool(logits.isfinite().all()) for logits in Answers.of(method, accelerator).logits)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_do_without_float64(name: str, accelerator: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Apple's GPUs."""
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"pretend"})
    method, restored = (make_method(name, small_settings(name)) for _ in range(2))
    with pretend.without_float64():
        learn(method, accelerator, TrainingSettings(epochs=1, batch_size=24), tasks=2)
        restored.load_state_dict(method.state_dict(), accelerator)
        restored.attach_extractor(opener(accelerator))
        Answers.of(restored, accelerator).assert_like(Answers.of(method, accelerator))


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("name", ["learn-to-grow", "mntdp-s"])
def test_a_search_is_continued_on_a_device(name: str, accelerator: torch.device, tmp_path: Path) -> None:
    """The searches that have states of their own; those of trainings and of cells are continued in `tests/experiment/test_on_device.py`."""

    def stop(epoch: Epoch) -> None:
        if (epoch.stage, epoch.epoch) == ("search", 2):
            raise StoppedError

    training = TrainingSettings(epochs=6, batch_size=16)
    method, again, straight = (make_method(name, small_settings(name)) for _ in range(3))
    learn(straight, accelerator, training, tasks=1)
    for other in (method, again):
        other.load_state_dict(straight.state_dict(), accelerator)
    learn(straight, accelerator, training, tasks=2)
    with pytest.raises(StoppedError):
        learn(method, accelerator, training, tasks=2, folder=tmp_path, on_epoch=stop)
    learn(again, accelerator, training, tasks=2, folder=tmp_path)
    for found, wanted in zip(tensors(again.state_dict()), tensors(straight.state_dict()), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_cat_attends_on_a_device(accelerator: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks are rarely similar by chance: here they all are, and answered for by attention."""
    method = make_method("cat", small_settings("cat"))
    monkeypatch.setattr(type(method), "_compare", lambda self, task, context: (list(range(len(self.tasks))), []))
    learn(method, accelerator, TrainingSettings(epochs=1, batch_size=12))
    method.attends = [False, True, True]
    assert all(bool(logits.isfinite().all()) for logits in Answers.of(method, accelerator).logits)


@pytest.mark.parametrize("feature_input", ["task", "imagenet"])
def test_the_extractor_computes_on_its_device(feature_input: str, accelerator: torch.device) -> None:
    torch.manual_seed(0)
    here, there = (ImageNetResNet18(last="layer3") for _ in range(2))
    there.load_state_dict(here.state_dict())
    task = made_task(0, 1)
    images, normalization = task.train.images, task.normalization
    wanted = NetworkExtractor("resnet18", here, "", feature_input=feature_input, device=CPU).features(images, normalization)
    extractor = NetworkExtractor("resnet18", there, "", feature_input=feature_input, device=accelerator)
    for given in (images, images.to(accelerator)):
        found = extractor.features(given, normalization)
        assert found.device.type == accelerator.type
        torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=CLOSE)


def test_distances_and_recognition_are_those_of_the_cpu(accelerator: torch.device) -> None:
    """The bank takes float64 throughout on a device, float32 for one product on the CPU."""
    settings, found = small_settings("par"), {}
    for device in (CPU, accelerator):
        relatedness = Relatedness(settings)
        decisions = []
        for index in range(TASKS):
            decisions.append(relatedness.assess(made_task(index, 8).to(device), PixelExtractor(device)))
            relatedness.groups.open(24)
        restored = Relatedness.from_state(settings, relatedness.state(), device)
        images = made_task(1, 8).test.images.to(device)
        squares = restored.recognition.squared_distances(images, restored.bank, PixelExtractor(device))
        found[device] = decisions[-1].divergences, squares.cpu()
        assert squares.device.type == device.type
    assert found[accelerator][0] == pytest.approx(found[CPU][0], rel=1e-5)
    torch.testing.assert_close(found[accelerator][1], found[CPU][1], rtol=1e-9, atol=0)


class WeighsOnTheHost(Finetune):
    def loss(self, head, examples):
        weights = torch.ones(3)
        return lambda batch: nn.functional.cross_entropy(head(self.features(batch.inputs, 0)), batch.labels, weight=weights)


class DrawsOnTheHost(Finetune):
    def loss(self, head, examples):
        generator = torch.Generator().manual_seed(0)

        def loss(batch):
            kept = torch.rand(len(batch.labels), generator=generator, device=batch.labels.device) < 0.5
            return (nn.functional.cross_entropy(head(self.features(batch.inputs, 0)), batch.labels, reduction="none") * kept).mean()

        return loss


class KeepsItsHeadOnTheHost(Finetune):
    def make_head(self, task, context):
        return super().make_head(task, context).cpu()


class ReturnsToTheHost(Finetune):
    def load_state_dict(self, state, device="cpu"):
        super().load_state_dict(state)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (WeighsOnTheHost, "same device"),
        (DrawsOnTheHost, "expected a generator of the device"),
        (KeepsItsHeadOnTheHost, "same device"),
        (ReturnsToTheHost, "same device"),
    ],
)
def test_what_is_left_on_the_host_is_found(broken: type[Finetune], message: str, accelerator: torch.device) -> None:
    with pytest.raises(RuntimeError, match=message):
        learned_and_restored(broken, accelerator)


def learned_and_restored(kind: type[Finetune], device: torch.device) -> None:
    method, restored = (kind(FinetuneSettings(init_channels=4)) for _ in range(2))
    learn(method, device, tasks=1)
    restored.load_state_dict(method.state_dict(), device)
    Answers.of(restored, device)
