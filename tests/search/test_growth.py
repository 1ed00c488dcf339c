"""The search for what a growing network reuses, adapts or adds."""

import math
import random

import pytest
import torch
from torch import nn

from lifelong.data.task import Augmentation
from lifelong.errors import LifelongError
from lifelong.networks.growing_resnet import CONVOLUTIONS, NEW, Choice, GrowingResNet, choices, mixtures
from lifelong.search import growth
from lifelong.search.growth import GrowthResult, expected_size, search_growth
from lifelong.settings.growing import LearnToGrowSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples, image_examples
from lifelong.training.stages import Stage
from tests.made import made_task


def relaxed(tasks: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    growing = GrowingResNet(4)
    for _ in range(tasks):
        growing.keep(growing.network((NEW,) * len(CONVOLUTIONS)))
    return nn.Sequential(growing.supernet(), nn.Linear(4, 3))


def examples(train: int = 8) -> Examples:
    return image_examples(made_task(train=train, augmentation=Augmentation(crop=1, flip=True)))


def search(stage: Stage, network: nn.Module | None = None, images: Examples | None = None, **changes) -> GrowthResult:
    settings = LearnToGrowSettings(**{"search_epochs": 3, "search_lr": 0.05, "search_alpha_lr": 0.05, "init_channels": 4, **changes})
    return search_growth(network or relaxed(), images or examples(), settings, TrainingSettings(batch_size=6), stage)


def same(one: GrowthResult, other: GrowthResult) -> bool:
    """Equal to the bit, but for the seconds."""
    return (one.path, one.epochs, one.history) == (other.path, other.epochs, other.history) and all(
        torch.equal(a, b) for a, b in zip(one.weights, other.weights, strict=True)
    )


def test_result():
    result = search(Stage("search", 1))
    assert result.epochs == len(result.history) == 3
    assert result.seconds > 0
    assert [len(weights) for weights in result.weights] == [3] * 20
    for weights, choice in zip(result.weights, result.path, strict=True):
        assert weights.sum().item() == pytest.approx(1)
        assert weights[choices(1).index(choice)] == weights.max()
    assert same(result, search(Stage("search", 1)))
    assert not same(result, search(Stage("search", 2)))


def test_the_expected_size_is_summed_over_convolutions():
    """4 channels: a stem of 108 and its adapter of 12, 16 convolutions of 144 and adapters of 16, 3 shortcuts of 16 and as many."""
    logs = math.log10(109) + math.log10(13) + 16 * (math.log10(145) + math.log10(17)) + 3 * 2 * math.log10(17)
    assert expected_size(mixtures(relaxed())).item() == pytest.approx(logs / 3)


def test_a_high_price_reuses_and_none_does_not():
    dear = search(Stage("search", 1), size_weight=100.0, search_epochs=2)
    assert dear.path == (Choice("reuse", 0),) * 20
    free = search(Stage("search", 1), size_weight=0.0, search_epochs=2)
    assert {choice.kind for choice in free.path} >= {"adapt", "new"}


def test_by_turns_on_two_halves(monkeypatch):
    """Alpha moves on one half only, all other weights on the other, and old ones on neither."""
    search_class = growth._Growth
    seen = {"alpha": set(), "weights": set()}
    step_alpha, step_weights = search_class._step_alpha, search_class._step_weights

    def spy_alpha(self, indices):
        weights = [w.clone() for w in self.weights]
        alphas = [a.clone() for a in self.alphas]
        seen["alpha"].update(indices.tolist())
        result = step_alpha(self, indices)
        assert all(torch.equal(a, b) for a, b in zip(weights, self.weights, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(alphas, self.alphas, strict=True))
        return result

    def spy_weights(self, indices):
        weights = [w.clone() for w in self.weights]
        alphas = [a.clone() for a in self.alphas]
        seen["weights"].update(indices.tolist())
        result = step_weights(self, indices)
        assert all(torch.equal(a, b) for a, b in zip(alphas, self.alphas, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(weights, self.weights, strict=True))
        return result

    monkeypatch.setattr(search_class, "_step_alpha", spy_alpha)
    monkeypatch.setattr(search_class, "_step_weights", spy_weights)
    network = relaxed()
    known = [mixture.known.clone() for mixture in mixtures(network)]
    search(Stage("search", 1), network, search_epochs=2)
    assert seen["alpha"] | seen["weights"] == set(range(24))
    assert not seen["alpha"] & seen["weights"]
    assert all(torch.equal(a, mixture.known) for a, mixture in zip(known, mixtures(network), strict=True))


class StopHereError(Exception):
    pass


def test_interrupted_anywhere_it_ends_the_same(tmp_path):
    """Stopped after random epochs, some of them not saved; the continued run is the straight one, weights and all."""
    one, other = relaxed(2), relaxed(2)
    straight = search(Stage("search", 7), one, search_epochs=5)
    chance = random.Random(3)
    attempts = 0

    def listener(epoch):
        if chance.random() < 0.6:
            raise StopHereError

    for attempts in range(60):  # noqa: B007
        stage = Stage("search", 7, folder=tmp_path, listener=listener, save_every=0.0 if chance.random() < 0.8 else 1e9)
        other = relaxed(2)
        try:
            resumed = search(stage, other, search_epochs=5)
            break
        except StopHereError:
            continue
    assert attempts > 3
    assert same(resumed, straight)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    # A finished stage is not run again.
    assert same(search(Stage("search", 7, folder=tmp_path, listener=listener), search_epochs=1), straight)


def test_four_images_are_enough_and_three_are_not():
    assert search(Stage("search", 1), images=examples(2), search_epochs=1).epochs == 1
    with pytest.raises(LifelongError, match="task 'x', search: a search needs at least 4 training images, here: 3"):
        search(Stage("search", 1, where="task 'x', search"), images=examples(1))


def test_a_rate_far_too_high_is_said():
    with pytest.raises(LifelongError, match=r"task 'x', search, epoch \d+, with search_lr 1e\+30"):
        search(Stage("search", 1, where="task 'x', search"), search_lr=1e30, search_clip_norm=0.0)


def test_the_best_epoch_is_kept_if_asked_for(monkeypatch):
    """Accuracies 0.5, 0.75, 0.75, 0.25: the choices after the second epoch, which is the whole of a search of as many."""
    rising = iter([0.5, 0.75, 0.75, 0.25])
    epoch = growth._Growth._step_alpha
    right = [0.0]

    def step(self, indices):
        epoch(self, indices)
        return torch.tensor(right[0] * len(indices))

    monkeypatch.setattr(
        growth, "set_rate", lambda optimizer, *rest: (right.__setitem__(0, next(rising)), optimizer.__setattr__("lr", 0.05))
    )
    monkeypatch.setattr(growth._Growth, "_step_alpha", step)
    best = search(Stage("search", 1), search_epochs=4, search_kept="best")
    assert [round(accuracy, 2) for _, accuracy in best.history] == [0.5, 0.75, 0.75, 0.25]
    rising = iter([0.5, 0.75])
    two = search(Stage("search", 1), search_epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(best.weights, two.weights, strict=True))


def test_choices_begin_even_or_at_random(monkeypatch):
    starts = []
    run = growth._Growth.run
    monkeypatch.setattr(
        growth._Growth, "run", lambda self: (starts.append(torch.cat([a.detach().clone() for a in self.alphas])), run(self))[1]
    )
    for start in ("even", "random", "random"):
        search(Stage("search", 1), search_epochs=1, search_start=start)
    assert not starts[0].any()
    assert torch.equal(starts[1], starts[2])
    assert 0.0005 < starts[1].std() < 0.0015
