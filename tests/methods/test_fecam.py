"""FeCAM: held against a slow plain version; what a common covariance shares; where features are raised to a power."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lifelong.data.augment import normalize
from lifelong.data.task import IMAGENET, Split, Task
from lifelong.errors import LifelongError
from lifelong.methods.fecam import FeCAM
from lifelong.networks.pretrained import MahalanobisHead, mahalanobis
from lifelong.settings.pretrained import FeCAMSettings
from lifelong.training.closed_form import SCALES
from tests.made import made_task
from tests.methods.test_floors import FECAM, ONE_COVARIANCE, learn, pixels, random_resnet18, tasks

ON_RESNET = replace(FECAM, extractor="resnet18")
SHRINKAGES = (10.0, 1.0, 0.1)


def resnet_features(split: Split) -> Tensor:
    """The features of a split by the network that `ON_RESNET` gets."""
    with torch.no_grad():
        return random_resnet18().eval()(normalize(split.images, IMAGENET)).double()


def plain_distances(train: Tensor, labels: Tensor, asked: Tensor, shrinkage: float, power: float, *, by_class: bool) -> Tensor:
    """Loops over features, images and classes, with an inverse."""
    classes, size = int(labels.max()) + 1, train.shape[1]
    raised, found = train.sign() * train.abs() ** power, torch.zeros(len(asked), classes, dtype=torch.float64)
    scatters, sizes = [], []
    for label in range(classes):
        mine = raised[labels == label]
        scatters.append(sum(torch.outer(row - mine.mean(0), row - mine.mean(0)) for row in mine))
        sizes.append(len(mine) - 1)
    for label in range(classes):
        covariance = scatters[label] / sizes[label] if by_class else sum(scatters) / sum(sizes)
        variance = covariance.trace() / size
        between = (covariance.sum() - covariance.trace()) / (size * (size - 1))
        target = torch.full((size, size), float(between), dtype=torch.float64).fill_diagonal_(float(variance))
        shrunken = covariance + shrinkage * target
        deviations = shrunken.diagonal() ** 0.5
        inverse = torch.linalg.inv(shrunken / torch.outer(deviations, deviations))
        mean = train[labels == label].mean(0)
        mean = mean.sign() * mean.abs() ** power
        for place, image in enumerate(asked):
            image = image.sign() * image.abs() ** power
            difference = image / image.norm() - mean / mean.norm()
            found[place, label] = difference @ inverse @ difference
    return found


@pytest.mark.parametrize("covariance", ["task", "class"])
@pytest.mark.parametrize(("settings", "features", "power"), [(FECAM, pixels, 1.0), (ON_RESNET, resnet_features, 0.5)])
def test_it_is_a_plain_loop(settings: FeCAMSettings, features, power: float, covariance: str) -> None:
    """Pixels in ImageNet's normalization have both signs and stay as they are; features of a ResNet are raised to the power 1/2."""
    method, task = FeCAM(replace(settings, covariance=covariance, shrinkages=(1.0,))), made_task(train=5)
    (record,) = learn(method, [task])
    assert record.hyperparameters["shrinkage"] == 1
    assert method.power == power
    by_class = covariance == "class"
    wanted = plain_distances(features(task.train), task.train.labels, features(task.test), 1.0, power, by_class=by_class)
    scale = method.heads[0].scale.item()
    assert scale in [pytest.approx(each) for each in SCALES]
    torch.testing.assert_close(-method.logits(task.test.images, 0).double() / scale, wanted, rtol=1e-3, atol=1e-5)


def test_the_shrinkage_is_the_best_on_validation_images() -> None:
    """By the cross-entropy of the best scale."""
    method, task = FeCAM(replace(FECAM, shrinkages=SHRINKAGES)), noisy_task()
    (record,) = learn(method, [task])
    losses = {}
    for shrinkage in SHRINKAGES:
        distances = plain_distances(pixels(task.train), task.train.labels, pixels(task.valid), shrinkage, 1.0, by_class=False)
        losses[shrinkage] = min(torch.nn.functional.cross_entropy(-scale * distances, task.valid.labels).item() for scale in SCALES)
    assert record.hyperparameters["shrinkage"] == min(losses, key=losses.__getitem__)
    assert max(losses.values()) > 1.02 * min(losses.values())


