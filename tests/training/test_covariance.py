"""Covariances of features: by hand, and against NumPy's and plain inverses."""

import numpy as np
import pytest
import torch

from lifelong.training.closed_form import Rows
from lifelong.training.covariance import correlation, distances, factor, scatter_within, shrunk, whitening
from tests.training.test_closed_form import drawn


def test_a_scatter_by_hand() -> None:
    """Two classes of two images: (1, 0) and (3, 4) around (2, 2); (5, 5) and (5, 7) around (5, 6); an empty class counts nothing."""
    features = torch.tensor([[1.0, 0.0], [5.0, 5.0], [3.0, 4.0], [5.0, 7.0]], dtype=torch.float64)
    found = scatter_within(Rows(features, torch.tensor([0, 2, 0, 2]), 3))
    assert found.matrix.tolist() == [[2.0, 4.0], [4.0, 10.0]]
    assert found.degrees == 2
    assert found.covariance.tolist() == [[1.0, 2.0], [2.0, 5.0]]


def test_a_class_of_its_own_has_numpys_covariance() -> None:
    rows = drawn(20, 4, classes=1)
    np.testing.assert_allclose(scatter_within(rows).covariance, np.cov(rows.features.numpy().T), rtol=1e-12)


def test_scatters_of_tasks_add_up_to_that_of_all_their_classes() -> None:
    one, two = drawn(20, 4, seed=1), drawn(15, 4, seed=2)
    both = Rows(torch.cat([one.features, two.features]), torch.cat([one.labels, two.labels + 3]), 6)
    summed, at_once = scatter_within(one) + scatter_within(two), scatter_within(both)
    torch.testing.assert_close(summed.matrix, at_once.matrix, rtol=1e-12, atol=1e-12)
    assert summed.degrees == at_once.degrees == 29


def test_shrinkage_by_hand() -> None:
    """The mean variance is 3, the mean covariance 2: half of each is added."""
    covariance = torch.tensor([[1.0, 2.0], [2.0, 5.0]], dtype=torch.float64)
    assert shrunk(covariance, 0.5).tolist() == [[2.5, 3.0], [3.0, 6.5]]
    found = correlation(shrunk(covariance, 0.5))
    assert found[0, 1].item() == pytest.approx(3 / (2.5 * 6.5) ** 0.5)
    assert found.diagonal().tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("shrinkage", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("images", [1, 2, 5, 40])
def test_few_images_still_have_distances(images: int, shrinkage: float) -> None:
    """Of 12 features, one of which is always zero: with less than 13 images the covariance itself has no inverse."""
    rows = drawn(images, 12, classes=1)
    rows.features[:, 3] = 0
    found = correlation(shrunk(scatter_within(rows).covariance, shrinkage))
    wanted = torch.linalg.inv(found)
    mapped = whitening(factor(found))
    torch.testing.assert_close(mapped.T @ mapped, wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(mapped, mapped.tril())


def test_a_single_feature_has_no_other_to_correlate_with() -> None:
    assert correlation(shrunk(torch.tensor([[4.0]], dtype=torch.float64), 1.0)).item() == pytest.approx(1)


@pytest.mark.parametrize("own", [True, False])
def test_distances_are_those_of_the_inverse(own: bool) -> None:
    rows, count = drawn(40, 5), 3 if own else 1
    matrices = [correlation(shrunk(scatter_within(drawn(30, 5, seed=place)).covariance, 0.1)) for place in range(count)]
    means = drawn(3, 5, seed=7).features
    found = distances(rows.features, means, [factor(matrix) for matrix in matrices])
    for label in range(3):
        inverse = torch.linalg.inv(matrices[label if own else 0])
        wanted = torch.stack([(row - means[label]) @ inverse @ (row - means[label]) for row in rows.features])
        torch.testing.assert_close(found[:, label], wanted, rtol=1e-9, atol=1e-9)
