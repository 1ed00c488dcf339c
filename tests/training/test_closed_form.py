"""Heads in closed form, held against plain least squares, brute force and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from lifelong.training import closed_form
from lifelong.training.closed_form import Rows, choose_logistic, choose_ridge, exact_rows, logistic, ridge, scale_of, solve_ridge, to_judge


def drawn(n: int, d: int, classes: int = 3, seed: int = 0, spread: float = 1.0) -> Rows:
    """Gaussian classes, every class present."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centers = torch.randn(classes, d, generator=torch.Generator().manual_seed(100), dtype=torch.float64)
    return Rows(spread * centers[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64), labels, classes)


def by_least_squares(rows: Rows, penalty: float) -> Tensor:
    """Ridge regression as ordinary least squares: a row sqrt(penalty) e_i with the target 0 for every feature i."""
    d = rows.features.shape[1]
    features = torch.cat([rows.features, math.sqrt(penalty) * torch.eye(d, dtype=torch.float64)])
    targets = torch.cat([rows.targets, torch.zeros(d, rows.classes, dtype=torch.float64)])
    return torch.linalg.lstsq(features, targets).solution


@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40), (12, 12)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e3])
def test_ridge_is_least_squares_with_rows_for_the_penalty(n: int, d: int, penalty: float) -> None:
    rows = drawn(n, d)
    wanted = by_least_squares(rows, penalty)
    torch.testing.assert_close(ridge(rows, penalty), wanted, rtol=1e-8, atol=1e-10)
    statistics = rows.features.T @ rows.features, rows.features.T @ rows.targets
    torch.testing.assert_close(solve_ridge(*statistics, penalty), wanted, rtol=1e-6, atol=1e-8)


def test_a_penalty_lost_in_rounding_still_gives_a_solution() -> None:
    """Two equal columns: without a penalty that counts, the Gram matrix has no Cholesky factor."""
    rows = drawn(40, 3)
    twice = Rows(1e6 * torch.cat([rows.features, rows.features], dim=1), rows.labels, 3)
    found = ridge(twice, 1e-8)
    wanted = by_least_squares(Rows(1e6 * rows.features, rows.labels, 3), 1e-8)
    torch.testing.assert_close(twice.features @ found, 1e6 * rows.features @ wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 50)])
@pytest.mark.parametrize("seed", range(3))
def test_the_ridge_penalty_is_the_best_of_all(n: int, d: int, seed: int) -> None:
    train, valid = drawn(n, d, seed=seed, spread=0.4), drawn(30, d, seed=seed + 50, spread=0.4)
    errors = [(valid.features @ ridge(train, penalty) - valid.targets).square().mean().item() for penalty in closed_form.RIDGES]
    best = closed_form.RIDGES[int(np.argmin(errors))]
    assert 1e-8 < best < 1e8
    assert choose_ridge(train, valid) == best


def test_of_equal_ridge_penalties_the_largest_wins() -> None:
    """Features that are zero on the validation images make all penalties equal."""
    train = drawn(30, 4)
    assert choose_ridge(train, Rows(torch.zeros(6, 4, dtype=torch.float64), torch.arange(6) % 3, 3)) == closed_form.RIDGES[-1] == 1e8


@pytest.mark.parametrize(("n", "d", "classes"), [(60, 5, 3), (50, 5, 2), (20, 30, 4)])
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_logistic_regression_is_that_of_scikit_learn(n: int, d: int, classes: int, penalty: float) -> None:
    rows, others = drawn(n, d, classes), drawn(17, d, classes, seed=9)
    for part in (rows, others):
        part.features[:, 1] = 7 + 40 * part.features[:, 1]  # so that features without standardization would give something else
    mean, deviation = rows.features.mean(0), rows.features.std(0, correction=0)
    # Its binary form has one weight vector w for our (w/2, -w/2), whose penalty is half of w's.
    model = LogisticRegression(C=(2 if classes == 2 else 1) / (n * penalty), tol=1e-8, max_iter=5000)
    model.fit(((rows.features - mean) / deviation).numpy(), rows.labels.numpy())
    wanted = model.predict_proba(((others.features - mean) / deviation).numpy())
    np.testing.assert_allclose(logistic(rows, penalty)(others.features).softmax(dim=1).numpy(), wanted, atol=1e-3)


def test_the_gradient_of_the_logistic_regression_is_zero() -> None:
    """The optimum by its condition: gradient of the mean cross-entropy plus penalty times weights, on standardized features."""
    rows, penalty = drawn(50, 6), 0.1
    found = logistic(rows, penalty)
    deviation = rows.features.std(0, correction=0)
    inputs = (rows.features - rows.features.mean(0)) / deviation
    wrong = (found(rows.features).softmax(dim=1) - rows.targets) / len(rows)
    assert (inputs.T @ wrong + penalty * found.weight * deviation[:, None]).abs().max() < 1e-4
    assert wrong.sum(dim=0).abs().max() < 1e-4


