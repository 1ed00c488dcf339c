import random
from itertools import chain

import pytest
import torch

from lifelong.data.task import Augmentation, Normalization, Split
from lifelong.errors import LifelongError
from lifelong.networks.supernet import SuperNetwork
from lifelong.search import mdl
from lifelong.search.mdl import SearchResult, search_cell, too_short
from lifelong.settings.par import SearchSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.stages import Stage


def images(count: int = 30, classes: int = 3) -> Split:
    """Classes of different brightness, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 80, (count, 3, 8, 8), generator=generator)
    return Split((labels[:, None, None, None] * 80 + noise).to(torch.uint8), labels)


def search(stage: Stage, split: Split | None = None, **settings) -> SearchResult:
    return search_cell(
        images() if split is None else split,
        3,
        SearchSettings(**{"search_epochs": 5, "search_lr": 0.05, "search_step": 0.1, **settings}),
        TrainingSettings(batch_size=8),
        stage,
        normalization=Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        augmentation=Augmentation(crop=1, flip=True),
        channels=4,
    )


def same(one: SearchResult, other: SearchResult) -> bool:
    """Equal to the bit, but for the seconds."""
    return (
        (one.genotype, one.epochs, one.history) == (other.genotype, other.epochs, other.history)
        and torch.equal(one.normal, other.normal)
        and torch.equal(one.reduce, other.reduce)
    )


@pytest.mark.parametrize("sampling", ["epoch", "batch"])
def test_result(sampling):
    result = search(Stage("search", 1), search_sampling=sampling)
    assert result.epochs == len(result.history) == 5
    assert result.seconds > 0
    for table in (result.normal, result.reduce):
        torch.testing.assert_close(table.sum(dim=1), torch.ones(14, dtype=torch.float64))
    assert same(result, search(Stage("search", 1), search_sampling=sampling))
    assert not same(result, search(Stage("search", 2), search_sampling=sampling))


class StopHereError(Exception):
    pass


CODE = {"search_bn": "running", "search_idle": "move"}
"""As in the authors' code."""


@pytest.mark.parametrize("changes", [{}, {"search_sampling": "batch"}, CODE])
def test_interrupted_anywhere_it_ends_the_same(tmp_path, changes):
    """Stopped in the listener after random epochs, some of them before the state is saved; the continued run is the straight one."""
    weights = {}
    straight = search(Stage("search", 7), search_epochs=6, **changes)
    chance = random.Random(3)
    attempts = 0

    def listener(epoch):
        weights[epoch.epoch] = epoch.accuracy
        if chance.random() < 0.6:
            raise StopHereError

    for attempts in range(60):  # noqa: B007
        stage = Stage("search", 7, folder=tmp_path, listener=listener, save_every=0.0 if chance.random() < 0.8 else 1e9)
        try:
            resumed = search(stage, search_epochs=6, **changes)
            break
        except StopHereError:
            continue
    assert attempts > 3
    assert same(resumed, straight)
    # A finished stage is not run again.
    assert same(search(Stage("search", 7, folder=tmp_path, listener=listener), search_epochs=1), straight)


def test_every_state_restores_every_tensor(tmp_path, monkeypatch):
    """Weights and momentum at the end are those of the straight run, not only the genotype."""
    ends = []
    monkeypatch.setattr(mdl._CellSearch, "run", record(mdl._CellSearch.run, ends))
    search(Stage("search", 7))
    for stop in (1, 2, 4):
        folder = tmp_path / str(stop)

        def listener(epoch, stop=stop):
            if epoch.epoch == stop:
                raise StopHereError

        with pytest.raises(StopHereError):
            search(Stage("search", 7, folder=folder, listener=listener, save_every=0.0))
        search(Stage("search", 7, folder=folder, save_every=0.0))
    straight = ends[0]
    assert len(ends) == 4
    for end in ends[1:]:
        assert all(torch.equal(one, other) for one, other in zip(straight, end, strict=True))


def record(run, ends):
    def wrapped(self):
        outcome = run(self)
        momentum = self.optimizer.state()
        ends.append([*(p.detach().clone() for p in self.network.parameters()), *(m.clone() for m in momentum)])
        return outcome

    return wrapped


def test_one_path_an_epoch_and_only_it_moves(monkeypatch):
    """With one epoch and one path, operations off the path keep their weights, in spite of momentum and decay."""
    paths = []
    forward = SuperNetwork.forward

    def spy(self, inputs, path):
        paths.append(path)
        return forward(self, inputs, path)

    monkeypatch.setattr(SuperNetwork, "forward", spy)
    search(Stage("search", 1), search_epochs=1)
    assert len(set(paths)) == 1
    assert len(paths) == 2 * 2
    paths.clear()
    search(Stage("search", 1), search_epochs=1, search_sampling="batch")
    assert len(set(paths)) == 2
    assert len(paths) == 2 * 2


def test_idle_operations_go_on_in_the_authors_code(monkeypatch):
    """By zero gradients: each step, w <- w - lr (m <- 0.9 m + decay w). Those that were never sampled have no gradient, and rest."""
    runs = []
    run = mdl._CellSearch.run

    def spy(self):
        steps, train = [], mdl._CellSearch._step

        def step(search, path, indices):
            # Momentum buffers are in the order of parameters.
            before = [(p.detach().clone(), m.clone()) for p, m in zip(search.optimizer.parameters, search.optimizer.state(), strict=True)]
            had = set(search._with_gradient())
            train(search, path, indices)
            moved = [p.detach().clone() for p in search.optimizer.parameters]
            idle = {i for i in had if search.optimizer.parameters[i].grad.abs().max() == 0}
            never = set(range(len(moved))) - set(search._with_gradient())
            steps.append((search.optimizer.lr, before, moved, idle, never))

        monkeypatch.setattr(mdl._CellSearch, "_step", step)
        found = run(self)
        monkeypatch.setattr(mdl._CellSearch, "_step", train)
        runs.append(steps)
        return found

    monkeypatch.setattr(mdl._CellSearch, "run", spy)
    search(Stage("search", 1), search_idle="move")
    count = 0
    for lr, before, moved, idle, never in runs[0]:
        for index, (weight, momentum) in enumerate(before):
            if index in idle:
                expected = weight - lr * (0.9 * momentum + 0.003 * weight)
                torch.testing.assert_close(moved[index], expected, rtol=1e-5, atol=1e-7)
                count += 1
            if index in never:
                assert torch.equal(moved[index], weight)
    assert count > 50
    assert runs[0][0][4]


