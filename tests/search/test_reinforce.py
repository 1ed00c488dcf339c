"""The search for a path: whose images meet in a batch norm, what moves, what is found, and that it goes on where it was stopped."""

import random

import pytest
import torch
from torch import Tensor, nn

from lifelong.errors import LifelongError
from lifelong.networks.frozen import freeze
from lifelong.search import reinforce
from lifelong.search.reinforce import PathResult, search_path, walk
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.stages import Stage

TRAINING = TrainingSettings(batch_size=16, lr=0.1, weight_decay=0.0)


def examples(count: int = 64) -> Examples:
    """Two classes of points that lie apart in the first of four dimensions."""
    labels = torch.arange(count) % 2
    points = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    points[:, 0] += 6 * labels - 3
    return Examples(points, labels, points, labels)


class Blind(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0 * x


def parts() -> tuple[list[nn.Module], nn.ModuleList]:
    """Four paths, of which only the second can tell the classes: the others lose the point before a layer that is trained."""
    torch.manual_seed(1)
    source = [nn.Identity(), Blind(), nn.Linear(4, 2)]
    freeze(*source)
    head = lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))  # noqa: E731
    return source, nn.ModuleList([nn.Sequential(Blind(), *head()), head(), head(), nn.Sequential()])


def search(stage: Stage, count: int = 64, **changed: float) -> tuple[PathResult, nn.ModuleList]:
    source, columns = parts()
    given = {"epochs": 6, "arch_lr": 0.1} | changed
    return search_path(source, columns, examples(count), TRAINING, stage, **given), columns


def test_the_path_that_can_is_found() -> None:
    result, columns = search(Stage("search", 1), epochs=40)
    assert result.path == 1
    assert result.probability > 0.9
    entropies = [entropy for _, _, entropy in result.history]
    assert entropies[-1] < 0.3 * entropies[0]
    accuracies = [accuracy for _, accuracy, _ in result.history]
    assert accuracies[0] < 0.8 < 0.95 < accuracies[-1]
    data = examples()
    assert (columns[1](data.train).argmax(dim=1) == data.train_labels).double().mean() > 0.95


def test_it_ends_when_it_has_decided() -> None:
    result, _ = search(Stage("search", 1), epochs=100, arch_lr=1.0)
    assert result.epochs == len(result.history) < 100
    assert result.history[-1][2] < 0.001 <= result.history[-2][2]


def test_a_walk_is_each_sample_on_its_own_path() -> None:
    torch.manual_seed(0)
    source = [nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)]
    columns = nn.ModuleList(nn.Sequential(*(nn.Linear(4, 4 if p < 2 else 2) for p in range(k, 3))) for k in range(4)).eval()
    inputs, paths = torch.randn(9, 4), torch.tensor([3, 1, 0, 2, 1, 3, 0, 0, 2])
    for chosen in (paths, torch.full((9,), 3), torch.zeros(9, dtype=torch.int64)):
        rows = [columns[k](nn.Sequential(*source[:k])(x)) for x, k in zip(inputs, chosen.tolist(), strict=True)]
        torch.testing.assert_close(walk(source, columns, inputs, chosen), torch.stack(rows))


def test_batch_norm_sees_its_own_path_and_never_a_single_image() -> None:
    source, columns = parts()
    inputs = torch.randn(6, 4)
    columns.train()
    walk(source, columns, inputs, torch.tensor([1, 1, 2, 1, 3, 3]))
    torch.testing.assert_close(columns[1][0].running_mean, 0.1 * inputs[[0, 1, 3]].mean(dim=0))
    assert columns[2][0].num_batches_tracked == 0
    assert columns[0][1].num_batches_tracked == 0


def test_rewards_do_not_move_statistics() -> None:
    source, columns = parts()
    columns.eval()
    walk(source, columns, torch.randn(6, 4), torch.ones(6, dtype=torch.int64))
    assert columns[1][0].num_batches_tracked == 0


def test_weights_learn_from_one_half_and_the_distribution_from_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[int]] = {"_learn_weights": set(), "_learn_distribution": set()}
    for name, indices in seen.items():
        learn = getattr(reinforce._PathSearch, name)
        monkeypatch.setattr(reinforce._PathSearch, name, recording(learn, indices))
    search(Stage("search", 1), epochs=3)
    first, second = seen.values()
    assert first | second == set(range(64))
    assert not first & second


def recording(learn, indices):
    def wrapped(self, batch):
        indices.update(batch.tolist())
        return learn(self, batch)

    return wrapped


class StopHereError(Exception):
    pass


def test_interrupted_anywhere_it_ends_the_same(tmp_path) -> None:
    """Stopped after random epochs, some of them before the state is saved; distribution and weights are those of the straight run."""
    straight, column = search(Stage("search", 7))
    chance, attempts = random.Random(3), 0

    def listener(epoch) -> None:
        if chance.random() < 0.6:
            raise StopHereError

    for attempts in range(60):  # noqa: B007
        stage = Stage("search", 7, folder=tmp_path, listener=listener, save_every=0.0 if chance.random() < 0.8 else 1e9)
        try:
            resumed = search(stage)
            break
        except StopHereError:
            continue
    assert attempts > 3
    again = search(Stage("search", 7, folder=tmp_path, listener=listener))  # finished: is not run again
    for result, columns in (resumed, again):
        assert (result.path, result.probability, result.history) == (straight.path, straight.probability, straight.history)
        theirs, ours = column[result.path].state_dict().values(), columns[result.path].state_dict().values()
        assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
        assert not columns[result.path].training


def test_two_images_are_enough_and_one_is_not() -> None:
    assert search(Stage("search", 1), 2, epochs=2)[0].epochs == 2
    with pytest.raises(LifelongError, match="task 'x', search: a search needs at least 2 training images, here: 1"):
        search(Stage("search", 1, where="task 'x', search"), 1)


def test_a_rate_far_too_high_is_said() -> None:
    source, columns = parts()
    training = TrainingSettings(batch_size=16, lr=1e30, clip_norm=0.0)
    with pytest.raises(LifelongError, match=r"task 'x', search, epoch \d+, with lr 1e\+30"):
        search_path(source, columns, examples(), training, Stage("search", 1, where="task 'x', search"), epochs=9, arch_lr=0.1)
