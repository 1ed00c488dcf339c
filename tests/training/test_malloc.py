import platform
import re
import subprocess
import sys

import pytest

from benchmarks.memory import TASK_LIMIT, task

COUNT_FAULTS_OF_SMALL_BLOCKS = """
import resource, sys, torch
from lifelong.training.malloc import keep_small_blocks
if sys.argv[1] == "keep":
    keep_small_blocks()
def step():
    maps = [torch.zeros(1 << 20) for _ in range(8)]
    return sum(map(torch.sum, maps))
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

COUNT_FAULTS = """
import resource, sys, torch
from lifelong.training.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    x = torch.zeros(40 << 18)
    y = x + 1
    del x
    return (y + 1).sum()
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

ONLY_GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")


def told(script: str, mode: str) -> int:
    return int(subprocess.run([sys.executable, "-c", script, mode], check=True, capture_output=True, text=True).stdout)


@ONLY_GLIBC
def test_freed_memory_is_used_again():
    """A step of 40 MB tensors maps hardly any new page; by default it maps all of them again."""
    default = told(COUNT_FAULTS, "default")
    assert default > 10_000
    assert told(COUNT_FAULTS, "keep") < default / 20


@ONLY_GLIBC
def test_small_blocks_are_used_again():
    """Eight maps of 4 MB, as a pass over a few images takes them."""
    default = told(COUNT_FAULTS_OF_SMALL_BLOCKS, "default")
    assert default > 10_000
    assert told(COUNT_FAULTS_OF_SMALL_BLOCKS, "keep") < default / 20


def test_a_task_s_phases_have_their_peaks():
    found = task(quick=True)
    assert 0.1e9 < TASK_LIMIT / float(str(found["ratio"])) < 1e9
    assert re.search(r"search 0\.\d\d, training 0\.\d\d, distillation 0\.\d\d", str(found["detail"]))
