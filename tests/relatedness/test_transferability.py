"""LEEP, LogME and the H-score: against slow plain versions, scikit-learn, direct maximization, and their known bounds."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf

from lifelong.relatedness.transferability import (
    evidence,
    h_score,
    h_score_distance,
    ledoit_wolf,
    leep,
    leep_distance,
    logme,
    logme_distance,
)

DISTANCES = [h_score_distance, logme_distance, leep_distance]


def drawn(seed=0, n=200, length=12, classes=4, apart=1.0):
    """Features of Gaussian classes, `apart` of which is between the classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = apart * torch.randn(classes, length, generator=generator)
    return (centres[labels] + torch.randn(n, length, generator=generator)).double(), labels


def answers(features):
    """What a head that was trained on something else might say: six outputs."""
    weights = torch.randn(features.shape[1], 6, generator=torch.Generator().manual_seed(9)).double()
    return (features @ weights).log_softmax(1)


def given(distance, features):
    """What a distance is computed from."""
    return answers(features) if distance is leep_distance else features


def test_leep_is_as_it_is_written():
    features, labels = drawn(n=40)
    theta = answers(features).exp().numpy()
    n, total = len(theta), 0.0
    for i in range(n):
        likelihood = 0.0
        for z in range(theta.shape[1]):
            joint = sum(theta[j, z] for j in range(n) if labels[j] == labels[i]) / n
            likelihood += joint / (sum(theta[j, z] for j in range(n)) / n) * theta[i, z]
        total += math.log(likelihood)
    assert leep(torch.tensor(theta).log(), labels, 4) == pytest.approx(total / n, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_leep_lies_between_minus_the_entropy_and_zero(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (30,), generator=generator)
    sharp = 10.0 ** (seed % 4 - 1)
    log_theta = (sharp * torch.randn(30, 1 + seed % 7, generator=generator)).double().log_softmax(1)
    share = torch.bincount(labels).double() / 30
    entropy = -(share[share > 0] * share[share > 0].log()).sum().item()
    assert -entropy - 1e-12 <= leep(log_theta, labels, 5) <= 1e-12


def test_leep_of_a_head_that_knows_and_of_one_that_says_always_the_same():
    labels = torch.arange(12) % 3
    knows = torch.full((12, 3), -math.inf).double()
    knows[torch.arange(12), (labels + 1) % 3] = 0  # in its own order of classes
    assert leep(knows, labels, 3) == pytest.approx(0, abs=1e-12)
    assert leep_distance(knows, labels, 3) == pytest.approx(0, abs=1e-12)
    constant = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log().expand(12, 3)
    assert leep(constant, labels, 3) == pytest.approx(-math.log(3), abs=1e-12)
    assert leep_distance(constant, labels, 3) == pytest.approx(1, abs=1e-6)


def test_an_output_that_is_never_given_changes_nothing():
    features, labels = drawn(n=40)
    log_theta = answers(features)
    with_silent = torch.cat([log_theta, torch.full((40, 1), -math.inf).double()], dim=1)
    assert leep(with_silent, labels, 4) == pytest.approx(leep(log_theta, labels, 4), abs=1e-12)


@pytest.mark.parametrize(("n", "length"), [(60, 8), (30, 50)])
def test_the_evidence_is_that_of_the_gaussian_and_the_largest(n, length):
    # t = F w + noise is Gaussian with covariance F F' / alpha + I / beta: maximized here without any decomposition.
    features, labels = drawn(n=n, length=length)
    target = (labels == 0).double()
    matrix, t = features.numpy(), target.numpy()

    def negative(logs):
        covariance = matrix @ matrix.T / math.exp(logs[0]) + np.eye(n) / math.exp(logs[1])
        _, determinant = np.linalg.slogdet(covariance)
        return (n * math.log(2 * math.pi) + determinant + t @ np.linalg.solve(covariance, t)) / (2 * n)

    best = -min(minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}).fun for start in ((0, 0), (3, 1)))
    left, singular, _ = torch.linalg.svd(features, full_matrices=False)
    found = evidence(left[:, singular > 1e-9], singular[singular > 1e-9].square(), target[:, None]).item()
    assert found == pytest.approx(best, abs=2e-3)
    assert found <= best + 1e-6


def test_logme_is_the_mean_over_classes_of_the_evidence_with_a_constant_feature():
    features, labels = drawn(n=60, length=5)
    scaled = torch.cat([features / features.square().mean().sqrt(), torch.ones(60, 1).double()], dim=1)
    left, singular, _ = torch.linalg.svd(scaled, full_matrices=False)
    each = [evidence(left, singular.square(), (labels == c).double()[:, None]).item() for c in range(4)]
    # The rounds end when every class has settled: some classes get more of them than alone.
    assert logme(features, labels, 4) == pytest.approx(sum(each) / 4, abs=1e-6)
    assert logme(features, labels, 6) == pytest.approx(sum(each) / 4, abs=1e-6)  # two classes without images


