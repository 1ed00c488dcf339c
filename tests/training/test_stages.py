"""Stages: seeds of their own, saves now and then, outcomes for good."""

import time
from pathlib import Path

import pytest
import torch

from lifelong.errors import LifelongError
from lifelong.training.stages import Stage, clear, derive_seed, go_on, seeded


def test_seeds_are_made_of_names() -> None:
    assert derive_seed(0, 1, "train") == derive_seed(0, 1, "train")
    seeds = {derive_seed(run, task, name) for run in range(3) for task in range(3) for name in ("train", "search", "head")}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 11) != derive_seed(11, 1)
    assert derive_seed(0, 0, "train") == 2025571791828475621  # the same on every machine and for ever


def test_seeded_blocks_seed_no_device_that_is_not_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch would keep the seed, and give it to the program around us as soon as that uses a GPU."""
    monkeypatch.setattr(torch.cuda, "_lazy_call", lambda *args, **kwargs: pytest.fail("a seed is left behind"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with seeded(5):
        drawn = torch.rand(3)
    with seeded(5):
        assert torch.rand(3).equal(drawn)


def test_seeded_blocks_leave_the_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with seeded(5):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(5):
        assert torch.equal(torch.rand(2), inside)


def test_seeded_blocks_leave_the_generator_of_an_apple_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    state = ["before"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda device: state[0])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda saved, device: state.__setitem__(0, saved))
    with seeded(5):
        state[0] = "drawn from"
    assert state == ["before"]


def test_generators_go_on() -> None:
    first, second = torch.Generator().manual_seed(1), torch.Generator()
    torch.rand(3, generator=first)
    go_on(second, first.get_state(), seed=7)
    assert torch.equal(torch.rand(3, generator=second), torch.rand(3, generator=first))


def test_a_generator_of_another_kind_of_device_starts_from_the_seed() -> None:
    """A state of CUDA's has 16 bytes, one of the CPU's 5056."""
    generator = torch.Generator().manual_seed(1)
    go_on(generator, torch.zeros(16, dtype=torch.uint8), seed=7)
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=torch.Generator().manual_seed(7)))


def test_states_are_saved_now_and_then(tmp_path: Path) -> None:
    stage = Stage("train", 0, folder=tmp_path, save_every=0.2)
    stage.save(lambda: pytest.fail("saved at once"))
    time.sleep(0.25)
    stage.save(lambda: {"epoch": 1})
    stage.save(lambda: pytest.fail("saved twice"))
    assert stage.running() == {"epoch": 1}
    assert stage.outcome() is None
    stage.finish({"done": True})
    assert stage.running() is None
    assert Stage("train", 1, folder=tmp_path).outcome() == {"done": True}
    clear(tmp_path)
    assert not tmp_path.exists()


def test_without_a_folder_nothing_is_kept() -> None:
    stage = Stage("train", 0, save_every=0.0)
    stage.save(lambda: pytest.fail("built"))
    stage.finish({})
    assert stage.outcome() is None
    assert stage.running() is None


def test_generators_start_from_the_seed() -> None:
    stage = Stage("train", 7)
    assert torch.equal(torch.rand(3, generator=stage.generator()), torch.rand(3, generator=torch.Generator().manual_seed(7)))


def test_divergence_says_where() -> None:
    with pytest.raises(LifelongError, match=r"task 'x', search, epoch 3, with search_lr 1"):
        Stage("search", 0, where="task 'x', search").diverged(3, "search_lr 1")
