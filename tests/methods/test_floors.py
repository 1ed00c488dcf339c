"""NCM, linear probe, RanPAC and FeCAM: held against plain versions; nothing that a later task brings changes an earlier answer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lifelong.data.augment import normalize
from lifelong.data.task import IMAGENET, Augmentation, Normalization, Split, Task
from lifelong.errors import LifelongError
from lifelong.methods.fecam import FeCAM
from lifelong.methods.linear_probe import LinearProbe
from lifelong.methods.method import Context, LearnRecord, Method
from lifelong.methods.ncm import NCM
from lifelong.methods.par_pretrained import make_par
from lifelong.methods.ranpac import RanPAC
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.relatedness.extractor import Extractor, NetworkExtractor, PixelExtractor
from lifelong.settings.par import PARSettings
from lifelong.settings.pretrained import FeCAMSettings, LinearProbeSettings, NCMSettings, RanPACSettings
from lifelong.settings.training import TrainingSettings
from lifelong.storage import load_tree, save_tree
from lifelong.training.closed_form import RIDGES, SCALES
from tests.made import made_split, made_task

PROBE = LinearProbeSettings(extractor="pixels", probe_penalties=(1.0, 0.1))
RANPAC = RanPACSettings(extractor="pixels", random_features=40)
COMMON = replace(RANPAC, statistics="common")
FECAM = FeCAMSettings(extractor="pixels")
ONE_COVARIANCE = replace(FECAM, covariance="common")
HEADS = PARSettings(extractor="pixels", expert="head")
MAKE: dict[str, Callable[[], Method]] = {
    "ncm": lambda: NCM(NCMSettings(extractor="pixels")),
    "linear-probe": lambda: LinearProbe(PROBE),
    "ranpac": lambda: RanPAC(RANPAC),
    "ranpac, common": lambda: RanPAC(COMMON),
    "fecam": lambda: FeCAM(FECAM),
    "fecam, by class": lambda: FeCAM(replace(FECAM, covariance="class")),
    "fecam, common": lambda: FeCAM(ONE_COVARIANCE),
    "par, heads": lambda: make_par(HEADS),
}


def random_resnet18() -> ImageNetResNet18:
    torch.manual_seed(0)
    return ImageNetResNet18("layer3")


def opened(name: str, feature_input: str) -> Extractor:
    """The extractor, with random weights in the place of ImageNet's."""
    assert feature_input == "task"
    return PixelExtractor() if name == "pixels" else NetworkExtractor(name, random_resnet18(), "random", feature_input="task", device="cpu")


def context(index: int, seed: int = 0, open_extractor: Callable[[str, str], Extractor] | None = opened) -> Context:
    training = TrainingSettings(epochs=2, batch_size=8, lr=0.05)
    return Context(
        task_index=index, task_name=f"task {index}", training=training, seed=seed, device=torch.device("cpu"), open_extractor=open_extractor
    )


def learn(method: Method, tasks: list[Task], seed: int = 0) -> list[LearnRecord]:
    return [method.learn(task, context(len(method.tasks), seed)) for task in tasks]


def tasks() -> list[Task]:
    return [made_task(kind=0, seed=1), made_task(kind=5, seed=2, classes=4), made_task(kind=7, seed=3, classes=2)]


def pixels(split: Split) -> Tensor:
    """The features of a split, with ImageNet's normalization."""
    return normalize(split.images, IMAGENET).flatten(1).double()


def test_ncm_is_a_plain_loop() -> None:
    method, task = NCM(NCMSettings(extractor="pixels")), made_task(train=5)
    learn(method, [task])
    features, labels = pixels(task.train), task.train.labels
    logits = method.logits(task.test.images, 0)
    cosines = torch.zeros(len(task.test.images), 3, dtype=torch.float64)
    for row, one in enumerate(pixels(task.test)):
        for label in range(3):
            mean = sum(features[place] for place in range(len(features)) if labels[place] == label) / 5
            cosines[row, label] = (one @ mean) / (one.norm() * mean.norm())
    scale = method.heads[0].scale.item()
    assert scale in SCALES
    torch.testing.assert_close(logits.double() / scale, cosines, rtol=1e-4, atol=1e-5)


