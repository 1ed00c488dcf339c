"""The library of learned modules."""

import torch
from torch import nn

from lifelong.networks.library import ModuleLibrary


def make(position: int) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) if position else nn.Linear(3, 2)


def filled() -> ModuleLibrary:
    torch.manual_seed(0)
    library = ModuleLibrary(make, 2)
    assert [library.add(position, make(position)) for position in (0, 1, 1)] == [0, 0, 1]
    return library


def test_what_comes_in_is_frozen() -> None:
    modules = filled().chain((0, 1))
    assert not any(module.training for module in modules)
    assert not any(p.requires_grad for module in modules for p in module.parameters())


def test_a_path_may_end_early() -> None:
    library = filled()
    assert library.chain((0,)) == [library.modules[0][0]]
    assert library.chain((0, 1)) == [library.modules[0][0], library.modules[1][1]]


def test_a_library_is_rebuilt_from_its_state() -> None:
    library, other = filled(), ModuleLibrary(make, 2)
    other.add(0, make(0))  # is dropped
    other.load_state_dict(library.state_dict())
    for ours, theirs in zip(library.modules, other.modules, strict=True):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
            assert not b.training


def test_along_paths_common_beginnings_are_computed_once() -> None:
    library = filled()
    library.add(0, make(0))
    paths = [(), (0,), (0, 0), (0, 1), (1, 0), (1, 1)]
    x = torch.randn(4, 3)
    expected = [nn.Sequential(*library.chain(path))(x) for path in paths]
    calls = []
    for position, modules in enumerate(library.modules):
        for module in modules:
            module.register_forward_hook(lambda module, inputs, output, position=position: calls.append(position))
    assert list(map(torch.equal, library.along(paths, x), expected)) == [True] * 6
    assert calls == [0, 1, 1, 0, 1, 1]
