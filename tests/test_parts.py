"""States part by part: they come back as they went, what has not changed is not written again, and what is damaged is found."""

import random
from pathlib import Path

import pytest
import torch
from torch import nn

from lifelong.errors import DamagedError, LifelongError
from lifelong.parts import MANY, RUN, PartStore
from lifelong.segment import FOLDERS, Segment
from lifelong.segments import Segments
from lifelong.storage import Seal, load_tree, read_root, read_tree, save_tree
from lifelong.trees import Fixed, known_by, weights_of
from lifelong.watch import Watch, digest_of_modules
from tests.trees import same


def saved(store: PartStore, file: Path, tree: dict) -> int:
    """Store a state and return how many bytes that took in each folder of segments."""
    before = {each: each.stat().st_size for each in (file.parent / FOLDERS[0]).glob("*")}
    save_tree(file, store.put(tree))
    return sum(each.stat().st_size for each in (file.parent / FOLDERS[0]).glob("*") if each not in before)


def made(folder: Path) -> PartStore:
    return PartStore(folder, Seal("run", folder))


def tree_of(count: int) -> dict:
    """A state of so many tasks, with values of all kinds."""
    chance = torch.Generator().manual_seed(0)
    return {
        "experts": [{"weight": torch.randn(8, 8, generator=chance), "steps": torch.tensor(3)} for _ in range(count)],
        "names": [f"task {index}" for index in range(count)],
        "long": ["x" * 300] * count,
        "pairs": [(index, None, True) for index in range(count)],
        "numbers": [index / 7 for index in range(count)],
        "whole": list(range(count)),
        "mixed": [1, 2.5, *range(count)],
        "nested": {3: {"deep": [[[float("inf"), -0.0]] * count]}, "empty": [], "nothing": {}},
        "text": 'é\n \\ " {}',
    }


@pytest.mark.parametrize("count", [0, 1, RUN, RUN + 1, MANY, RUN * RUN, RUN * RUN + RUN + 3])
def test_a_state_comes_back(tmp_path: Path, count: int) -> None:
    tree = tree_of(count)
    saved(made(tmp_path), tmp_path / "state", tree)
    back = load_tree(tmp_path / "state")
    assert same(back, tree)
    assert [type(each) for each in back["whole"]] == [int] * count
    assert all(type(each) is float for each in back["numbers"])
    assert str(back["nested"][3]["deep"][0][:1]) == ("[[inf, -0.0]]" if count else "[]")


def test_a_random_tree_comes_back(tmp_path: Path) -> None:
    chance = random.Random(0)

    def drawn(depth: int) -> object:
        kinds = [chance.random, lambda: chance.randrange(9), lambda: "a" * chance.randrange(200), lambda: torch.arange(chance.randrange(5))]
        if depth:
            kinds += [
                lambda: [drawn(depth - 1) for _ in range(chance.randrange(40))],
                lambda: {str(key): drawn(depth - 1) for key in range(chance.randrange(9))},
                lambda: tuple(drawn(depth - 1) for _ in range(chance.randrange(4))),
            ] * 2
        return chance.choice(kinds)()

    store = made(tmp_path)
    for _ in range(8):
        tree = {"tree": drawn(3)}
        saved(store, tmp_path / "state", tree)
        assert same(load_tree(tmp_path / "state"), tree)


def test_equal_tensors_come_back_apart(tmp_path: Path) -> None:
    one = torch.ones(50)
    saved(made(tmp_path), tmp_path / "state", {"a": [one, one], "b": one.clone()})
    back = load_tree(tmp_path / "state")
    back["a"][0].zero_()
    assert torch.equal(back["a"][1], one)
    assert torch.equal(back["b"], one)


def test_what_a_save_writes_does_not_grow(tmp_path: Path) -> None:
    """A list that grows by one item, and five small ones beside it: of the 100th task a save writes little more than of the 20th."""
    store, experts, names, numbers = made(tmp_path), [], [], []
    sizes = {}
    for index in range(110):
        experts.append(Fixed(weight=torch.full((10, 10), float(index)), name=f"task {index}"))
        names.append(f"task {index}")
        numbers.append(Fixed(tasks=[index], accuracy=[index / 1000]))
        tree = {"experts": experts, "names": names, "numbers": numbers, "long": [f"{index}" * 100 for index in range(len(names))]}
        sizes[index] = saved(store, tmp_path / "state", tree)
    early, late = (max(sizes[index] for index in range(start, start + 20)) for start in (20, 90))
    assert late < 1.6 * early
    assert same(load_tree(tmp_path / "state"), tree)
    # Another process that opens the folder knows what is there.
    assert saved(made(tmp_path), tmp_path / "state", tree) == 0