def test_logme_of_noise_is_that_of_the_class_frequencies():
    features, labels = drawn(n=2000, length=4, classes=10, apart=0)
    null = -0.5 * math.log(2 * math.pi * math.e * 0.1 * 0.9)
    assert null - 0.06 < logme(features, labels, 10) < null


@pytest.mark.parametrize("shape", [(20, 50), (100, 30), (500, 5)])
def test_the_shrinkage_is_that_of_scikit_learn(shape):
    samples = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double() * torch.arange(1, shape[1] + 1)
    centred = samples - samples.mean(dim=0)
    assert ledoit_wolf(centred) == pytest.approx(LedoitWolf().fit(samples.numpy()).shrinkage_, abs=1e-12)


def test_the_h_score_is_as_it_is_written():
    features, labels = drawn(n=60, length=5)
    x = features.numpy()
    rows = np.stack([x[labels.numpy() == c].mean(axis=0) for c in labels])
    estimator = LedoitWolf().fit(x)
    shrunk = (1 - estimator.shrinkage_) * np.trace(np.linalg.solve(estimator.covariance_, np.cov(rows.T, bias=True)))
    assert h_score(features, labels, 4) == pytest.approx(shrunk, abs=1e-10)
    raw = np.trace(np.linalg.solve(np.cov(x.T), np.cov(rows.T)))
    assert h_score(features, labels, 4, shrinkage=0.0) == pytest.approx(raw, abs=1e-10)


def test_the_first_h_score_of_noise_is_far_from_zero_and_the_shrunk_one_is_not():
    n, length, classes = 300, 128, 10
    found, corrected = [], []
    for seed in range(3):
        features, labels = drawn(seed, n, length, classes, apart=0)
        found.append(h_score(features, labels, classes, shrinkage=0.0))
        corrected.append(h_score(features, labels, classes))
    assert np.mean(found) == pytest.approx(length * (classes - 1) / (n - 1), rel=0.05)
    assert max(corrected) < 0.05 * (classes - 1)


@pytest.mark.parametrize("distance", DISTANCES)
class TestDistance:
    """What every distance must hold to."""

    def test_separable_classes_are_near_and_permuted_labels_far(self, distance):
        features, labels = drawn(apart=8.0)
        if distance is leep_distance:
            log_theta = torch.nn.functional.one_hot(labels, 6).double().mul(9).log_softmax(1)
            assert distance(log_theta, labels, 4) < 0.02
        else:
            assert distance(features, labels, 4) < 0.05
        permuted = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]
        assert distance(given(distance, features), permuted, 4) > 0.95

    def test_it_grows_as_classes_come_closer(self, distance):
        found = [distance(given(distance, features), labels, 4) for features, labels in (drawn(apart=a) for a in (3.0, 1.0, 0.5, 0.0))]
        assert all(near < far for near, far in itertools.pairwise(found))
        assert found[0] >= 0
        assert found[-1] <= 1

    def test_half_of_the_images_give_about_the_same(self, distance):
        features, labels = drawn(n=400)
        whole = distance(given(distance, features), labels, 4)
        assert distance(given(distance, features[:200]), labels[:200], 4) == pytest.approx(whole, abs=0.1)

    def test_the_order_of_classes_does_not_matter(self, distance):
        features, labels = drawn()
        inputs = given(distance, features)
        swapped = torch.tensor([2, 0, 3, 1])[labels]
        assert distance(inputs, swapped, 4) == pytest.approx(distance(inputs, labels, 4), abs=1e-9)

    def test_neither_rotation_nor_unit_of_the_features_matters(self, distance):
        if distance is leep_distance:
            pytest.skip("LEEP sees no features")
        features, labels = drawn()
        rotation = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(2)).double()).Q
        assert distance(1000 * features @ rotation, labels, 4) == pytest.approx(distance(features, labels, 4), abs=1e-9)

    def test_one_class_has_nothing_to_tell_apart(self, distance):
        features, _ = drawn(n=20)
        assert distance(given(distance, features), torch.zeros(20, dtype=torch.int64), 4) == 0

    def test_features_without_any_information_are_far(self, distance):
        features, labels = torch.zeros(40, 3).double(), torch.arange(40) % 4
        assert distance(features.log_softmax(1) if distance is leep_distance else features, labels, 4) == pytest.approx(1, abs=1e-9)

    def test_fewer_images_than_features(self, distance):
        features, labels = drawn(n=24, length=100, apart=0)
        assert distance(given(distance, features), labels, 4) > 0.7
