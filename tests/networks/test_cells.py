import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.plain_cells import PlainCellNetwork
from lifelong.networks import depthwise as depthwise_module
from lifelong.networks import operations, strided
from lifelong.networks.cells import CellNetwork, reductions
from lifelong.networks.depthwise import Depthwise, depthwise, dilated
from lifelong.networks.genotype import DARTS_V1, DARTS_V2, Genotype
from lifelong.networks.operations import FactorizedReduce, Maps, OnMaps, Pointwise, operation


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def uniform(name: str) -> Genotype:
    plan = (((name, 0), (name, 1)),) * 4
    return Genotype(plan, plan)


@pytest.mark.parametrize(
    ("channels", "v1", "v2"),
    [(64, 221_376, 230_976), (16, 17_712, 18_576), (32, 60_512, 63_264), (36, 75_132, 78_516), (48, 128_400, 134_064)],
)
@pytest.mark.parametrize("reduce_bn", [True, False])
def test_parameter_totals(channels, v1, v2, reduce_bn):
    """Facts 4.1; the batch norm of a factorized reduction counts whether it is applied or not."""
    assert count(CellNetwork(DARTS_V1, channels, reduce_bn=reduce_bn)) == v1
    assert count(CellNetwork(DARTS_V2, channels, reduce_bn=reduce_bn)) == v2


def test_parameters_by_block():
    network = CellNetwork(DARTS_V2, 64)
    assert [count(part) for part in (network.stem, *network.cells)] == [5_568, 77_632, 28_928, 33_024, 85_824]


def test_parameters_of_one_kind_of_operation():
    head = 2_570
    assert count(CellNetwork(uniform("max_pool_3x3"), 64)) + head == 127_946
    assert count(CellNetwork(uniform("avg_pool_3x3"), 64)) + head == 127_946
    assert count(CellNetwork(uniform("sep_conv_3x3"), 64)) + head == 435_146


def test_parameters_of_ten_experts():
    assert 10 * (count(CellNetwork(DARTS_V1, 64)) + count(nn.Linear(256, 10))) == 2_239_460


def test_batch_norm_of_reductions_that_is_not_applied():
    """Facts 4.1: 256 weights of a DARTS_V1 expert."""
    network = CellNetwork(DARTS_V1, 64, reduce_bn=False)
    assert sum(count(module.bn) for module in network.modules() if isinstance(module, FactorizedReduce)) == 256
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(torch.randn(2, 3, 16, 16)).sum().backward()
    idle = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert sum(dict(network.named_parameters())[name].numel() for name in idle) == 256
    for name, buffer in network.named_buffers():
        changed = not torch.equal(buffer, before[name])
        assert changed == (f"{name.rpartition('.')[0]}.weight" not in idle)


def test_reductions():
    assert reductions(4) == {1, 2}
    assert reductions(6) == {2, 4}
    assert reductions(8) == {2, 5}


@pytest.mark.parametrize("size", [8, 9, 21, 32])
@pytest.mark.parametrize("reduce_bn", [True, False])
def test_any_size_gives_4c_features(size, reduce_bn):
    network = CellNetwork(DARTS_V2, 4, reduce_bn=reduce_bn)
    features = network(torch.randn(2, 3, size, size))
    assert features.shape == (2, network.feature_dim) == (2, 16)
    assert features.isfinite().all()


def test_mini_imagenet_size():
    network = CellNetwork(DARTS_V1, 4).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 84, 84)).shape == (1, 16)


@pytest.mark.parametrize("cells", [1, 2, 3, 5])
def test_other_depths(cells):
    assert CellNetwork(DARTS_V2, 4, cells)(torch.randn(2, 3, 16, 16)).shape == (2, 16)


def test_odd_channels():
    assert CellNetwork(DARTS_V2, 5)(torch.randn(2, 3, 16, 16)).shape == (2, 20)


def twins(genotype: Genotype, channels: int, dtype: torch.dtype, **options: bool) -> tuple[nn.Module, nn.Module]:
    """Our network and the plain one with the same weights."""
    torch.manual_seed(1)
    ours, plain = CellNetwork(genotype, channels, **options), PlainCellNetwork(genotype, channels, **options)
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    return ours.to(dtype), plain.to(dtype)


