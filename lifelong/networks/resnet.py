"""The residual networks: the light ResNet-18 of the baselines, and ImageNet's ResNet-18 as the feature extractor.

Source: He et al., ResNet (CVPR 2016); the light one: Veniat et al., MNTDP (ICLR 2021), constant width and no projection but where the
resolution halves. Both end in globally averaged features; heads are the methods'.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.strided import Pixelwise
from lifelong.networks.wiring import Wire


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is projected where size or channels change."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        # In place, as all ReLUs here: the backward passes of batch norm and of a sum do not read their outputs.
        self.relu1, self.relu2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != channels:
            self.downsample = nn.Sequential(Pixelwise(inputs, channels, stride), nn.BatchNorm2d(channels))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d _h _w"]:
        """Apply the block."""
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(y)) + self.downsample(x))


def _layer(inputs: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, channels, stride), BasicBlock(channels, channels, 1))


def light_stem(channels: int, pooled: bool) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    """Make what the light ResNet-18 starts with: a convolution, its batch norm, a ReLU, and max-pooling or nothing."""
    pool = nn.MaxPool2d(3, stride=2, padding=1) if pooled else nn.Identity()
    return nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True), pool


LIGHT_STRIDES = (1, 2, 2, 2)
"""Of the light ResNet-18's four layers."""


def light_layer(channels: int, number: int) -> nn.Sequential:
    """Make one of the light ResNet-18's layers, each of two blocks."""
    return _layer(channels, channels, LIGHT_STRIDES[number])


class LightResNet(nn.Module):
    """The light ResNet-18 of MNTDP: 64 channels throughout, 606,400 parameters, 64 features.

    Weights start as PyTorch's defaults, as in MNTDP.

    Args:
        channels: channels of every layer.
        stem_pool: max-pool after the stem (PAR's authors' code; a quarter of the compute).

    Attributes:
        feature_dim: features per image, `channels`.
    """

    def __init__(self, channels: int = 64, stem_pool: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.pool = light_stem(channels, stem_pool)
        self.layers = nn.Sequential(*(light_layer(channels, number) for number in range(len(LIGHT_STRIDES))))
        self.feature_dim = channels

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Compute features of normalized images."""
        return self.layers(self.pool(self.relu(self.bn1(self.conv1(images))))).mean(dim=(2, 3))

    def wiring(self) -> list[Wire]:
        """List which units each layer reads and writes; an identity shortcut is part of the sum before a block's ReLU."""
        wires, units = [Wire("conv1", "relu"), Wire("bn1", "relu")], "relu"
        for name, block in self.named_modules():
            if isinstance(block, BasicBlock):
                inner, outer = f"{name}.relu1", f"{name}.relu2"
                wires += [Wire(f"{name}.conv1", inner, units), Wire(f"{name}.bn1", inner)]
                wires += [Wire(f"{name}.conv2", outer, inner), Wire(f"{name}.bn2", outer)]
                if isinstance(block.downsample, nn.Sequential):
                    wires += [Wire(f"{name}.downsample.0", outer, units), Wire(f"{name}.downsample.1", outer)]
                units = outer
        return wires


class ImageNetResNet18(nn.Module):
    """ResNet-18 without its classifier, with torchvision's parameter names: 11,176,512 parameters, 512 features.

    Args:
        last: the layer after which features are averaged; "layer3" leaves 2,782,784 parameters and gives 256 features.

    Attributes:
        feature_dim: features per image.
        stages: the channels of each layer after which features can be pooled.
    """

    def __init__(self, last: Literal["layer4", "layer3"] = "layer4") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _layer(64, 64, 1)
        self.layer2 = _layer(64, 128, 2)
        self.layer3 = _layer(128, 256, 2)
        self.layer4 = _layer(256, 512, 2) if last == "layer4" else nn.Identity()
        self.feature_dim = 512 if last == "layer4" else 256
        self.stages = {"layer1": 64, "layer2": 128, "layer3": 256} | ({"layer4": 512} if last == "layer4" else {})

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Compute features of images with ImageNet's normalization (or another one)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))

    def pooled(self, images: Float[Tensor, "n 3 h w"], stages: Sequence[str]) -> Float[Tensor, "n d"]:
        """Compute the averaged maps after some of the `stages`, in the network's order, side by side."""
        return torch.cat([maps.mean(dim=(2, 3)) for stage, maps in self.maps(images) if stage in stages], dim=1)

    def maps(self, images: Float[Tensor, "n 3 h w"]) -> Iterator[tuple[str, Float[Tensor, "n c _h _w"]]]:
        """Yield the maps after each stage, with its name."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
            yield stage, x