def test_constant_features_get_no_weight_and_change_nothing() -> None:
    rows = drawn(40, 5)
    constant = torch.full((40, 2), 3.7, dtype=torch.float64)
    found = logistic(Rows(torch.cat([rows.features, constant], dim=1), rows.labels, 3), 0.1)
    assert bool((found.weight[5:] == 0).all())
    torch.testing.assert_close(found.weight[:5], logistic(rows, 0.1).weight, rtol=1e-6, atol=1e-8)
    other = found(torch.cat([rows.features, constant + 1], dim=1))
    torch.testing.assert_close(other, logistic(rows, 0.1)(rows.features), rtol=1e-6, atol=1e-7)


def test_images_that_are_all_alike_give_the_shares_of_the_classes() -> None:
    rows = Rows(torch.ones(8, 3, dtype=torch.float64), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]), 2)
    found = logistic(rows, 0.1)(rows.features).softmax(dim=1)
    torch.testing.assert_close(found[0], torch.tensor([0.75, 0.25], dtype=torch.float64), rtol=0, atol=1e-4)


def test_a_warm_start_ends_where_a_cold_one_does() -> None:
    rows = drawn(50, 6)
    warm = logistic(rows, 0.01, logistic(rows, 3.0))
    torch.testing.assert_close(warm.weight, logistic(rows, 0.01).weight, rtol=0, atol=1e-3)


def test_the_logistic_penalty_is_the_first_of_the_most_accurate(monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid = drawn(40, 8, spread=0.5), drawn(60, 8, seed=7, spread=0.5)
    penalties = (10.0, 1.0, 0.1, 0.01, 0.001)
    monkeypatch.setattr(closed_form, "PATIENCE", 99)
    right = [int((logistic(train, penalty)(valid.features).argmax(1) == valid.labels).sum()) for penalty in penalties]
    chosen, found = choose_logistic(train, valid, penalties)
    assert chosen == penalties[right.index(max(right))]
    torch.testing.assert_close(found.weight, logistic(train, chosen).weight, rtol=0, atol=1e-3)


def test_weaker_penalties_are_not_tried_once_two_were_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(closed_form, "logistic", lambda rows, penalty, start: tried.append(penalty) or logistic(rows, penalty))
    train = drawn(60, 4, spread=5.0)  # apart: every penalty is right everywhere
    assert choose_logistic(train, drawn(30, 4, seed=3, spread=5.0), (1.0, 0.3, 0.1, 0.03, 0.01))[0] == 1.0
    assert tried == [1.0, 0.3, 0.1]


def test_validation_images_judge_if_there_are_any() -> None:
    train, valid = drawn(20, 4), drawn(5, 4, seed=1)
    assert to_judge(train, valid) == (train, valid)


def test_without_them_every_fifth_image_of_a_class_judges() -> None:
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 4)[torch.randperm(19, generator=torch.Generator().manual_seed(0))]
    train = Rows(torch.arange(19.0).double()[:, None], labels, 3)
    fitted, judges = to_judge(train, train.taken(torch.zeros(19, dtype=torch.bool)))
    assert judges.labels.bincount(minlength=3).tolist() == [2, 1, 0]
    assert fitted.labels.bincount(minlength=3).tolist() == [8, 4, 4]
    assert sorted([*fitted.features[:, 0].tolist(), *judges.features[:, 0].tolist()]) == list(range(19))
    few = train.taken(torch.arange(3))
    assert to_judge(few, few.taken(torch.zeros(3, dtype=torch.bool))) == (few, few)


def test_the_scale_has_the_least_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (300,), generator=generator)
    scores = functional.one_hot(labels, 3).double() + 0.7 * torch.randn(300, 3, generator=generator, dtype=torch.float64)
    found = scale_of(scores, labels)
    losses = {2.0**power: functional.cross_entropy(scores * 2.0**power, labels).item() for power in range(-6, 13)}
    assert functional.cross_entropy(scores * found, labels).item() <= min(losses.values())
    assert scale_of(scores / 4, labels) == pytest.approx(4 * found)


def test_rows_are_exact_and_joined_in_order() -> None:
    rows = exact_rows(torch.ones(2, 3), torch.tensor([1, 0]), 2)
    assert rows.features.dtype == torch.float64
    both = rows.with_rows(Rows(torch.zeros(1, 3, dtype=torch.float64), torch.tensor([1]), 2))
    assert both.targets.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert len(both) == 3