def noisy_task() -> Task:
    """A task whose classes overlap, so that the shrinkage matters."""
    clear, noise = made_task(train=10), torch.Generator().manual_seed(0)

    def noisy(split: Split) -> Split:
        drawn = torch.randint(0, 224, split.images.shape, generator=noise)
        return Split((split.images // 8 + drawn).to(torch.uint8), split.labels)

    parts = {"train": noisy(clear.train), "valid": noisy(clear.valid), "test": noisy(clear.test)}
    return Task(clear.name, clear.classes, parts.__getitem__, normalization=clear.normalization)


def test_a_common_covariance_is_that_within_all_classes_in_any_order() -> None:
    three = tasks()
    forth, back = (FeCAM(replace(ONE_COVARIANCE, shrinkages=(1.0,))) for _ in range(2))
    learn(forth, three)
    learn(back, three[::-1])
    features, offsets = torch.cat([pixels(task.train) for task in three]), (0, 3, 7)
    labels = torch.cat([task.train.labels + by for task, by in zip(three, offsets, strict=True)])
    for index, task in enumerate(three):
        columns = slice(offsets[index], offsets[index] + len(task.classes))
        wanted = plain_distances(features, labels, pixels(task.test), 1.0, 1.0, by_class=False)[:, columns]
        for method, place in ((forth, index), (back, 2 - index)):
            scale = method.heads[place].scale.item()
            torch.testing.assert_close(-method.logits(task.test.images, place).double() / scale, wanted, rtol=1e-3, atol=1e-5)


def test_a_common_covariance_is_counted_and_saved_once() -> None:
    method = FeCAM(ONE_COVARIANCE)
    learn(method, tasks())
    classes, size = 9, 192
    assert method.num_parameters() == size * size + classes * size + 3
    assert method.memory()["statistics"] == 8 * size * size + 8
    state = method.state_dict()
    assert [sorted(head) for head in state["heads"]] == [["mean", "scale"]] * 3
    again = FeCAM(ONE_COVARIANCE)
    again.load_state_dict(state)
    assert again.num_parameters() == method.num_parameters()
    assert again.heads[0].whitening is again.heads[2].whitening


@pytest.mark.parametrize(("covariance", "maps"), [("task", 1), ("class", 3)])
def test_bytes_in_all_count_a_covariance_for_each(covariance: str, maps: int) -> None:
    method = FeCAM(replace(FECAM, covariance=covariance))
    learn(method, [made_task()])
    parameters = maps * 192 * 192 + 3 * 192 + 1
    assert method.num_parameters() == parameters
    assert method.bytes_in_all() == 4 * parameters + sum(method.memory().values())


def test_distances_by_hand() -> None:
    """W = [[2, 0], [1, 1]] and the mean (1, 1): (2, 1) lies at |(2, 1)|^2 = 5 and (1, 3) at |(0, 2)|^2 = 4."""
    whitening, features = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    for maps in (whitening[None], torch.stack([whitening, torch.eye(2)])):
        means = torch.ones(len(maps), 2)
        found = mahalanobis(features, means, maps)
        assert found[:, 0].tolist() == [5.0, 4.0]
    assert found[:, 1].tolist() == [1.0, 4.0]


def test_a_head_by_hand() -> None:
    """Of (9, 16) the roots are (3, 4), of length 5: x = (0.6, 0.8), and the distance from (1, 0) is 0.16 + 0.64."""
    head = MahalanobisHead(2, 1, own=False, power=0.5)
    with torch.no_grad():
        head.whitening.copy_(torch.eye(2))
        head.mean.copy_(torch.tensor([[1.0, 0.0]]))
        head.scale.fill_(10)
        assert head(torch.tensor([[9.0, 16.0]])).item() == pytest.approx(-8)
        assert head(torch.tensor([[9.0, -16.0], [0.0, 0.0]])).flatten().tolist() == pytest.approx([-8, -10])


def test_no_shrinkages_are_one_line() -> None:
    with pytest.raises(LifelongError, match=r"^shrinkages is empty; give at least one, such as 1$"):
        learn(FeCAM(replace(FECAM, shrinkages=())), [made_task()])
