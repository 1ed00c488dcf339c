"""Adapters: nothing at first, and what a slow plain version gives afterwards."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lifelong.networks.adapters import AdaptedStage
from lifelong.networks.frozen import freeze
from lifelong.networks.resnet import BasicBlock, ImageNetResNet18


@pytest.fixture
def stage() -> nn.Sequential:
    """A stage with running statistics that are not those of a new one."""
    torch.manual_seed(0)
    made = nn.Sequential(BasicBlock(4, 6, 2), BasicBlock(6, 6, 1))
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    freeze(made)
    return made


def maps() -> Tensor:
    return torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def test_an_adapted_stage_starts_as_the_frozen_one(stage: nn.Sequential) -> None:
    adapted = AdaptedStage(list(stage), 2)
    assert torch.equal(adapted(maps()), stage(maps()).mean((2, 3)))
    assert torch.equal(adapted.train()(maps()), stage(maps()).mean((2, 3)))


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    """Batch norm with running statistics, by its formula."""
    shape = (1, -1, 1, 1)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (x - norm.running_mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)


def slowly(stage: nn.Sequential, adapted: AdaptedStage, x: Tensor) -> Tensor:
    """Each adapter folded into its convolution: B A as one kernel of the convolution's size."""
    sites = iter(adapted.adapters)
    for block in stage:
        one, two = next(sites), next(sites)
        kernels = [
            convolution.weight + torch.einsum("or,rikl->oikl", site.up.weight[:, :, 0, 0], site.down.weight)
            for convolution, site in ((block.conv1, one), (block.conv2, two))
        ]
        y = normed(block.bn1, functional.conv2d(x, kernels[0], stride=block.conv1.stride, padding=1)).relu()
        short = x
        if isinstance(block.downsample, nn.Sequential):
            short = normed(block.downsample[1], block.downsample[0](x))
        x = (normed(block.bn2, functional.conv2d(y, kernels[1], padding=1)) + short).relu()
    return x.mean((2, 3))


def test_an_adapted_stage_is_that_of_the_folded_kernels(stage: nn.Sequential) -> None:
    adapted = AdaptedStage(list(stage), 2)
    torch.manual_seed(2)
    for site in adapted.adapters:
        nn.init.normal_(site.up.weight, std=0.3)
    found = adapted(maps())
    torch.testing.assert_close(found, slowly(stage, adapted, maps()), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, stage(maps()).mean((2, 3)), atol=0.1)


def test_only_adapters_are_trained_counted_and_saved(stage: nn.Sequential) -> None:
    before = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    adapted = AdaptedStage(list(stage), 2)
    # Rank 2: 3 x 3 kernels from 4, 6, 6 and 6 channels, and 1 x 1 kernels to 6 each.
    assert sum(parameter.numel() for parameter in adapted.parameters()) == 2 * 9 * (4 + 6 + 6 + 6) + 4 * 2 * 6
    assert all(name.startswith("adapters.") for name in adapted.state_dict())
    optimizer = torch.optim.SGD(adapted.train().parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(maps()).square().sum().backward()
        optimizer.step()
    assert not torch.equal(adapted(maps()), stage(maps()).mean((2, 3)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in stage.state_dict().items())


def test_the_adapters_of_the_last_stage_of_resnet18() -> None:
    adapted = AdaptedStage(list(ImageNetResNet18("layer3").layer3), 8)
    assert sum(parameter.numel() for parameter in adapted.parameters()) == 8 * 9 * (128 + 3 * 256) + 4 * 8 * 256


def test_other_blocks_are_refused() -> None:
    with pytest.raises(AssertionError, match="residual blocks"):
        AdaptedStage([nn.Conv2d(3, 3, 1)], 2)
