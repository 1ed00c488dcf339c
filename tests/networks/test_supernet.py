import pytest
import torch
from torch import nn

from lifelong.networks.genotype import EDGES, OPERATIONS
from lifelong.networks.supernet import SuperNetwork

NOTHING = (0,) * 14


def some_path(seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    draws = torch.randint(len(OPERATIONS), (2, 14), generator=torch.Generator().manual_seed(seed)).tolist()
    return tuple(draws[0]), tuple(draws[1])


def test_parameter_total():
    assert sum(parameter.numel() for parameter in SuperNetwork(10, 64).parameters()) == 949_066


def owner(name: str, path: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
    """Whether a parameter `cells.i.edges.e.o...` is on the path; all others are always used."""
    words = name.split(".")
    if words[0] != "cells" or words[2] != "edges":
        return True
    plan = path[1] if int(words[1]) in (1, 2) else path[0]
    return plan[int(words[3])] == int(words[4])


@pytest.mark.parametrize("seed", range(4))
def test_only_the_path_is_computed_and_changed(seed):
    """No parameter, buffer or gradient of an operation off the path changes, and its forward pass does not run."""
    torch.manual_seed(0)
    network = SuperNetwork(3, 4)
    # Every node has an operation, so that nothing on the path is cut off from the loss.
    path = tuple(tuple(max(choice, 1) for choice in plan) for plan in some_path(seed))
    ran = set()
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.add(name))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(torch.randn(4, 3, 8, 8), path), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == owner(name, path), name
        assert torch.equal(parameter, before[name]) != owner(name, path), name
    for name, _ in network.named_buffers():
        assert owner(name, path), f"{name}: a buffer"
    operations = {name for name in ran if ".edges." in name and name.count(".") == 4}
    assert len(operations) == 4 * len(EDGES)
    assert all(owner(name, path) for name in operations)


def test_a_path_of_nothing_gives_the_bias():
    network = SuperNetwork(3, 4)
    assert torch.equal(network(torch.randn(2, 3, 8, 8), (NOTHING, NOTHING)), network.head.bias.expand(2, 3))


def test_none_on_one_edge_leaves_the_rest():
    """A node is the sum of the operations on its edges: here one pool, then its batch norm."""
    network = SuperNetwork(3, 4, cells=1)
    plan = (0, 1, *NOTHING[2:])
    cell = network.cells[0]
    images = torch.randn(2, 3, 8, 8)
    features = {}
    network.head.register_forward_pre_hook(lambda _, inputs: features.update(x=inputs[0]))
    network(images, (NOTHING, plan))
    x = network.stem(images)
    x = cell.preprocess1.body(x.relu())
    x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
    x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    expected = torch.cat([x.mean((2, 3)), torch.zeros(2, 12)], dim=1)
    torch.testing.assert_close(features["x"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [8, 9, 32])
@pytest.mark.parametrize("reduce_bn", [True, False])
def test_sizes(size, reduce_bn):
    network = SuperNetwork(3, 4, reduce_bn=reduce_bn)
    for seed in range(3):
        assert network(torch.randn(2, 3, size, size), some_path(seed)).isfinite().all()
