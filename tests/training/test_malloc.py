import platform
import re
import subprocess
import sys

import pytest

from benchmarks.memory import TASK_LIMIT, task

COUNT_FAULTS = """
import resource, sys, torch
from lifelong.training import malloc

def small():
    return sum(torch.sum(map) for map in [torch.zeros(1 << 20) for _ in range(8)])

def large():
    x = torch.zeros(40 << 18)
    y = x + 1
    del x
    return (y + 1).sum()

def faults(step):
    for _ in range(5):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if keep := "".join(sys.argv[2:]):
    getattr(malloc, keep)()
print(faults(globals()[sys.argv[1]]))
"""


def told(step: str, *keep: str) -> int:
    return int(subprocess.run([sys.executable, "-c", COUNT_FAULTS, step, *keep], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_freed_memory_is_used_again() -> None:
    """A step of 40 MB tensors, or of eight maps of 4 MB, maps hardly any new page; by default it maps all of them again."""
    assert (default := told("large")) > 10_000
    assert told("large", "keep_freed_memory") < default / 20
    assert told("small", "keep_small_blocks") < default / 20


def test_a_task_s_phases_have_their_peaks():
    found = task(quick=True)
    assert 0.1e9 < TASK_LIMIT / float(str(found["ratio"])) < 1e9
    assert re.search(r"search 0\.\d\d, training 0\.\d\d, distillation 0\.\d\d", str(found["detail"]))
