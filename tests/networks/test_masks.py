"""Masks as bits, the selection by scores and its straight-through gradient, owners of weights."""

import math

import pytest
import torch
from torch import nn

from lifelong.networks.masks import Owners, TaskMasks, add_masks, largest, masked, pack, straight_through, unpack, use_masks, with_masks


def drawn(count: int, share: float = 0.5) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(count)) < share


def test_bits_by_hand():
    mask = torch.tensor([True, False, True, False, False, False, False, True, True])
    assert pack(mask).tolist() == [1 + 4 + 128, 1]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 600])
def test_packing_takes_an_eighth_of_a_byte_and_loses_nothing(count):
    mask = drawn(count)
    packed = pack(mask)
    assert packed.nbytes == math.ceil(count / 8)
    assert torch.equal(unpack(packed, count), mask)
    assert torch.equal(unpack(torch.stack([packed, pack(~mask)]), count), torch.stack([mask, ~mask]))


@pytest.mark.parametrize("kept", [1, 3, 11, 12])
def test_the_largest_are_those_of_a_sort(kept):
    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(kept))
    wanted = torch.zeros(12, dtype=torch.bool)
    wanted[sorted(range(12), key=lambda place: -abs(scores.flatten()[place].item()))[:kept]] = True
    assert torch.equal(largest(scores, kept), wanted.view(3, 4))


def test_equal_scores_at_the_threshold_are_all_selected():
    assert largest(torch.tensor([1.0, -2.0, 2.0, -0.5]), 1).tolist() == [False, True, True, False]


def test_the_gradient_passes_straight_through():
    """A layer of two inputs and two outputs by hand: y = (m * w) x, L = c . y."""
    layer = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
    with_masks(layer, TaskMasks)
    ((weight, masks),) = masked(layer, TaskMasks).values()
    masks.begin(torch.tensor([[0.5, -0.1], [-0.7, 0.2]], dtype=torch.float64), kept=2)
    x, c = torch.tensor([5.0, 7.0], dtype=torch.float64), torch.tensor([10.0, 100.0], dtype=torch.float64)
    y = layer(x)
    assert y.tolist() == [1 * 5, 3 * 5]
    (c @ y).backward()
    g = torch.outer(c, x)  # the gradient of the masked weight
    assert torch.equal(weight.grad, g * torch.tensor([[1, 0], [1, 0]]))
    assert torch.equal(masks.scores.grad, torch.tensor([[1, -1], [-1, 1]]) * g * weight)


def test_a_mask_of_scores_is_exact():
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(straight_through(scores, 300), largest(scores, 300).float())


def test_each_task_has_its_mask():
    layer = with_masks(nn.Conv2d(3, 4, 3), TaskMasks)
    ((weight, masks),) = masked(layer, TaskMasks).values()
    scores = []
    for task in range(3):
        if task:
            add_masks(layer)
        masks.begin(torch.randn(weight.shape, generator=torch.Generator().manual_seed(task)), kept=10 * (task + 1))
        scores.append(masks.end())
    assert masks.nbytes() == 3 * math.ceil(108 / 8)
    for task in range(3):
        use_masks(layer, task)
        assert torch.equal(layer.weight, weight * largest(scores[task], 10 * (task + 1)))
        assert int((layer.weight != 0).sum()) == 10 * (task + 1)
    assert torch.equal(masks.union(2).view(weight.shape), largest(scores[0], 10) | largest(scores[1], 20))


def test_owners_take_as_few_bits_as_they_need():
    """Of numbers 0 .. T: ceil(log2(T + 1)) bits per weight, once for all tasks."""
    owners = Owners(torch.zeros(50))
    for tasks in range(1, 18):
        if tasks > 1:
            owners.add_task()
        numbers = torch.randint(0, tasks + 1, (50,), generator=torch.Generator().manual_seed(tasks), dtype=torch.int32)
        owners.set(numbers)
        assert torch.equal(owners.get(), numbers)
        assert owners.nbytes() == math.ceil(math.log2(tasks + 1)) * math.ceil(50 / 8)


def test_a_task_uses_what_it_or_an_earlier_one_owns():
    layer = with_masks(nn.Linear(5, 1, bias=False), Owners)
    ((weight, owners),) = masked(layer, Owners).values()
    add_masks(layer)
    add_masks(layer)
    owners.set(torch.tensor([0, 1, 2, 3, 1], dtype=torch.int32))
    for task, used in enumerate(([0, 1, 0, 0, 1], [0, 1, 1, 0, 1], [0, 1, 1, 1, 1])):
        use_masks(layer, task)
        assert torch.equal(layer.weight, weight * torch.tensor(used))
