"""Modules that are copies of the first of their form: nobody can tell, and what could be told apart is built."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lifelong.networks.cells import CellNetwork
from lifelong.networks.copies import LoadedModules, loading
from lifelong.networks.genotype import DARTS_V1
from lifelong.networks.resnet import LightResNet
from lifelong.networks.tasknorm import with_task_norms


def networks(build: Callable[[], nn.Module]) -> tuple[list[nn.Module], list[nn.Module], int]:
    """Three networks of their own weights, the same loaded as such, and how many of these were built."""
    torch.manual_seed(0)
    wanted = [build() for _ in range(3)]
    for network in wanted:
        for tensor in network.buffers():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
        network.eval().requires_grad_(False)
    built = []

    def counted() -> nn.Module:
        built.append(build())
        return built[-1]

    loaded = LoadedModules("cpu")
    return wanted, [loaded("form", counted, network.state_dict()) for network in wanted], len(built)


@pytest.mark.parametrize("build", [lambda: CellNetwork(DARTS_V1, 2), lambda: LightResNet(2), lambda: nn.Linear(3, 2, bias=False)])
def test_copies_are_as_if_they_were_built(build) -> None:
    wanted, found, built = networks(build)
    assert built == 1
    images = torch.randn(2, 3, 8, 8) if not isinstance(wanted[0], nn.Linear) else torch.randn(2, 3)
    for one, other in zip(wanted, found, strict=True):
        assert torch.equal(one(images), other(images))
        assert list(one.state_dict()) == list(other.state_dict())
        assert str(one) == str(other)
        assert not any(module.training for module in other.modules())
        assert not any(parameter.requires_grad for parameter in other.parameters())
    # Each has its own: what is done to one is not done to another.
    found[1].train().requires_grad_(True)
    found[1].register_forward_hook(lambda *given: pytest.fail("a hook of another"))
    with torch.no_grad():
        for parameter in found[1].parameters():
            parameter.zero_()
    for one, other in zip(wanted[::2], found[::2], strict=True):
        assert torch.equal(one(images), other(images))
        assert not other.training


@pytest.mark.parametrize("own", [True, False])
def test_weights_that_nobody_else_has_are_taken_over(own: bool) -> None:
    """But for those that another module has taken, and those that lie otherwise than PyTorch would lay them."""
    given = [{"weight": torch.randn(2, 32)} for _ in range(3)] + [{"weight": torch.randn(65)[1:].view(2, 32)}]
    given[2] = given[1]
    made = LoadedModules("cpu")
    with loading(own=own) as known:
        found = [made("form", lambda: nn.Linear(32, 2, bias=False), weights) for weights in given]
    places = [module.weight.data_ptr() == weights["weight"].data_ptr() for module, weights in zip(found, given, strict=True)]
    assert places == [False, own, False, False]
    assert all(torch.equal(module.weight, weights["weight"]) for module, weights in zip(found, given, strict=True))
    # The first was built: whether it is of the same form, nothing says.
    assert [known.is_of(module, weights) for module, weights in zip(found, given, strict=True)] == [False, True, True, True]
    assert not known.is_of(found[1], dict(given[1]))
    assert [known.serial(module) is None for module in found] == [True, False, False, False]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(2, 2), nn.Linear(2, 2)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.one(x))


class Remembers(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 2)
        self.memory = object()


class Borrows(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 2)
        self.lender = (nn.Linear(2, 2),)


def hooked() -> nn.Module:
    network = nn.Linear(2, 2)
    network.register_forward_hook(lambda module, given, answer: 2 * answer)
    return network


@pytest.mark.parametrize("build", [Tied, Remembers, Borrows, hooked, lambda: with_task_norms(LightResNet(2), "per-task")])
def test_what_a_copy_might_not_have_is_built_each_time(build) -> None:
    wanted, found, built = networks(build)
    assert built == 3
    if isinstance(wanted[0], Tied):
        assert found[2].one.weight is found[2].other.weight


def test_weights_of_another_form_are_refused_as_ever() -> None:
    loaded = LoadedModules("cpu")
    loaded("form", lambda: nn.Linear(3, 2), nn.Linear(3, 2).state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        loaded("form", lambda: nn.Linear(3, 2), nn.Linear(4, 2).state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        loaded("form", lambda: nn.Linear(3, 2), {"weight": torch.zeros(2, 3)})


def test_lists_of_a_copy_are_its_own() -> None:
    def build() -> nn.Module:
        network = nn.Linear(2, 2)
        network.seen = [[1]]
        return network

    _, found, built = networks(build)
    assert built == 1
    found[1].seen[0].append(2)
    assert [network.seen for network in found] == [[[1]], [[1, 2]], [[1]]]
