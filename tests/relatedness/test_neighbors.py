"""Nearest neighbors against scikit-learn's."""

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from lifelong.relatedness.neighbors import nearest_labels


@pytest.mark.parametrize(("points", "neighbors"), [(400, 15), (400, 1), (60, 4), (15, 15)])
def test_as_scikit_learn(points: int, neighbors: int) -> None:
    """Overlapping classes, so that votes are split and, with an even number, tied; far from the origin, where digits get lost."""
    generator = torch.Generator().manual_seed(points + neighbors)
    labels = torch.randint(0, 5, (points,), generator=generator)
    features = labels[:, None] * 0.5 + torch.randn(points, 8, generator=generator) + 300
    queries = 2.5 * torch.rand(700, 1, generator=generator) + torch.randn(700, 8, generator=generator) + 300
    theirs = KNeighborsClassifier(n_neighbors=neighbors).fit(features.double().numpy(), labels.numpy()).predict(queries.double().numpy())
    assert torch.equal(nearest_labels(features, labels, queries, neighbors), torch.from_numpy(theirs))


def test_a_tied_vote_goes_to_the_smallest_label() -> None:
    features = torch.tensor([[0.0], [1.0], [2.0], [3.0], [50.0]])
    labels = torch.tensor([4, 1, 4, 1, 0])
    assert nearest_labels(features, labels, torch.tensor([[1.4]]), 4).tolist() == [1]
    assert nearest_labels(features, labels, torch.tensor([[1.4]]), 1).tolist() == [1]
    assert nearest_labels(features, labels, torch.tensor([[0.4]]), 3).tolist() == [4]


def test_fewer_points_than_neighbors_all_vote() -> None:
    features, labels = torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([0, 2, 2])
    assert nearest_labels(features, labels, torch.tensor([[0.0]]), 15).tolist() == [2]