@pytest.mark.parametrize("genotype", [DARTS_V1, DARTS_V2, uniform("dil_conv_3x3"), uniform("avg_pool_3x3")], ids=["v1", "v2", "dil", "avg"])
@pytest.mark.parametrize("reduce_bn", [True, False])
@pytest.mark.parametrize("size", [8, 16])
def test_equal_to_plain_modules(genotype, reduce_bn, size):
    """Forward, gradients and running statistics of the network in plain PyTorch."""
    ours, plain = twins(genotype, 6, torch.float64, reduce_bn=reduce_bn)
    images = torch.randn(5, 3, size, size, dtype=torch.float64)
    features, expected = ours(images), plain(images)
    torch.testing.assert_close(features, expected, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(features)
    (features * weights).sum().backward()
    (expected * weights).sum().backward()
    for parameter, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-8, atol=1e-10)
    for buffer, other in zip(ours.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.eval()(images), plain.eval()(images), rtol=1e-8, atol=1e-10)


def test_equal_to_plain_modules_in_float32():
    ours, plain = twins(DARTS_V2, 16, torch.float32)
    images = torch.randn(8, 3, 32, 32)
    features, expected = ours(images), plain(images)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    features.square().sum().backward()
    expected.square().sum().backward()
    gradients = [torch.cat([parameter.grad.flatten() for parameter in network.parameters()]) for network in (ours, plain)]
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 5), (9, 9), (3, 3), (2, 2), (1, 2), (5, 1), (1, 1)])
@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
def test_depthwise(dilation, stride, size, form):
    """Against PyTorch's own convolution, output and both gradients."""
    torch.manual_seed(0)
    x = torch.randn(3, 5, *size, dtype=torch.float64).contiguous(memory_format=form).requires_grad_()
    weight = torch.randn(5, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    plain = nn.functional.conv2d(x, weight, stride=stride, padding=dilation, dilation=dilation, groups=5)
    cotangent = torch.randn_like(plain)
    wanted = torch.autograd.grad(plain, (x, weight), cotangent)
    elsewhere = [dilated(x, weight, stride)] if dilation == 2 else []
    for ours in [depthwise(x, weight, stride, dilation), *elsewhere]:
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
        for got, expected in zip(torch.autograd.grad(ours, (x, weight), cotangent), wanted, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)


def test_depthwise_in_float32():
    torch.manual_seed(0)
    for size in (2, 16):
        x, weight = torch.randn(4, 8, size, size, requires_grad=True), torch.randn(8, 1, 3, 3, requires_grad=True)
        plain = nn.functional.conv2d(x, weight, padding=2, dilation=2, groups=8)
        cotangent = torch.randn_like(plain)
        ours = torch.autograd.grad(depthwise(x, weight, 1, 2), (x, weight), cotangent)
        torch.testing.assert_close(ours, torch.autograd.grad(plain, (x, weight), cotangent), rtol=1e-4, atol=1e-4)


def test_depthwise_where_one_side_is_frozen():
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 1, 3, 3)
    for first, second in ((True, False), (False, True)):
        leaf, kernel = x.clone().requires_grad_(first), weight.clone().requires_grad_(second)
        depthwise(leaf, kernel, 1, 2).sum().backward()
        assert (leaf.grad is not None, kernel.grad is not None) == (first, second)


def test_depthwise_is_a_convolution_with_the_usual_weight():
    layer = Depthwise(6, stride=2, dilation=2)
    assert layer.weight.shape == (6, 1, 3, 3)
    assert layer.bias is None
    x = torch.randn(2, 6, 9, 9)
    torch.testing.assert_close(layer(x), nn.Conv2d.forward(layer, x))


