"""Frozen features: sizes, stages, random projections, cosines."""

import pytest
import torch
from torch.nn import functional

from lifelong.networks.frozen import freeze
from lifelong.networks.pretrained import CosineHead, FrozenFeatures, Pixels, RandomFeatures
from lifelong.networks.resnet import ImageNetResNet18


@pytest.fixture(scope="module")
def network() -> ImageNetResNet18:
    torch.manual_seed(0)
    made = ImageNetResNet18("layer3")
    freeze(made)
    return made


def test_stages_are_averaged_side_by_side_in_the_networks_order(network: ImageNetResNet18) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    first = network.layer1(x)
    third = network.layer3(network.layer2(first))
    wanted = torch.cat([first.mean((2, 3)), third.mean((2, 3))], dim=1)
    torch.testing.assert_close(FrozenFeatures(network, stages=("layer3", "layer1"))(images), wanted)
    torch.testing.assert_close(FrozenFeatures(network)(images), third.mean((2, 3)))


def test_an_unknown_stage_is_named_with_those_there_are(network: ImageNetResNet18) -> None:
    with pytest.raises(ValueError, match="no stage 'layer9'; it has layer1, layer2, layer3"):
        FrozenFeatures(network, stages=("layer1", "layer9"))
    with pytest.raises(ValueError, match="no stage 'layer1'; it names no stages"):
        FrozenFeatures(Pixels(), stages=("layer1",))


@pytest.mark.parametrize("size", [8, 16, 32])
def test_images_are_resized_as_functional_does(size: int) -> None:
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = FrozenFeatures(Pixels(), size)(images).view(2, 3, size, size)
    wanted = functional.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_random_features_are_those_of_their_seed() -> None:
    features = torch.randn(4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, again, other = (RandomFeatures(7, 500, seed) for seed in (3, 3, 4))
    assert torch.equal(one(features), again(features))
    assert not torch.equal(one(features), other(features))
    drawn = torch.randn(7, 500, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(one(features), (features @ drawn.double()).clamp_min(0))
    assert abs(drawn.mean().item()) < 0.05
    assert drawn.std().item() == pytest.approx(1, abs=0.05)


def test_the_projection_is_moved_but_neither_counted_nor_saved() -> None:
    made = RandomFeatures(3, 5, 0)
    assert list(made.parameters()) == []
    assert made.state_dict() == {}
    assert made.to("meta").projection.device.type == "meta"


def test_cosines_by_hand() -> None:
    head = CosineHead(2, 3)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]]))
        head.scale.fill_(10.0)
    wanted = [[6.0, 8.0, 10 * 7 / 5 / 2**0.5], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(head(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).detach(), torch.tensor(wanted))
