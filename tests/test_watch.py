"""What is known of modules without reading them again."""

import pytest
import torch
from torch import nn

from lifelong import watch
from lifelong.watch import Watch, digest_of_modules


def test_what_tasks_share_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen network at the beginning of every task's modules is hashed for the first task only, until it changes."""
    frozen, heads = nn.Linear(3, 3).requires_grad_(False), [nn.Linear(3, 2) for _ in range(3)]
    read = []
    update = watch._update
    monkeypatch.setattr(watch, "_update", lambda digest, module: read.append(module) or update(digest, module))
    known = Watch()
    for count in (1, 2, 3):
        tasks = [(frozen, head) for head in heads[:count]]
        known.look(tasks)
        found = known.digests(tasks)
    assert [module is frozen for module in read] == [True, False, False, False]
    nn.init.zeros_(frozen.weight)
    known.look(tasks)
    changed = known.digests(tasks)
    assert read.count(frozen) == 2
    assert not set(found) & set(changed)
    # What changes behind PyTorch's back is found where something else of its task has changed.
    frozen.weight.data[0, 0] = 1.0
    known.look(tasks)
    assert known.digests(tasks) == changed
    nn.init.zeros_(heads[0].weight)
    known.look(tasks)
    changed = known.digests(tasks)
    monkeypatch.undo()
    assert changed == [digest_of_modules(modules) for modules in tasks]


def test_what_stands_beside_a_change_is_named_if_it_holds_something_else() -> None:
    """A head keeps its number, and so its place in what is saved, when only the network that it shares has changed."""
    shared, heads = nn.Linear(3, 3), [nn.Linear(3, 2) for _ in range(3)]
    tasks, known = [(shared, head) for head in heads], Watch()
    known.look(tasks)
    known.digests(tasks)
    before = [known.serial(head) for head in heads]
    nn.init.zeros_(shared.weight)
    heads[1].weight.data[0, 0] = 5.0
    assert set(known.look(tasks)) == {shared, heads[1]}
    assert [known.serial(head) == serial for head, serial in zip(heads, before, strict=True)] == [True, False, True]
    assert known.digests(tasks) == [digest_of_modules(modules) for modules in tasks]


def one_value(weight: torch.Tensor) -> None:
    weight[40, 700] += 1e-3


def rows_that_trade_places(weight: torch.Tensor) -> None:
    weight[[3, 40]] = weight[[40, 3]]


def values_that_trade_places(weight: torch.Tensor) -> None:
    weight[3, [0, 2]] = weight[3, [2, 0]]


@pytest.mark.parametrize("width", [256, 1024, 2042])
@pytest.mark.parametrize("change", [one_value, rows_that_trade_places, values_that_trade_places])
def test_a_large_module_is_doubted(width: int, change) -> None:
    """Whatever becomes of its values behind PyTorch's back, also where none of them is new."""
    head = nn.Linear(max(width, 701), 64)
    known = Watch()
    known.look([(head,)])
    known.digests([(head,)])
    assert known.doubt([(head,)], 1) is False
    change(head.weight.data)
    assert known.doubt([(head,)], 1) is True
