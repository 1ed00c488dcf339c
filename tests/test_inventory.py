"""Many modules are compared at once; what is found is what comparing each would find."""

import copy
import gc

import pytest
import torch
from torch import nn

from lifelong import inventory
from lifelong.inventory import Inventory, settled, size_of
from lifelong.uncollected import uncollected


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU())


def written_to(module: nn.Sequential) -> None:
    nn.init.zeros_(module[0].weight)


def replaced(module: nn.Sequential) -> None:
    module[0].weight = nn.Parameter(torch.zeros(2, 3))


def given_a_buffer(module: nn.Sequential) -> None:
    module[2].register_buffer("more", torch.zeros(1))


def given_a_module(module: nn.Sequential) -> None:
    module[2].add_module("more", nn.Identity())


def robbed(module: nn.Sequential) -> None:
    del module[1]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "BLOCK", 2)


@pytest.mark.parametrize("change", [written_to, replaced, given_a_buffer, given_a_module, robbed])
@pytest.mark.parametrize("place", [0, 3, 4])
def test_a_change_is_found_in_every_block(change, place: int) -> None:
    modules, known = [net() for _ in range(5)], Inventory()
    assert known.look(modules) == modules
    assert known.look(modules) == []
    change(modules[place])
    assert known.look(modules) == [modules[place]]
    modules.append(net())
    assert known.look(modules) == modules[-1:]
    change(modules[-1])
    assert known.look(modules) == modules[-1:]
    assert known.look(modules) == []
    assert known.holds(modules)
    assert known.size() == size_of(modules) == (count(modules), 4 * count(modules))


def count(modules: list[nn.Sequential]) -> int:
    return sum({id(each): each.numel() for module in modules for each in module.parameters()}.values())


def test_modules_come_and_go() -> None:
    modules, known = [net() for _ in range(5)], Inventory()
    known.look(modules)
    written_to(modules[4])
    assert modules[4] in known.look(modules[1:])
    assert known.look(modules[1:]) == []
    assert known.size().parameters == count(modules[1:])
    other = net()
    assert known.look([modules[1], other, *modules[3:]]) == [other]
    assert not known.holds(modules[1:])
    # Shared weights count once, whichever block has them.
    modules[3][0].weight = modules[1][0].weight
    assert modules[3] in known.look(modules[1:])
    assert known.size().parameters == count(modules[1:]) == 4 * 12 - 6


def test_where_nothing_changes_nothing_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    modules, known, own = [net() for _ in range(3)], Inventory(), Inventory()
    known.look(modules)
    monkeypatch.setattr(Inventory, "look", lambda *given: pytest.fail("looked again"))
    with settled(known):
        assert size_of([*modules, modules[0]], own).parameters == count(modules)
    monkeypatch.undo()
    with settled(known):  # of other modules it knows nothing
        assert size_of(modules[:2], own).parameters == count(modules[:2])
    # A copy has other tensors, of other ids.
    again, copied = copy.deepcopy((known, modules))
    assert not again.holds(copied)
    assert size_of(copied, again).parameters == count(modules)


def test_cycles_are_searched_for_again_after_the_last_block() -> None:
    assert gc.isenabled()
    with uncollected():
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError):
        uncollected()(dict[str, str].__getitem__)({}, "missing")
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
