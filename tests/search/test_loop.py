"""What the searches share: stratified halves, the rate, and where they end. Resuming is tested with each search."""

import math

import pytest
import torch

from lifelong.errors import DivergedError
from lifelong.search.loop import Search, set_rate, stratified_halves
from lifelong.training.optimizer import SGD
from lifelong.training.stages import Stage


class Counting(Search):
    """A search that decides when its loss is down to `enough`."""

    def __init__(self, losses: list[float], enough: float, epochs: int) -> None:
        super().__init__(Stage("search", 0), epochs)
        self.losses, self.enough = losses, enough

    def _epoch(self, epoch):
        self._check_loss(self.losses[epoch], "lr 1")
        return self.losses[epoch], 0.5, float(epoch)

    def _decided(self):
        return bool(self.history) and self.history[-1][0] <= self.enough

    def _found(self):
        return {"last": self.history[-1][0]}

    def _state(self):
        return {}

    def _restore(self, saved):
        raise AssertionError("nothing was saved")


@pytest.mark.parametrize(("enough", "epochs"), [(0.0, 3), (2.0, 2), (9.0, 1)])
def test_ends_when_it_has_decided_or_run_all_epochs(enough, epochs):
    found = Counting([3.0, 2.0, 1.0], enough, 3).run()
    assert (found["last"], found["epochs"]) == (4.0 - epochs, epochs)
    assert found["history"] == [(4.0 - 1 - index, 0.5, float(index)) for index in range(epochs)]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_the_epoch_of_a_loss_that_is_not_finite_is_named(loss):
    with pytest.raises(DivergedError, match="search, epoch 2, with lr 1"):
        Counting([1.0, loss], 0.0, 2).run()


@pytest.mark.parametrize("counts", [[7, 4, 1, 5], [2, 2], [1, 1, 1], [21, 12, 6]])
def test_halves_are_stratified(counts):
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]
    first, second = stratified_halves(labels, torch.Generator().manual_seed(1))
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(len(labels)))
    one, other = (torch.bincount(labels[half], minlength=len(counts)) for half in (first, second))
    assert (one - other).abs().max() <= 1


def test_another_seed_parts_otherwise():
    labels = torch.arange(3).repeat(13)
    parts = [stratified_halves(labels, torch.Generator().manual_seed(seed))[0] for seed in (1, 2)]
    assert not torch.equal(*parts)


def test_the_rate_is_a_cosine_that_would_end_at_the_lowest():
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9, weight_decay=0.0)
    rates = []
    for epoch in range(4):
        set_rate(optimizer, 0.1, epoch, 4)
        rates.append(optimizer.lr)
    expected = [1e-5 + (0.1 - 1e-5) * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert rates == pytest.approx(expected)
    set_rate(optimizer, 1e-6, 3, 4)
    assert optimizer.lr == 1e-6  # never raised
