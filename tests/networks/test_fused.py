"""Fused kernels against PyTorch's own layers in float64: on a GPU, or without one in Triton's interpreter.

The interpreter multiplies no matrices of bfloat16, so everything is float32 here. `conftest.py` asks for it."""

import copy
import importlib
import sys
import types
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.networks import fused
from lifelong.networks.cells import CellNetwork
from lifelong.networks.depthwise import Depthwise
from lifelong.networks.genotype import DARTS_V2, OPERATIONS
from lifelong.networks.operations import FactorizedReduce, Maps, Pointwise
from lifelong.networks.supernet import SuperNetwork

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

TOLERANCE = 1e-5
"""The largest relative difference, by norms, of any gradient."""

Run = Callable[[Any, Tensor], Tensor]

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton, whose interpreter runs GPU kernels on a processor")


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the fused functions."""
    module = importlib.import_module("lifelong.networks.fused.functions")
    try:
        module.statistics(torch.zeros(2, 1, 1, 1, device=DEVICE), nn.BatchNorm2d(1).to(DEVICE))
    except RuntimeError as error:
        pytest.skip(f"this triton's interpreter does not work with this NumPy ({error})")
    monkeypatch.setattr(fused, "supported", lambda x: True)
    return module


def difference(ours: Tensor, plain: Tensor) -> float:
    """Relative difference by norms."""
    return float((ours.detach().double() - plain.detach()).norm() / plain.detach().double().norm().clamp_min(1e-9))


def compare(network: nn.Module, ours: Run, plain: Run, x: Tensor) -> None:
    """Compare results, gradients and statistics with those in float64."""
    network.to(DEVICE)
    reference = copy.deepcopy(network).double()
    x = x.to(DEVICE).contiguous(memory_format=torch.channels_last)
    inputs, doubled = x.clone().requires_grad_(), x.double().requires_grad_()
    got, expected = ours(network, inputs), plain(reference, doubled)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    (got * weights).sum().backward()
    (expected * weights.double()).sum().backward()
    pairs = {"result": (got, expected), "input": (inputs.grad, doubled.grad)}
    for (name, a), (_, b) in zip(network.named_parameters(), reference.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if b.grad is not None:
            pairs[name] = (a.grad, b.grad)
    pairs |= {name: (a, b) for (name, a), b in zip(network.named_buffers(), reference.buffers(), strict=True)}
    far = {name: difference(a, b) for name, (a, b) in pairs.items()}
    # The gradient of what a later batch norm takes away again is zero, but for rounding.
    far = {name: value for name, value in far.items() if pairs[name][1].double().norm() > 1e-8 * expected.norm()}
    assert len(far) > 4
    assert max(far.values()) < TOLERANCE, max(far, key=lambda name: far[name])


def randomized(*modules: nn.Module) -> nn.ModuleList:
    """Draw the scales and shifts of batch norms, which begin as ones and zeros."""
    network = nn.ModuleList(modules)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return network


@needs_triton
@pytest.mark.parametrize(
    ("stride", "dilation", "inputs", "affine"), [(1, 1, 12, True), (2, 1, 16, True), (1, 2, 20, False), (2, 2, 16, True), (1, 0, 70, True)]
)
def test_convolutions(functions: Any, stride: int, dilation: int, inputs: int, affine: bool) -> None:
    """Odd sizes, channels that fill no block, strides, dilation, batch norm before the ReLU, with and without weights."""
    torch.manual_seed(0)
    outputs = inputs if dilation else 20
    norms = [nn.BatchNorm2d(outputs, affine=affine, track_running_stats=affine) for _ in range(3)]
    first = Depthwise(inputs, stride=stride, dilation=dilation) if dilation else nn.Identity()
    network = randomized(first, Pointwise(inputs, outputs), norms[0], Depthwise(outputs), Pointwise(outputs, outputs), norms[1], norms[2])

    def ours(network: Any, x: Tensor) -> Tensor:
        first, point, norm, second, other, norm2, norm3 = network
        middle = functions.convolution(x, first if dilation else None, point, norm)
        end = functions.convolution(middle, second, other, norm2)
        both = functions.total(x[:, :outputs, ::stride, ::stride], end)
        return functions.total(functions.statistics(both, norm3), relu=True)

    def plain(network: Any, x: Tensor) -> Tensor:
        first, point, norm, second, other, norm2, norm3 = network
        maps = F.relu(x)
        if dilation:
            maps = F.conv2d(maps, first.weight, stride=stride, padding=dilation, dilation=dilation, groups=inputs)
        middle = norm(F.conv2d(maps, point.weight))
        end = norm2(F.conv2d(F.conv2d(F.relu(middle), second.weight, padding=1, groups=outputs), other.weight))
        return F.relu(norm3(x[:, :outputs, ::stride, ::stride] + end))

    compare(network, ours, plain, torch.randn(2, inputs, 5, 6) + 0.3)


@needs_triton
@pytest.mark.parametrize("size", [6, 5])
def test_reduction(functions: Any, size: int) -> None:
    """Halving by two shifted convolutions, beyond an odd edge too."""
    torch.manual_seed(0)
    network = randomized(FactorizedReduce(20, 18, nn.BatchNorm2d))

    def ours(network: Any, x: Tensor) -> Tensor:
        reduce = network[0]
        halved = functions.reduction(x, reduce.even, reduce.odd, reduce.bn)
        return functions.total(halved, functions.statistics(x[:, :18, ::2, ::2], reduce.bn))

    def plain(network: Any, x: Tensor) -> Tensor:
        return network[0](F.relu(x)) + network[0].bn(x[:, :18, ::2, ::2])

    compare(network, ours, plain, torch.randn(2, 20, size, size))


@needs_triton
def test_a_cell_is_the_same(functions: Any) -> None:
    """The network takes the fused path where it is told to, and no other."""
    torch.manual_seed(0)
    network = randomized(CellNetwork(DARTS_V2, 4, cells=1))
    called = []
    reduction = functions.reduction
    functions.reduction = lambda *args: called.append(args) or reduction(*args)
    try:

        def ours(network: Any, x: Tensor) -> Tensor:
            with fused.fused():
                return network[0](x)

        compare(network, ours, lambda network, x: network[0](x), torch.randn(2, 3, 5, 5))
        network.eval()
        with fused.fused():
            maps = Maps(torch.randn(2, 12, 4, 4, device=DEVICE))
            assert isinstance(network[0].cells[0].preprocess0.term(maps), Tensor)
    finally:
        functions.reduction = reduction


@pytest.mark.slow
@needs_triton
def test_networks_are_the_same(functions: Any) -> None:
    """A whole expert, and networks of a search with every operation."""

    def ours(network: Any, x: Tensor) -> Tensor:
        with fused.fused():
            return network[0](x)

    torch.manual_seed(0)
    compare(randomized(CellNetwork(DARTS_V2, 16)), ours, lambda network, x: network[0](x), torch.randn(4, 3, 8, 8))
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        choices = torch.randint(len(OPERATIONS), (2, 14), generator=generator).tolist()
        path = (tuple(choices[0]), tuple(choices[1]))

        def sampled(network: Any, x: Tensor, path=path) -> Tensor:
            return network[0](x, path)

        def fused_path(network: Any, x: Tensor, sampled=sampled) -> Tensor:
            with fused.fused():
                return sampled(network, x)

        compare(randomized(SuperNetwork(5, 16)), fused_path, sampled, torch.randn(4, 3, 8, 8))


def test_other_devices_do_not_fuse() -> None:
    """On a processor PyTorch's own layers are used, also inside the block."""
    with fused.fused():
        assert not fused.can_fuse(torch.zeros(1, 1, 2, 2))


