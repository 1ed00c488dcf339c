"""The training loop against a plain one, and its resumption to the bit."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lifelong.data.task import Augmentation
from lifelong.errors import DivergedError, LifelongError
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples, accuracy, batches, image_examples
from lifelong.training.fit import fit
from lifelong.training.select import fit_selected
from lifelong.training.stages import Stage, seeded
from tests.made import made_task

SETTINGS = TrainingSettings(epochs=6, batch_size=8, lr=0.05, patience=0)


def network(seed: int = 0) -> nn.Module:
    with seeded(seed):
        body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        net = nn.Sequential(body, nn.Flatten(), nn.Linear(32, 3))
    return net.to(memory_format=torch.channels_last)


AUGMENTED = Augmentation(crop=1, flip=True)


def examples(augmentation: Augmentation = AUGMENTED) -> Examples:
    return image_examples(made_task(augmentation=augmentation))


def equal(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))


@pytest.mark.usefixtures("in_float64")
def test_equals_a_plain_loop() -> None:
    """Same network, same batches, textbook PyTorch: same weights to rounding."""
    feed = examples(Augmentation())
    ours, plain = network(), network()
    outcome = fit(ours, feed, ours, replace(SETTINGS, clip_norm=1.0), Stage("train", seed=5))

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=0.003)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    generator = torch.Generator().manual_seed(5)
    inputs, valid = feed.prepare(feed.train), feed.prepare(feed.valid)
    best, kept = -1.0, {}
    for _ in range(6):
        plain.train()
        for indices in torch.randperm(len(inputs), generator=generator).split(8):
            loss = F.cross_entropy(plain(inputs[indices]), feed.train_labels[indices])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        plain.eval()
        score = accuracy(plain(valid).detach(), feed.valid_labels)
        if score > best:
            best, kept = score, {k: v.clone() for k, v in plain.state_dict().items()}
    plain.load_state_dict(kept)
    assert outcome.accuracy == best
    for a, b in zip(ours.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resumes_bit_for_bit(tmp_path, schedule: str, stop: int) -> None:
    settings = replace(SETTINGS, schedule=schedule, patience=2 if schedule == "plateau" else 0)
    straight = network()
    expected = fit(straight, examples(), straight, settings, Stage("train", seed=5))

    def interrupt(epoch) -> None:
        if epoch.epoch == stop + 1:
            raise KeyboardInterrupt

    first = network()
    stage = Stage("train", seed=5, folder=tmp_path, listener=interrupt, save_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(first, examples(), first, settings, stage)
    assert stage.running() is not None

    second = network(seed=99)  # whatever it starts from, the saved state counts
    epochs = []
    again = Stage("train", seed=5, folder=tmp_path, listener=lambda e: epochs.append(e.epoch), save_every=0.0)
    outcome = fit(second, examples(), second, settings, again)
    assert epochs[0] == stop + 1
    assert equal(second, straight)
    assert outcome.history == expected.history

    third = network(seed=7)
    assert fit(third, examples(), third, settings, again).history == expected.history
    assert equal(third, straight)


def test_keeps_the_best_epoch_and_stops_early() -> None:
    """With a rate that ruins the network after a while, the kept weights are those of the best validation accuracy."""
    net = network()
    feed = examples()
    outcome = fit(net, feed, net, replace(SETTINGS, epochs=40, lr=0.1, patience=3), Stage("train", seed=1))
    scores = [score for _, _, score in outcome.history]
    assert outcome.accuracy == max(scores)
    assert outcome.best_epoch == scores.index(max(scores)) + 1
    assert outcome.epochs == len(scores) == min(outcome.best_epoch + 3, 40)
    logits = net(feed.prepare(feed.valid)).detach()
    assert accuracy(logits, feed.valid_labels) == outcome.accuracy


def test_plateau_cuts_the_rate() -> None:
    net = network()
    settings = replace(SETTINGS, schedule="plateau", epochs=20, patience=1, lr=1e-4, plateau_factor=0.5, min_lr=1e-6)
    rates = [rate for rate, _, _ in fit(net, examples(), net, settings, Stage("train", seed=1)).history]
    assert rates[0] == 1e-4
    assert rates[-1] < rates[0]
    assert {round(math.log2(a / b)) for a, b in itertools.pairwise(rates)} <= {0, 1}


def test_no_validation_images_keep_the_last_epoch() -> None:
    net = network()
    feed = image_examples(made_task(valid=0))
    outcome = fit(net, feed, net, replace(SETTINGS, patience=1), Stage("train", seed=1))
    assert outcome.epochs == outcome.best_epoch == 6
    assert math.isnan(outcome.accuracy)


def test_a_loss_that_is_not_finite_is_named() -> None:
    net = network()
    stage = Stage("train", seed=1, where="task 'made', train")
    with pytest.raises(LifelongError, match=r"task 'made', train, epoch \d+, with lr 1e\+30"):
        fit(net, examples(), net, replace(SETTINGS, lr=1e30, clip_norm=0.0), stage)


def test_weights_that_are_not_finite_are_not_kept() -> None:
    """One step: its loss is that of the weights before it, and finite."""
    net, settings = network(), replace(SETTINGS, lr=1e38, epochs=1, batch_size=1000, clip_norm=0.0)
    with pytest.raises(DivergedError, match=r"weights or answers became NaN or infinite at train, epoch 1, with lr 1e\+38; lower it"):
        fit(net, examples(), net, settings, Stage("train", seed=1))


@pytest.mark.parametrize("grid", [(1e38, 0.003), (0.003, 1e38)])
def test_a_weight_decay_that_diverges_is_passed_over(tmp_path, grid) -> None:
    feed, alone, chosen = examples(), network(), network()
    wanted = fit(alone, feed, alone, replace(SETTINGS, weight_decay=0.003), Stage("train-wd0.003", seed=5))
    settings = replace(SETTINGS, weight_decay_grid=grid)
    for _ in range(2):  # and again, from what was saved
        outcome = fit_selected(chosen, feed, chosen, settings, Stage("train", seed=5, folder=tmp_path))
        assert (outcome.weight_decay, outcome.accuracy, outcome.diverged) == (0.003, wanted.accuracy, [1e38])
        assert outcome.epochs == wanted.epochs + 1
        assert equal(chosen, alone)
        assert not chosen.training
    with pytest.raises(DivergedError):
        fit_selected(chosen, feed, chosen, replace(SETTINGS, weight_decay_grid=(1e38, 2e38)), Stage("train", seed=5))


def test_selection_keeps_the_best_candidate(tmp_path) -> None:
    """The chosen weight decay is the first with the highest validation accuracy of separate fits."""
    grid = (0.003, 5.0)
    settings = replace(SETTINGS, weight_decay_grid=grid)
    net = network()
    outcome = fit_selected(net, examples(), net, settings, Stage("train", seed=5, folder=tmp_path))
    apart = []
    for decay in grid:
        single = network()
        result = fit(single, examples(), single, replace(SETTINGS, weight_decay=decay), Stage("train", seed=5))
        apart.append((result.accuracy, single))
    assert apart[0][0] > apart[1][0]  # a decay of 5 cannot learn
    assert outcome.weight_decay == 0.003
    assert outcome.epochs == 12
    assert equal(net, apart[0][1])


def test_features_are_fed_as_they_are() -> None:
    feed = examples(Augmentation())
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    mapped = feed.mapped(backbone)
    assert not mapped.augmented
    assert torch.equal(mapped.prepare(mapped.train), mapped.train)
    torch.testing.assert_close(mapped.train, backbone(feed.prepare(feed.train)).detach())


def test_no_batch_of_a_single_sample() -> None:
    assert [len(part) for part in batches(torch.arange(17), 8)] == [8, 9]
    assert [len(part) for part in batches(torch.arange(18), 8)] == [8, 8, 2]
    assert [len(part) for part in batches(torch.arange(1), 8)] == [1]
    assert torch.cat(batches(torch.arange(17), 8)).tolist() == list(range(17))