def test_running_statistics_judge_in_the_authors_code(monkeypatch):
    """What is answered for an image then depends on no other image of its batch."""
    networks = []
    run = mdl._CellSearch.run
    monkeypatch.setattr(mdl._CellSearch, "run", lambda self: (networks.append(self.network), run(self))[1])
    inputs = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    path = ((4,) * 14, (5,) * 14)
    for statistics in ("batch", "running"):
        search(Stage("search", 1), search_epochs=1, search_bn=statistics)
        network = networks[-1]
        assert not network.training  # an epoch ends by judging
        with torch.no_grad():
            alone, together = network(inputs[:2], path), network(inputs, path)[:2]
        assert torch.allclose(alone, together, rtol=1e-4, atol=1e-5) == (statistics == "running")


def test_the_halves_part_the_images(monkeypatch):
    """Every image is either trained on or judged by, in each epoch."""
    seen = []
    batch = mdl._Images.batch
    monkeypatch.setattr(mdl._Images, "batch", lambda self, indices: (seen.append(indices.tolist()), batch(self, indices))[1])
    search(Stage("search", 1), images(31), search_epochs=2)
    assert [len(part) for part in seen] == [8, 8, 8, 7] * 2
    first, second = seen[:4], seen[4:]
    for part in (slice(0, 2), slice(2, 4)):
        assert sorted(chain(*first[part])) == sorted(chain(*second[part]))
        assert first[part] != second[part]
    assert sorted(chain(*first)) == list(range(31))


def test_it_learns_something():
    """Three brightnesses: an average pool or a convolution tells them apart after a few epochs."""
    result = search(Stage("search", 1), images(90), search_epochs=12)
    assert max(accuracy for _, accuracy in result.history) > 0.6


def test_the_rate_falls_by_a_cosine(monkeypatch):
    rates = []
    train = mdl._CellSearch._train
    monkeypatch.setattr(mdl._CellSearch, "_train", lambda self, *a: (rates.append(self.optimizer.lr), train(self, *a))[1])
    search(Stage("search", 1), search_epochs=4, search_lr=0.01)
    assert rates == pytest.approx([0.01, 1e-5 + 0.00999 * 0.8535533906, 1e-5 + 0.00999 * 0.5, 1e-5 + 0.00999 * 0.1464466094])


def test_two_images_are_enough_and_one_is_not():
    assert search(Stage("search", 1), images(2), search_epochs=1).epochs == 1
    with pytest.raises(LifelongError, match="task 'x', search: a search needs at least 2 training images, here: 1"):
        search(Stage("search", 1, where="task 'x', search"), images(1))


def test_a_rate_far_too_high_is_said():
    with pytest.raises(LifelongError, match=r"task 'x', search, epoch \d+, with search_lr 1e\+30"):
        search(Stage("search", 1, where="task 'x', search"), search_lr=1e30, search_clip_norm=0.0)


def test_width_of_the_search(monkeypatch):
    made = []
    build = mdl.SuperNetwork
    monkeypatch.setattr(mdl, "SuperNetwork", lambda *a, **k: (made.append(a), build(*a, **k))[1])
    search(Stage("search", 1), search_epochs=1)
    search(Stage("search", 1), search_epochs=1, search_channels=6)
    assert [arguments[1] for arguments in made] == [4, 6]


def test_ties_are_drawn_by_the_seed_and_counted():
    """Two epochs decide nothing: two seeds draw two cells, where the authors' code takes max-pools."""
    one, other = (search(Stage("search", seed), search_epochs=2) for seed in (1, 2))
    assert one.undecided == other.undecided == 16
    assert one.genotype != other.genotype
    assert same(one, search(Stage("search", 1), search_epochs=2))
    first = search(Stage("search", 1), search_epochs=2, search_ties="first")
    assert {name for cell in (first.genotype.normal, first.genotype.reduce) for node in cell for name, _ in node} == {"max_pool_3x3"}
    assert first.undecided == 16
    assert one.undecided > search(Stage("search", 1), images(90), search_epochs=12).undecided


@pytest.mark.parametrize(("epochs", "sampling", "sampled"), [(1, "epoch", 1), (2, "epoch", 2), (1, "batch", 2)])
def test_a_search_that_can_decide_nothing_is_said(epochs, sampling, sampled):
    """30 images, batches of 8: the first half of 15 makes two batches."""
    told = too_short(30, SearchSettings(search_epochs=epochs, search_sampling=sampling), 8)
    assert told is not None
    assert told.startswith(f"search_epochs = {epochs}: a search of {sampled} sampled network")
    assert "3 decide some, 20 nearly all" in told


def test_a_search_that_can_decide_is_not():
    assert too_short(30, SearchSettings(search_epochs=3), 8) is None
    assert too_short(33, SearchSettings(search_epochs=1, search_sampling="batch"), 8) is None  # 17 in the half: three batches