def test_a_broken_triton_is_said_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton without a compiler, say, must not end a run."""
    fake = types.ModuleType("lifelong.networks.fused.functions")

    def total(*_: Tensor) -> Tensor:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    fake.total = total  # ty: ignore[unresolved-attribute]
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(fused, "functions", fake, raising=False)
    monkeypatch.setattr(fused, "find_spec", lambda name: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    cpu = torch.device("cpu")
    assert "Failed to find C compiler. Please specify" in fused.why_not.__wrapped__(cpu)
    monkeypatch.setattr(fused, "find_spec", lambda name: None)
    assert fused.why_not.__wrapped__(cpu) == "Triton is not installed"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert fused.why_not.__wrapped__(cpu) == "they are for NVIDIA GPUs"


def test_what_batch_norm_does_otherwise_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running statistics, a cumulative average of them, and the variance of a single pixel."""
    monkeypatch.setattr(fused, "supported", lambda x: True)
    with fused.fused():
        assert fused.can_fuse(torch.zeros(2, 3, 1, 1))
        assert not fused.can_fuse(torch.zeros(1, 3, 1, 1))
    assert not fused.can_fuse(torch.zeros(2, 3, 1, 1))
    assert fused.uses_batch(nn.BatchNorm2d(3))
    assert fused.uses_batch(nn.BatchNorm2d(3, track_running_stats=False).eval())
    assert not fused.uses_batch(nn.BatchNorm2d(3).eval())
    assert not fused.uses_batch(nn.BatchNorm2d(3, momentum=None))
