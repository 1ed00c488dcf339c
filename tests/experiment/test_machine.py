"""What is recorded of the machine."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lifelong.errors import LifelongError
from lifelong.experiment.machine import choose_device, machine_name, peak_device_memory, peak_memory, set_threads, watch_device_memory
from lifelong.settings.device import ACCELERATORS

ROOT = Path(__file__).resolve().parents[2]


def test_peak_memory_is_the_process_s_own() -> None:
    """A small program started by a large one does not report the large one's peak; its own 200 MB count."""
    code = "from lifelong.experiment.machine import peak_memory; a = peak_memory(); b = bytearray(200_000_000); print(a, peak_memory())"
    ballast = bytearray(900_000_000)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    del ballast
    before, after = map(int, found)
    assert before < 800e6
    assert 190e6 < after - before < 250e6
    assert peak_memory() > 900e6


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak")
def test_a_process_that_gives_memory_back_has_a_new_peak() -> None:
    code = """if True:
        import torch
        from lifelong.experiment.machine import give_memory_back, peak_memory
        from lifelong.training.malloc import keep_freed_memory
        keep_freed_memory()
        large = [torch.ones(1_000_000) for _ in range(50)]
        top = torch.ones(1000)  # what is above stays, so that the heap cannot be cut
        del large
        before = peak_memory()
        give_memory_back()
        print(before, peak_memory())
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    before, after = map(int, found)
    assert 190e6 < before - after < 250e6


@pytest.mark.parametrize(("said", "one", "two"), [("3", 3, 1), ("1", 1, 1), ("2,4", 2, 1)])
def test_the_environment_says_how_many_threads(monkeypatch: pytest.MonkeyPatch, said: str, one: int, two: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert set_threads(0, 8) == set_threads(0, 64) == one
    assert set_threads(0, 64, at_once=1000) == two
    assert set_threads(4, 64) == 4
    set_threads(1, 8)


@pytest.mark.parametrize("nothing", ["", "0", "many", "²"])
def test_threads_follow_the_image_size(monkeypatch: pytest.MonkeyPatch, nothing: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", nothing)
    assert set_threads(0, 8) == 1
    assert set_threads(2, 8) == 2 == torch.get_num_threads()
    alone = set_threads(0, 32)
    assert alone >= 1
    assert set_threads(0, 32, at_once=2) == max(1, alone // 2)
    assert set_threads(0, 32, at_once=1000) == 1
    assert set_threads(3, 32, at_once=2) == 3
    set_threads(1, 8)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes PyTorch find so many cards of CUDA here, and a GPU of Apple's or none."""

    def make(cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return make


@pytest.mark.parametrize(
    ("there", "name", "device"),
    [
        ({}, "auto", "cpu"),
        ({}, "cpu", "cpu"),
        ({"cuda": 1}, "cpu", "cpu"),
        ({"cuda": 1}, "auto", "cuda"),
        ({"cuda": 1, "mps": True}, "auto", "cuda"),
        ({"mps": True}, "auto", "mps"),
        ({"mps": True}, "mps", "mps"),
        ({"cuda": 2}, "cuda", "cuda"),
        ({"cuda": 2}, "cuda:0", "cuda:0"),
        ({"cuda": 2}, "cuda:1", "cuda:1"),
    ],
)
def test_devices(there: dict[str, int], name: str, device: str, machine: Callable[..., None]) -> None:
    machine(**there)
    assert choose_device(name) == torch.device(device)


@pytest.mark.parametrize(
    ("there", "name", "words"),
    [
        ({}, "cuda", "finds no cuda device here; use --device cpu or auto"),
        ({}, "cuda:0", "finds no cuda device here"),
        ({"mps": True}, "cuda", "finds no cuda device here"),
        ({"cuda": 1}, "mps", "finds no mps device here"),
        ({"cuda": 1}, "cuda:1", "no such card here, only cuda:0; give one of these"),
        ({"cuda": 4}, "cuda:4", "no such card here, only cuda:0 to cuda:3"),
        ({"cuda": 1}, "gpu", "did you mean 'cuda'?"),
    ],
)
def test_devices_that_are_not_here(there: dict[str, int], name: str, words: str, machine: Callable[..., None]) -> None:
    machine(**there)
    with pytest.raises(LifelongError) as caught:
        choose_device(name)
    assert str(caught.value).startswith(f"--device {name}: ")
    assert words in str(caught.value)


def test_a_device_that_pytorch_finds_is_looked_for_by_its_kind(accelerator: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACCELERATORS, "pretend", True)
    assert choose_device("pretend") == accelerator
    assert choose_device("pretend:0") == torch.device("pretend", 0)
    with pytest.raises(LifelongError, match="only pretend:0"):
        choose_device("pretend:1")


def test_names_of_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    words = machine_name(torch.device("cpu"))
    assert words.endswith(" cores")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert machine_name(torch.device("cuda", 1)) == f"{words}, card 1"
    assert machine_name(torch.device("mps")) == f"{words}, its GPU (mps)"


def test_memory_of_a_device_is_that_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    most = {0: 7, 1: 9}
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: most.update({device.index: 0}))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: most[device.index])
    watch_device_memory(torch.device("cuda", 1))
    assert [peak_device_memory(torch.device("cuda", number)) for number in (0, 1)] == [7, 0]
    watch_device_memory(torch.device("cpu"))
    assert peak_device_memory(torch.device("cpu")) is peak_device_memory(torch.device("mps")) is None
