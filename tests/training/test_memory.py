import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys, torch
from lifelong.training.memory import keep_freed_memory
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_freed_memory_is_used_again():
    """A step of 40 MB tensors maps hardly a page anew, where by default it maps all of them."""
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", COUNT_FAULTS, mode], check=True, capture_output=True, text=True).stdout)
        for mode in ("keep", "default")
    }
    assert faults["default"] > 10_000
    assert faults["keep"] < faults["default"] / 20
