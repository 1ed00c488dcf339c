from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from lifelong.networks.pretrained import Staged
from lifelong.networks.squeezenet import SqueezeNet


def test_totals_and_names():
    network = SqueezeNet().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 722_496
    assert isinstance(network, Staged)
    maps = dict(network.maps(torch.randn(2, 3, 64, 64)))
    assert {stage: found.shape[1] for stage, found in maps.items()} == network.stages
    assert [found.shape[2] for found in maps.values()] == [15, 7, 3, 3]  # pooled with their edges
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 512) == (2, network.feature_dim)


def test_a_whole_pass_is_its_stages():
    torch.manual_seed(0)
    network, images = SqueezeNet().eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        pooled = network.pooled(images, ("fire9", "fire5"))
        torch.testing.assert_close(pooled[:, 256:], network(images))
        assert pooled.shape == (2, 256 + 512)


def plain(tensors: dict, images: torch.Tensor) -> torch.Tensor:
    """SqueezeNet 1.1 written down from its layers, without a module."""

    def fire(x, place):
        name = f"features.{place}"
        conv = lambda x, part, pad: functional.conv2d(x, tensors[f"{name}.{part}.weight"], tensors[f"{name}.{part}.bias"], padding=pad)  # noqa: E731
        x = conv(x, "squeeze", 0).clamp(min=0)
        return torch.cat([conv(x, "expand1x1", 0).clamp(min=0), conv(x, "expand3x3", 1).clamp(min=0)], dim=1)

    x = functional.conv2d(images, tensors["features.0.weight"], tensors["features.0.bias"], stride=2).clamp(min=0)
    for group in ((3, 4), (6, 7), (9, 10, 11, 12)):
        x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        for place in group:
            x = fire(x, place)
    return x.mean(dim=(2, 3))


def test_features_are_those_of_the_layers(weights_file: Path):
    file = weights_file.with_name("squeezenet1_1-imagenet.safetensors")
    if not file.is_file():
        pytest.skip(f"no weights of SqueezeNet at {file}")
    tensors, network = load_file(file), SqueezeNet().eval()
    network.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")})
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images), plain(tensors, images), rtol=1e-4, atol=1e-5)
