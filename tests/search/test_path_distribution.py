"""The distribution over where to leave: by products of its choices; the estimate of its gradient: by summing over all draws."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from lifelong.search.path_distribution import entropy, log_probabilities, reinforce_loss

LOGITS = torch.tensor([[0.3, -0.5], [1.2, 0.4], [-0.7, 0.9]], dtype=torch.float64)
REWARDS = -torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
"""Of three images (rows) on each of four paths."""


def test_probabilities_are_products_of_choices() -> None:
    expected, stayed = [], 1.0
    for leave, stay in LOGITS.exp().tolist():
        expected.append(stayed * leave / (leave + stay))
        stayed *= stay / (leave + stay)
    expected.append(stayed)
    p = log_probabilities(LOGITS).exp()
    assert p.tolist() == pytest.approx(expected, abs=1e-12)
    assert p.sum().item() == pytest.approx(1.0, abs=1e-12)


def test_even_choices_halve_what_is_left() -> None:
    p = log_probabilities(torch.zeros(6, 2)).exp()
    assert p.tolist() == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 64])
    assert entropy(p.log()).item() == pytest.approx((1 / 2 + 2 / 4 + 3 / 8 + 4 / 16 + 5 / 32 + 6 / 64 + 6 / 64) * math.log(2), rel=1e-6)


def test_a_sure_choice_has_no_entropy() -> None:
    assert entropy(log_probabilities(torch.tensor([[-500.0, 500.0], [500.0, -500.0]]))).item() == 0.0


def gradient(loss_of: object, logits: Tensor = LOGITS) -> Tensor:
    logits = logits.clone().requires_grad_(True)
    return torch.autograd.grad(loss_of(log_probabilities(logits)), logits)[0]


def exact() -> Tensor:
    """Of minus the expected mean reward, by enumeration of the paths."""
    return gradient(lambda log_p: -(REWARDS @ log_p.exp()).mean())


def expectation(loss: object) -> Tensor:
    """Of an estimate of the gradient, over every way to draw a path for each image."""
    p = log_probabilities(LOGITS).exp()
    total = torch.zeros_like(LOGITS)
    for draw in itertools.product(range(4), repeat=3):
        paths = torch.tensor(draw)
        rewards = REWARDS[torch.arange(3), paths]
        total += p[paths].prod() * gradient(lambda log_p, paths=paths, rewards=rewards: loss(log_p, paths, rewards))
    return total


def test_the_estimate_has_no_bias() -> None:
    torch.testing.assert_close(expectation(reinforce_loss), exact(), rtol=1e-10, atol=1e-12)


def test_the_mean_of_all_as_a_baseline_would_shrink_it() -> None:
    """By 1 - 1/n, n = 3: the claim of the docstring."""
    shrunk = expectation(lambda log_p, paths, rewards: -((rewards - rewards.mean()) * log_p[paths]).mean())
    torch.testing.assert_close(shrunk, exact() * 2 / 3, rtol=1e-10, atol=1e-12)


def test_of_one_sample_nothing_is_learned() -> None:
    assert not gradient(lambda log_p: reinforce_loss(log_p, torch.tensor([2]), torch.tensor([-0.7], dtype=torch.float64))).any()
