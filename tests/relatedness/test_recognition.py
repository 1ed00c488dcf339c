"""Telling tasks apart by prototypes, against plain computations and on made clouds."""

import pytest
import torch

from lifelong.data.task import Normalization
from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.extractor import PixelExtractor
from lifelong.relatedness.recognition import Recognition, Spread, measure_spread

PLAIN = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_spread_leaves_each_image_out_of_its_prototype():
    torch.manual_seed(0)
    features, labels = torch.randn(23, 4), torch.arange(23) % 3
    spread = measure_spread(features, labels, prototypes(features, labels, 3), PLAIN)
    nearest = []
    for index in range(23):
        kept = torch.arange(23) != index
        means = [features[kept & (labels == c)].double().mean(dim=0) for c in range(3)]
        nearest.append(min(float((features[index].double() - mean).square().sum()) for mean in means))
    plain = torch.tensor(nearest, dtype=torch.float64)
    assert spread.mean == pytest.approx(plain.mean().item())
    assert spread.variance == pytest.approx(plain.var(correction=0).item())
    assert spread.limit == pytest.approx(plain.quantile(0.95).item())


def test_the_only_image_of_a_class_is_measured_by_the_others():
    features = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0]])
    labels = torch.tensor([0, 1, 1])
    spread = measure_spread(features, labels, prototypes(features, labels, 3), PLAIN)  # class 2 has no image
    # From (0, 0) to the mean (4, 1); the others lie 1 from their mean, and 2 without themselves.
    assert spread.mean == pytest.approx((17 + 4 + 4) / 3)


def test_a_single_image():
    features, labels = torch.tensor([[3.0, 4.0]]), torch.tensor([1])
    spread = measure_spread(features, labels, prototypes(features, labels, 2), PLAIN)
    assert spread.mean == spread.limit == 25
    assert spread.variance == 0


def test_equal_images():
    features, labels = torch.ones(6, 2), torch.arange(6) % 2
    spread = measure_spread(features, labels, prototypes(features, labels, 2), PLAIN)
    probabilities = Recognition([spread, spread]).probabilities(torch.zeros(1, 2, dtype=torch.float64))
    assert probabilities.tolist() == [[0.5, 0.5]]
    assert Recognition([spread]).strangeness(torch.zeros(1, 1, dtype=torch.float64)).tolist() == [0.0]


def test_dimensions_of_a_gaussian():
    """The squared length of a Gaussian vector in k dimensions has a variance of 2 / k of its squared mean."""
    torch.manual_seed(1)
    features, labels = torch.randn(20_000, 12), torch.zeros(20_000, dtype=torch.int64)
    assert measure_spread(features, labels, prototypes(features, labels, 1), PLAIN).dimensions == pytest.approx(12, rel=0.05)


def test_probabilities_by_hand():
    recognition = Recognition([Spread(4.0, 4.0, 9.0, PLAIN), Spread(1.0, 0.5, 4.0, PLAIN)])  # 8 and 4 dimensions; the lower median
    squares = torch.tensor([[4.0, 4.0]], dtype=torch.float64)
    weights = torch.tensor([-2.0 * 1 - 2 * torch.tensor(4.0).log(), -2.0 * 4], dtype=torch.float64)
    torch.testing.assert_close(recognition.probabilities(squares)[0], weights.softmax(dim=0).float())
    torch.testing.assert_close(recognition.strangeness(squares), torch.tensor([2 / 3]))


def clouds(colour, n, seed):
    noise = torch.randint(-20, 21, (n, 3, 4, 4), generator=torch.Generator().manual_seed(seed))
    return (torch.tensor(colour)[None, :, None, None] + noise).clamp(0, 255).to(torch.uint8)


def test_clouds_of_two_colours_and_a_third():
    """Nearly all images find their task; about 5 % of them are flagged as unlike anything learned, and all images of another colour."""
    extractor, bank, recognition = PixelExtractor(), PrototypeBank(), Recognition()
    colours = [(200, 40, 40), (40, 200, 40)]
    for task, colour in enumerate(colours):
        features = extractor.features(clouds(colour, 200, task), PLAIN)
        labels = torch.arange(200) % 2
        bank.add(own := prototypes(features, labels, 2))
        recognition.spreads.append(measure_spread(features, labels, own, PLAIN))
    for task, colour in enumerate(colours):
        squares = recognition.squared_distances(clouds(colour, 400, 10 + task), bank, extractor)
        assert (recognition.probabilities(squares).argmax(dim=1) == task).all()
        assert (recognition.strangeness(squares) > 1).double().mean() == pytest.approx(0.05, abs=0.04)
    squares = recognition.squared_distances(clouds((40, 40, 200), 50, 20), bank, extractor)
    assert (recognition.strangeness(squares) > 1).all()
    again = Recognition.from_state(recognition.state())
    assert torch.equal(again.probabilities(squares), recognition.probabilities(squares))
