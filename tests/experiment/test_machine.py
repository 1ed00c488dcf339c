"""What is recorded of the machine."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lifelong.errors import LifelongError
from lifelong.experiment.machine import choose_device, machine_name, peak_memory, set_threads

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


def test_threads_follow_the_image_size() -> None:
    assert set_threads(0, 8) == 1
    assert set_threads(2, 8) == 2 == torch.get_num_threads()
    alone = set_threads(0, 32)
    assert alone >= 1
    assert set_threads(0, 32, at_once=2) == max(1, alone // 2)
    assert set_threads(0, 32, at_once=1000) == 1
    assert set_threads(3, 32, at_once=2) == 3
    set_threads(1, 8)


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert "cores" in machine_name(torch.device("cpu"))
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
        with pytest.raises(LifelongError, match="--device cuda: PyTorch finds no CUDA device"):
            choose_device("cuda")
