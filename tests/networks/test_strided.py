"""1x1 convolutions with a stride: the numbers, and that narrow ones do not damage the memory of the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from lifelong.networks.strided import Pixelwise

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("channels", [1, 3, 8, 15, 16, 24])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_output_and_gradients(channels: int, size: int, stride: int) -> None:
    """Against the definition, a sum over channels at every second pixel."""
    torch.manual_seed(0)
    layer = Pixelwise(channels, 5, stride)
    x = torch.randn(4, channels, size, size).contiguous(memory_format=torch.channels_last).requires_grad_()
    got = layer(x)
    expected = torch.einsum("dc,nchw->ndhw", layer.weight[:, :, 0, 0], x[:, :, ::stride, ::stride])
    torch.testing.assert_close(got, expected)
    cotangent = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(out, (x, layer.weight), cotangent) for out in (got, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_it_is_a_convolution_with_the_usual_weight() -> None:
    layer = Pixelwise(24, 6, 2)
    x = torch.randn(2, 24, 7, 7)
    assert torch.equal(layer(x), functional.conv2d(x, layer.weight, stride=2))
    assert layer.weight.shape == (6, 24, 1, 1)


NARROW = """
import torch
from lifelong.networks.growing_resnet import CONVOLUTIONS, NEW, GrowingResNet
from lifelong.networks.resnet import LightResNet
growing = GrowingResNet(4)
growing.keep(growing.network((NEW,) * len(CONVOLUTIONS)))
images = torch.randn(16, 3, 64, 64).contiguous(memory_format=torch.channels_last)
for network in (LightResNet(4), LightResNet(12), growing.supernet()):
    for _ in range(3):
        network(images).square().sum().backward()
print("alive")
"""


@pytest.mark.parametrize("instructions", ["AVX2", "ALL"])
def test_narrow_networks_do_not_damage_memory(instructions: str) -> None:
    """In a process of its own, which a damaged heap ends; as a processor with AVX2 computes it, and as this one does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": instructions}
    done = subprocess.run([sys.executable, "-c", NARROW], capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-500:]
