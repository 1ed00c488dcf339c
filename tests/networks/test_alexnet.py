"""The AlexNets of HAT and GPM: sizes, shapes, who may be fed to them."""

import pytest
import torch
from torch import nn

from lifelong.errors import LifelongError
from lifelong.methods.backbone import head_bias, make_backbone
from lifelong.networks.alexnet import AlexNet
from lifelong.networks.tasknorm import TaskBatchNorm, with_task_norms
from lifelong.settings.baselines import BackboneSettings


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("name", "body", "head"), [("alexnet-hat", 6_503_872, 20_490), ("alexnet-gpm", 6_508_416, 20_480)])
def test_totals(name, body, head):
    network = make_backbone(BackboneSettings(backbone=name), 32)
    assert count(network) == body
    assert count(nn.Linear(network.feature_dim, 10, bias=head_bias(network))) == head
    # Ten tasks of ten classes; HAT's gates are 4,544 a task.
    gates = {"alexnet-hat": 4_544, "alexnet-gpm": 0}[name]
    assert body + 10 * (head + gates) == {"alexnet-hat": 6_754_212, "alexnet-gpm": 6_713_216}[name]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("size", [19, 28, 32, 45, 64, 84])
def test_any_size_from_the_smallest(batch_norm, size):
    assert AlexNet(2, batch_norm=batch_norm)(torch.randn(3, 3, size, size)).shape == (3, 64)


def test_too_small_is_one_line():
    with pytest.raises(LifelongError, match="19 x 19 pixels or more, not 18 x 18"):
        AlexNet(2)(torch.randn(1, 3, 18, 18))


def test_plainly_written_out():
    """At 32 x 32 nothing is pooled but by the three max-pools."""
    torch.manual_seed(0)
    network = AlexNet(2).eval()
    convs, linears = ([block.weights for block in part] for part in (network.convs, network.linears))
    x = images = torch.randn(4, 3, 32, 32)
    sizes = []
    for conv in convs:
        x = torch.nn.functional.conv2d(x, conv.weight, conv.bias).clamp(min=0)
        x = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2].unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax(dim=(3, 5))
        sizes.append(x.shape[2])
    assert sizes == [14, 6, 2]
    x = x.reshape(4, -1)
    for linear in linears:
        x = (x @ linear.weight.T + linear.bias).clamp(min=0)
    torch.testing.assert_close(network(images), x)


def test_dropout_as_in_the_papers():
    assert [module.p for module in AlexNet(2).modules() if isinstance(module, nn.Dropout)] == [0.2, 0.2, 0.5, 0.5, 0.5]


def test_every_norm_obeys_a_policy():
    network = with_task_norms(AlexNet(2, batch_norm=True), "per-task")
    assert sum(isinstance(module, TaskBatchNorm) for module in network.modules()) == 5
    assert network(torch.randn(3, 3, 32, 32)).shape == (3, 64)


@pytest.mark.parametrize("name", ["alexnet-hat", "alexnet-gpm", "light-resnet18"])
def test_wiring_names_every_layer_once(name):
    network = make_backbone(BackboneSettings(backbone=name, init_channels=2), 32)
    wires = network.wiring()
    with_weights = [n for n, module in network.named_modules() if list(module.parameters(recurse=False))]
    assert sorted(wire.module for wire in wires) == sorted(with_weights)
    relus = {n for n, module in network.named_modules() if isinstance(module, nn.ReLU)}
    assert {wire.target for wire in wires} == relus
    assert {wire.source for wire in wires} - {None} < relus