def test_items_that_change_within_long_lists_are_found(tmp_path: Path) -> None:
    """Runs of a list are remembered by what they hold: another item, one that was changed in place, one less, and an old one come back."""
    store, chance = made(tmp_path), random.Random(0)
    items: list[object] = [Fixed(number=float(place), text="x" * 40) for place in range(70)]
    plain = [{"number": place} for place in range(70)]
    paths: list[tuple[object, ...]] = [(place, place % 3) for place in range(70)]
    deep = [([place], place) for place in range(70)]
    for _ in range(12):
        paths[chance.randrange(len(paths))] = (chance.randrange(1000), True)
        deep[chance.randrange(len(deep))][0][0] = chance.randrange(1000)
        items[chance.randrange(len(items))] = Fixed(number=chance.random(), text="y" * 40)
        plain[chance.randrange(len(plain))]["number"] = chance.randrange(1000)
        items.insert(chance.randrange(len(items)), items.pop(0))
        if chance.random() < 0.5:
            del items[-1]
        tree = {"items": items, "names": [f"{place}" for place in range(len(items))], "plain": plain, "paths": paths, "deep": deep}
        saved(store, tmp_path / "state", tree)
        assert same(load_tree(tmp_path / "state"), tree)


def test_tuples_of_plain_values_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, paths = made(tmp_path), [(place, None, 0.5) for place in range(64)]
    store.put({"paths": paths})
    seen: list[object] = []
    look = PartStore._text
    monkeypatch.setattr(PartStore, "_text", lambda store, tree: seen.append(tree) or look(store, tree))
    new = (64, None, 0.5)
    save_tree(tmp_path / "state", store.put({"paths": [*paths, new]}))
    assert seen == [[*paths, new], new, *new]
    assert same(load_tree(tmp_path / "state"), {"paths": [*paths, new]})


def test_a_root_says_little_and_needs_no_parts(tmp_path: Path) -> None:
    save_tree(tmp_path / "state", made(tmp_path).put(tree_of(300)) | {"identity": {"seed": 1}})
    assert (tmp_path / "state").stat().st_size < 2000
    for folder in FOLDERS:
        for file in (tmp_path / folder).iterdir():
            file.unlink()
    assert read_root(tmp_path / "state").tree["identity"] == {"seed": 1}
    with pytest.raises(DamagedError, match="a part of the state is missing"):
        load_tree(tmp_path / "state")


@pytest.mark.parametrize("place", FOLDERS)
def test_a_damaged_copy_is_read_from_the_other_and_mended(tmp_path: Path, place: str) -> None:
    tree = tree_of(40)
    saved(made(tmp_path), tmp_path / "state", tree)
    file = tmp_path / place / "000000.safetensors"
    whole, chance = file.read_bytes(), random.Random(0)
    for number in range(25):
        content = bytearray(whole)
        bit = chance.randrange(8 * len(whole))
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content if number else b"")
        assert same(load_tree(tmp_path / "state"), tree)
        store = made(tmp_path)
        assert [error is None for error in store.check(file.name).values()] == [each != place for each in FOLDERS]
        assert store.repair() == [f"checkpoint/{place}/{file.name} was damaged or missing; rewritten from its copy"]
        assert file.read_bytes() == whole


def test_what_is_damaged_in_both_copies_is_refused(tmp_path: Path) -> None:
    saved(made(tmp_path), tmp_path / "state", tree_of(40))
    for place in FOLDERS:
        file = tmp_path / place / "000000.safetensors"
        content = bytearray(file.read_bytes())
        content[-1500] ^= 1
        file.write_bytes(content)
    with pytest.raises(LifelongError, match="does not fit its digest"):
        load_tree(tmp_path / "state")


def test_a_segment_of_another_run_or_place_is_not_used(tmp_path: Path) -> None:
    tree = tree_of(3)
    for name, run in (("mine", "run"), ("other", "another")):
        store = PartStore(tmp_path / name, Seal(run, tmp_path / name))
        save_tree(tmp_path / name / "state", store.put(tree))
    for place in FOLDERS:
        (tmp_path / "mine" / place / "000000.safetensors").write_bytes((tmp_path / "other" / place / "000000.safetensors").read_bytes())
    mine = made(tmp_path / "mine")
    with pytest.raises(DamagedError, match="belongs to another run"):
        read_tree(tmp_path / "mine" / "state", parts=mine)
    # Its two copies are not taken for each other either.
    with pytest.raises(LifelongError, match="another place"):
        Segment.open(tmp_path / "other" / "mirror" / "000000.safetensors", "another/parts/000000.safetensors")


