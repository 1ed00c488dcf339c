import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lifelong.methods.backbone import make_backbone
from lifelong.networks.resnet import ImageNetResNet18, LightResNet
from lifelong.settings.baselines import FinetuneSettings


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("stem_pool", [False, True])
def test_light_totals(stem_pool):
    network = LightResNet(stem_pool=stem_pool)
    assert count(network) == 606_400
    assert count(network) + count(nn.Linear(network.feature_dim, 10)) == 607_050
    assert sum(buffer.numel() for buffer in network.buffers()) == 2_580
    assert [count(layer) for layer in network.layers] == [147_968, 152_192, 152_192, 152_192]


def test_the_authors_codes_start():
    """A 3x3 convolution of 64 to 64 channels: a normal of variance 2 / (9 * 64); PyTorch's own is uniform up to 1 / sqrt(9 * 64)."""
    torch.manual_seed(0)
    kaiming, plain = (make_backbone(FinetuneSettings(start=start), 32) for start in ("kaiming", "torch"))
    weights = torch.cat([block.conv2.weight.flatten() for layer in kaiming.layers for block in layer])
    assert weights.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert weights.abs().max() > 3 * weights.std()
    assert plain.layers[0][0].conv2.weight.abs().max() <= 1 / 24
    assert [name for name, _ in kaiming.named_parameters()] == [name for name, _ in plain.named_parameters()]


@pytest.mark.parametrize(("stem_pool", "sizes"), [(False, [32, 16, 8, 4]), (True, [16, 8, 4, 2])])
def test_light_resolutions(stem_pool, sizes):
    network = LightResNet(8, stem_pool)
    seen = []
    for layer in network.layers:
        layer.register_forward_hook(lambda _, __, output: seen.append(output.shape[-1]))
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 8)
    assert seen == sizes


def test_small_images():
    assert LightResNet(8)(torch.randn(2, 3, 8, 8)).shape == (2, 8)


@pytest.mark.parametrize(("last", "total", "features"), [("layer4", 11_176_512, 512), ("layer3", 2_782_784, 256)])
def test_imagenet_totals(last, total, features):
    network = ImageNetResNet18(last).eval()
    assert count(network) == total
    with torch.no_grad():
        assert network(torch.randn(2, 3, 32, 32)).shape == (2, features) == (2, network.feature_dim)


def test_imagenet_names():
    names = set(ImageNetResNet18().state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "layer4.1.bn2.bias"} <= names
    assert len(names) == 120
    assert not any(name.startswith("layer1") and "downsample" in name for name in names)


def test_given_weights_load(weights_file):
    network = ImageNetResNet18("layer3").eval()
    network.load_state_dict(load_file(weights_file))
    with torch.no_grad():
        features = network(torch.rand(2, 3, 32, 32))
    assert features.isfinite().all()
    assert features.std() > 0