def test_factorized_reduction_by_hand():
    """One channel in, two out, weights 1: the even pixels and those a pixel further; odd edges are filled with zeros."""
    reduce = FactorizedReduce(1, 2, nn.BatchNorm2d, apply_bn=False)
    with torch.no_grad():
        reduce.even.weight.fill_(1)
        reduce.odd.weight.fill_(1)
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert reduce(x).tolist() == [[[[0, 2], [6, 8]], [[4, 0], [0, 0]]]]


def test_operations_begin_with_a_relu_where_they_should():
    negative = Maps(-torch.ones(2, 4, 6, 6))
    for name in ("sep_conv_3x3", "dil_conv_3x3"):
        module = operation(name, 4, 1).body
        assert isinstance(module, nn.Sequential)
        assert not module[0](negative.rectified).any()
    for name in ("max_pool_3x3", "avg_pool_3x3", "skip_connect"):
        assert torch.equal(operation(name, 4, 1)(negative), negative.raw), name
    assert not operation("skip_connect", 4, 2, reduce_bn=False)(negative).any()


@pytest.fixture
def another_device(monkeypatch):
    """Networks take the branches of devices that are not a CPU."""
    for user in (depthwise_module, operations, strided):
        monkeypatch.setattr(user, "on_cpu", lambda x: False)


@pytest.mark.parametrize("genotype", [DARTS_V1, DARTS_V2], ids=["v1", "v2"])
@pytest.mark.parametrize("size", [8, 9, 2])
def test_another_device_computes_the_same_network(genotype, size, request):
    """Features and gradients of the branches of a CPU and of other devices, in float64."""
    torch.manual_seed(0)
    network = CellNetwork(genotype, 4).double().train()
    images = torch.randn(5, 3, size, size, dtype=torch.float64)

    def computed():
        network.zero_grad()
        features = network(images)
        features.square().sum().backward()
        return features.detach(), [parameter.grad for parameter in network.parameters()]

    expected = computed()
    request.getfixturevalue("another_device")
    torch.testing.assert_close(computed(), expected, rtol=1e-9, atol=1e-12)


def test_equal_pools_are_computed_once_but_on_a_cpu(request):
    pools = [operation("max_pool_3x3", 2, stride) for stride in (2, 2, 1)]

    def pooled():
        maps = Maps(torch.randn(1, 2, 4, 4))
        return [pool(maps) for pool in pools]

    one, same, other = pooled()
    assert one is not same
    request.getfixturevalue("another_device")
    one, same, other = pooled()
    assert one is same
    assert other.shape[2:] == (4, 4)


def test_a_pointwise_convolution_is_a_product_of_matrices(another_device):
    layer = Pointwise(6, 4)
    x = torch.randn(2, 6, 5, 3).contiguous(memory_format=torch.channels_last)
    computed = layer(x)
    torch.testing.assert_close(computed, nn.functional.conv2d(x, layer.weight))
    assert computed.is_contiguous(memory_format=torch.channels_last)


def test_a_relu_is_computed_once():
    maps = Maps(torch.randn(1, 2, 4, 4))
    assert maps.rectified is maps.rectified
    assert torch.equal(OnMaps(nn.Identity(), relu=True)(maps), maps.raw.clamp(min=0))


def test_unknown_operation():
    with pytest.raises(ValueError, match="none"):
        operation("none", 4, 1)


def test_maps_that_are_overwritten_change_no_gradient(monkeypatch):
    """The same to the bit as with a ReLU that leaves its input alone."""

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = CellNetwork(DARTS_V2, 8)
        network(torch.randn(4, 3, 16, 16)).square().sum().backward()
        return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]

    overwritten = gradients()
    rectified = F.relu
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: rectified(x))
    left = gradients()
    assert len(overwritten) > 50
    assert all(torch.equal(one, other) for one, other in zip(overwritten, left, strict=True))


@pytest.mark.parametrize("overwrite", [False, True])
def test_whether_maps_are_overwritten(overwrite):
    raw = torch.tensor([-1.0, 2.0]).view(1, 2, 1, 1)
    maps = Maps(raw, overwrite=overwrite)
    assert maps.rectified.flatten().tolist() == [0, 2]
    assert maps.raw.flatten().tolist() == ([0, 2] if overwrite else [-1, 2])