def test_numbers_are_plain_values(tmp_path: Path) -> None:
    from lifelong.storage import read_plain

    saved(made(tmp_path), tmp_path / "state", {"many": [index / 3 for index in range(MANY)], "tensor": torch.ones(3)})
    assert read_plain(tmp_path / "state").tree == {"many": [index / 3 for index in range(MANY)], "tensor": None}


# Which modules have changed


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def trained(module: nn.Sequential) -> None:
    torch.optim.SGD(module.parameters(), lr=0.1, foreach=True).zero_grad()
    module[0](torch.randn(2, 3, 8, 8)).sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()


def replaced(module: nn.Sequential) -> None:
    module[2] = nn.Linear(4, 2)


def extended(module: nn.Sequential) -> None:
    module.add_module("more", nn.Linear(2, 2))


def parameter_replaced(module: nn.Sequential) -> None:
    module[2].bias = nn.Parameter(torch.zeros(2))


def buffer_changed(module: nn.Sequential) -> None:
    module[1].train()(torch.randn(4, 4, 3, 3))


def loaded(module: nn.Sequential) -> None:
    module.load_state_dict({name: tensor.clone() for name, tensor in module.state_dict().items()})


def assigned(module: nn.Sequential) -> None:
    with torch.no_grad():
        module[0].weight[0] = 1


@pytest.mark.parametrize("change", [trained, replaced, extended, parameter_replaced, buffer_changed, loaded, assigned])
def test_a_change_is_seen(change) -> None:
    """Of one module among others, of which nothing is said; also of those with which it answers for a task, which hold what they held."""
    modules = [net(), net(), net()]
    tasks, watch = [(modules[0],), (modules[0], modules[1]), (modules[2],)], Watch()
    assert watch.look(tasks) == modules
    assert watch.look(tasks) == []
    before = watch.digests(tasks)
    change(modules[1])
    assert watch.look(tasks) == [modules[1]]
    assert watch.digests(tasks) == [before[0], digest_of_modules(tasks[1]), before[2]]


def test_what_changes_unseen_beside_what_is_seen_is_stored(tmp_path: Path) -> None:
    """A head that is written to behind PyTorch's back while its network is trained."""
    modules, watch, store = (net(), net()), Watch(), made(tmp_path)
    for _ in range(2):
        watch.look([modules])
        with known_by(watch.serial):
            tree = {"modules": [weights_of(module) for module in modules]}
        save_tree(tmp_path / "state", store.put(tree))
        assert same(load_tree(tmp_path / "state"), {"modules": [dict(module.state_dict()) for module in modules]})
        trained(modules[0])
        modules[1][0].weight.data.add_(1)


def test_a_change_behind_pytorchs_back_is_found_in_time() -> None:
    modules = [net() for _ in range(5)]
    tasks, watch = [(module,) for module in modules], Watch()
    watch.look(tasks)
    watch.digests(tasks)
    modules[3][0].weight.data.add_(1)
    assert watch.look(tasks) == []
    assert watch.doubt(tasks, 2) is False
    assert watch.doubt(tasks, 2) is True
    assert not watch.trusting
    assert watch.look(tasks) == modules
    assert watch.digests(tasks) == [digest_of_modules(each) for each in tasks]


def test_known_weights_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules, watch, store = [net(), net()], Watch(), made(tmp_path)

    def save() -> None:
        watch.look([(module,) for module in modules])
        with known_by(watch.serial):
            tree = {"modules": [weights_of(module) for module in modules]}
        save_tree(tmp_path / "state", store.put(tree))

    save()
    read: list[nn.Module] = []
    monkeypatch.setattr(nn.Sequential, "state_dict", lambda module: read.append(module) or nn.Module.state_dict(module))
    trained(modules[1])
    save()
    assert read == [modules[1]]
    assert isinstance(weights_of(modules[0]), dict)
    monkeypatch.undo()
    assert same(load_tree(tmp_path / "state"), {"modules": [dict(module.state_dict()) for module in modules]})


def test_parameters_are_counted_once(tmp_path: Path) -> None:
    from lifelong.methods.method import count_parameters

    shared = net()
    both = nn.Sequential(shared, nn.Linear(2, 2))
    assert count_parameters([shared, both, shared]) == sum(parameter.numel() for parameter in both.parameters())
    extended(shared)
    assert count_parameters([shared, both]) == sum(parameter.numel() for parameter in both.parameters())
    assert Segments(tmp_path).names() == []