def ridge_by_hand(features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    return torch.linalg.solve(features.T @ features + penalty * torch.eye(features.shape[1]).double(), features.T @ targets)


def projected(split: Split, seed: int = 0) -> Tensor:
    projection = torch.randn(192, 40, generator=torch.Generator().manual_seed(seed)).double()
    return (pixels(split) @ projection).clamp_min(0)


def test_ranpac_is_a_ridge_regression_of_random_features() -> None:
    method, task = RanPAC(RANPAC), made_task()
    (record,) = learn(method, [task], seed=3)
    targets, wanted = torch.eye(3).double(), {}
    for penalty in RIDGES[4:]:
        weight = ridge_by_hand(projected(task.train, 3), targets[task.train.labels], penalty)
        wanted[penalty] = (projected(task.valid, 3) @ weight - targets[task.valid.labels]).square().mean().item()
    penalty = record.hyperparameters["penalty"]
    assert penalty == min(wanted, key=wanted.__getitem__)
    scores = projected(task.test, 3) @ ridge_by_hand(projected(task.train, 3), targets[task.train.labels], penalty)
    torch.testing.assert_close(method.logits(task.test.images, 0).double() / method.scales[0], scores, rtol=1e-3, atol=1e-4)


def test_refitting_takes_the_validation_images_too() -> None:
    method, task = RanPAC(replace(RANPAC, refit=True)), made_task()
    (record,) = learn(method, [task])
    both = torch.cat([projected(task.train), projected(task.valid)])
    targets = torch.eye(3).double()[torch.cat([task.train.labels, task.valid.labels])]
    scores = projected(task.test) @ ridge_by_hand(both, targets, record.hyperparameters["penalty"])
    torch.testing.assert_close(method.logits(task.test.images, 0).double() / method.scales[0], scores, rtol=1e-3, atol=1e-4)


def test_common_statistics_are_one_regression_over_all_tasks() -> None:
    """Whose targets are one-hot over the classes of all tasks, and whose penalty is the last task's."""
    method, three = RanPAC(COMMON), tasks()
    records = learn(method, three)
    features = torch.cat([projected(task.train) for task in three])
    offsets, classes = [0, 3, 7], 9
    targets = torch.eye(classes).double()[torch.cat([task.train.labels + by for task, by in zip(three, offsets, strict=True)])]
    weight = ridge_by_hand(features, targets, records[-1].hyperparameters["penalty"])
    for index, task in enumerate(three):
        columns = slice(offsets[index], offsets[index] + len(task.classes))
        scores = projected(task.test) @ weight[:, columns]
        torch.testing.assert_close(method.logits(task.test.images, index).double() / method.scales[index], scores, rtol=1e-3, atol=1e-4)


def test_common_statistics_do_not_depend_on_the_order_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifelong.methods.ranpac.choose_ridge", lambda train, valid: 100.0)
    forth, back, three = RanPAC(COMMON), RanPAC(COMMON), tasks()
    learn(forth, three)
    learn(back, three[::-1])
    for index, task in enumerate(three):
        torch.testing.assert_close(forth.logits(task.test.images, index), back.logits(task.test.images, 2 - index), rtol=1e-4, atol=1e-4)


def test_with_common_statistics_the_scores_of_all_classes_tell_the_task() -> None:
    method, three = RanPAC(COMMON), tasks()
    learn(method, three)
    images = torch.cat([task.test.images for task in three])
    found = method.recognize(images)
    whole = torch.cat([method.logits(images, index) for index in range(3)], dim=1).softmax(dim=1)
    wanted = torch.stack([whole[:, :3].sum(1), whole[:, 3:7].sum(1), whole[:, 7:].sum(1)], dim=1)
    torch.testing.assert_close(found.probabilities, wanted, rtol=1e-4, atol=1e-5)
    truth = torch.arange(3).repeat_interleave(torch.tensor([len(task.test.images) for task in three]))
    assert (found.probabilities.argmax(dim=1) == truth).float().mean() > 0.8


@pytest.mark.parametrize("name", [name for name in MAKE if "common" not in name])
def test_no_answer_is_changed_by_a_later_task(name: str) -> None:
    """To the bit: AF is 0 by construction."""
    method, (first, *later) = MAKE[name](), tasks()
    learn(method, [first])
    before = method.logits(first.test.images, 0)
    learn(method, later)
    assert torch.equal(method.logits(first.test.images, 0), before)


@pytest.mark.parametrize("name", MAKE)
def test_they_learn_and_tell_tasks_apart(name: str) -> None:
    method, three = MAKE[name](), tasks()
    records = learn(method, three)
    for index, task in enumerate(three):
        right = method.logits(task.test.images, index).argmax(dim=1) == task.test.labels
        assert right.float().mean() > 0.9
        told = method.task_probabilities(task.test.images).argmax(dim=1) == index
        assert told.float().mean() > 0.7 if name == "ranpac, common" else told.all()
    assert method.strangeness(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).item() > 1
    assert all(record.frozen and record.epochs == 0 for record in records)
    assert sum(record.parameters_added for record in records) == method.num_parameters()


@pytest.mark.parametrize("name", MAKE)
def test_prepared_images_are_answered_as_raw_ones(name: str) -> None:
    """`predict` gets images with the normalization of their task, whatever that is; an export calls it."""
    method, task = MAKE[name](), made_task()
    task = replace_normalization(task, Normalization((0.1, 0.6, 0.3), (0.9, 0.2, 0.4)))
    learn(method, [task])
    images = task.test.images
    with torch.no_grad():
        found = method.predict(normalize(images, task.normalization), 0)
    torch.testing.assert_close(found, method.logits(images, 0), rtol=1e-4, atol=1e-4)


def replace_normalization(task: Task, normalization: Normalization) -> Task:
    return Task(task.name, task.classes, lambda split: getattr(task, split), normalization=normalization)


@pytest.mark.parametrize("name", MAKE)
def test_a_task_without_validation_images(name: str) -> None:
    method, task = MAKE[name](), made_task(valid=0)
    if name == "par, heads":  # distances are measured on validation images unless told otherwise
        method = make_par(replace(HEADS, feature_split="train"))
    learn(method, [task])
    assert (method.logits(task.test.images, 0).argmax(dim=1) == task.test.labels).float().mean() > 0.9


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("valid", [0, 1])
def test_a_task_of_one_class_of_one_image(name: str, valid: int) -> None:
    method = MAKE[name]() if name != "par, heads" or valid else make_par(replace(HEADS, feature_split="train"))
    learn(method, [made_task(classes=1, train=1, valid=valid), made_task(kind=3, seed=4)])
    logits = method.logits(made_task().test.images, 0)
    assert logits.shape == (24, 1)
    assert bool(logits.isfinite().all())


def sized_task(size: int) -> Task:
    return Task(f"of {size}", ["a", "b", "c"], lambda split: made_split(3, 8, len(split), kind=size, size=size))


@pytest.mark.parametrize("name", [name for name in MAKE if "fecam" not in name])  # whose covariance of 3,072 pixels takes seconds
def test_tasks_of_several_image_sizes(name: str) -> None:
    """With a size for the network, or a network that pools; raw pixels of several sizes cannot be compared."""
    method = MAKE[name]()
    resized = type(method)(replace(method.settings, feature_size="32"))
    both = [sized_task(8), sized_task(12)]
    learn(resized, both)
    for index, task in enumerate(both):
        assert (resized.logits(task.test.images, index).argmax(dim=1) == task.test.labels).float().mean() > 0.8
    with pytest.raises(LifelongError, match=r"features of length 432, the tasks before it 192.*one image size"):
        learn(method, both)


@pytest.mark.parametrize("name", ["ncm", "linear-probe", "ranpac", "fecam"])
def test_several_sizes_with_a_network_that_pools(name: str) -> None:
    method = MAKE[name]()
    network = type(method)(replace(method.settings, extractor="resnet18", feature_stages=("layer1", "layer3")))
    both = [sized_task(8), sized_task(12)]
    learn(network, both)
    assert [network.logits(task.test.images, index).shape for index, task in enumerate(both)] == [(24, 3), (24, 3)]
    assert network.bank[0].means.shape[1] == 64 + 256


@pytest.mark.parametrize("name", MAKE)
def test_a_state_goes_through_a_file_and_needs_no_weights(name: str, tmp_path: Path) -> None:
    """The network is in the state: what was learned answers, and learns on, without the file its weights came from."""
    made = MAKE[name]()
    method, again = (type(made)(replace(made.settings, extractor="resnet18")) for _ in range(2))
    first, second = made_task(seed=1), made_task(kind=5, seed=2)
    learn(method, [first])
    save_tree(tmp_path / "state", method.state_dict())
    again.load_state_dict(load_tree(tmp_path / "state"))
    assert again.extractor() is None
    assert torch.equal(again.logits(first.test.images, 0), method.logits(first.test.images, 0))
    again.learn(second, context(1, open_extractor=None))
    learn(method, [second])
    for index in range(2):
        assert torch.equal(again.logits(first.test.images, index), method.logits(first.test.images, index))
    assert again.memory() == method.memory()
    assert again.num_parameters() == method.num_parameters() > 2_782_784


@pytest.mark.parametrize("name", ["ncm", "linear-probe", "ranpac", "fecam"])
def test_an_unknown_stage_is_one_line(name: str) -> None:
    made = MAKE[name]()
    with pytest.raises(LifelongError, match=r"^feature_stages: the extractor 'pixels' has no stage 'layer2'; it names no stages$"):
        learn(type(made)(replace(made.settings, feature_stages=("layer2",))), [made_task()])
    with pytest.raises(LifelongError, match=r"^feature_stages: .*'resnet18' has no stage 'layer4'; it has layer1, layer2, layer3$"):
        learn(type(made)(replace(made.settings, extractor="resnet18", feature_stages=("layer4",))), [made_task()])


def test_a_probe_without_penalties_is_one_line() -> None:
    with pytest.raises(LifelongError, match="probe_penalties is empty; give at least one penalty"):
        learn(LinearProbe(replace(PROBE, probe_penalties=())), [made_task()])


def test_no_projection_is_a_ridge_regression_of_the_features() -> None:
    method, task = RanPAC(replace(RANPAC, random_features=0)), made_task()
    (record,) = learn(method, [task])
    weight = ridge_by_hand(pixels(task.train), torch.eye(3).double()[task.train.labels], record.hyperparameters["penalty"])
    found = method.logits(task.test.images, 0).double() / method.scales[0]
    torch.testing.assert_close(found, pixels(task.test) @ weight, rtol=1e-3, atol=1e-4)


def test_heads_are_fitted_to_copies_and_the_task_is_told_by_the_images_alone() -> None:
    plain, copied = (NCM(NCMSettings(extractor="pixels", feature_copies=copies)) for copies in (0, 2))
    task = made_task(train=5, augmentation=Augmentation(flip=True))
    learn(plain, [task])
    learn(copied, [task])
    images, labels = torch.cat([task.train.images, task.train.images.flip(3)]), task.train.labels.repeat(2)
    features = normalize(images, IMAGENET).flatten(1).double()
    wanted = torch.stack([features[labels == label].mean(0) for label in range(3)])
    torch.testing.assert_close(copied.heads[0].weight.double(), wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(plain.heads[0].weight.double(), wanted, rtol=1e-2, atol=1e-2)
    assert torch.equal(copied.bank[0].means, plain.bank[0].means)
    assert copied.recognition.spreads == plain.recognition.spreads


@pytest.mark.parametrize(
    "make", [lambda settings: NCM(NCMSettings(**settings)), lambda settings: make_par(PARSettings(expert="head", **settings))]
)
def test_features_in_half_precision_also_after_loading(make: Callable[[dict], Method]) -> None:
    plain, method, again = (make({"extractor": "resnet18", "feature_precision": how}) for how in ("float32", "half", "half"))
    task = made_task()
    for each in (plain, method):
        learn(each, [task])
    again.load_state_dict(method.state_dict())
    exact, images = plain.frozen.features(task.test.images), task.test.images
    for each in (method, again):
        assert torch.equal(each.frozen.features(images), exact.half().float())
    assert not torch.equal(exact.half().float(), exact)
