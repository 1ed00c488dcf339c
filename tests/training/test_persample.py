"""Gradients of single samples at once: each layer's rule against a batch of one after the other, and what is left to that way."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lifelong.networks.depthwise import Depthwise
from lifelong.training.persample import numbers_per_sample, sizes_of_one, summed_sizes

SAMPLES = 5


class Positions(nn.Module):
    """A linear layer at every position of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(2).transpose(1, 2)).transpose(1, 2)


def conv(*arguments: int, **settings: object) -> nn.Conv2d:
    return nn.Conv2d(4, *arguments, **settings)


LAYERS = {
    "3x3": lambda: conv(6, 3, padding=1),
    "without bias": lambda: conv(6, 3, padding=1, bias=False),
    "pointwise": lambda: conv(3, 1),
    "strided pointwise": lambda: conv(3, 1, stride=2),
    "strided": lambda: conv(6, 3, stride=2, padding=1),
    "dilated": lambda: conv(6, 3, dilation=2, padding=1),
    "lopsided": lambda: conv(6, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1)),
    "one position": lambda: conv(6, 6),
    "groups": lambda: conv(6, 3, groups=2, padding=1),
    "depthwise": lambda: conv(8, 3, groups=4, padding=1, stride=2),
    "depthwise of the cells": lambda: Depthwise(4),
    "dilated depthwise of the cells": lambda: Depthwise(4, dilation=2),
    "strided depthwise of the cells": lambda: Depthwise(4, stride=2, dilation=2),
    "batch norm": lambda: nn.BatchNorm2d(4),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 5)),
    "linear at positions": Positions,
    "batch norm of features": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(144)),
    "overwritten output": lambda: nn.Sequential(conv(6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
    "not called": lambda: nn.Sequential(conv(6, 3), Uncalled()),
}


class Uncalled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x


class Twice(nn.Module):
    """A layer that is called twice: its gradients add up before they are squared."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = conv(4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu())


class Elsewhere(nn.Module):
    """A layer whose weight is used outside of it too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = conv(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + F.conv2d(x.square(), self.layer.weight)


class Scaled(nn.Conv2d):
    """Something else than a convolution."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.weight.norm()


class Mixing(nn.Module):
    """A sample's answers depend on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = conv(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x - x.mean(dim=0))


UNKNOWN = {
    "called twice": Twice,
    "used elsewhere": Elsewhere,
    "subclass": lambda: Scaled(4, 6, 3),
    "reflected": lambda: conv(6, 3, padding=1, padding_mode="reflect"),
    "padded by name": lambda: conv(6, 3, padding="same"),
    "batch statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "layer norm": lambda: nn.LayerNorm([6, 6]),
    "mixing": Mixing,
}


def made(make) -> nn.Module:
    """A network that has seen images, in evaluation mode; its parameters, and statistics, are those of none other."""
    torch.manual_seed(0)
    network = make()
    network.train()(torch.randn(16, 4, 6, 6) * 2 + 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return network.eval()


def images() -> Tensor:
    return torch.randn(SAMPLES, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def logits_of(network: nn.Module):
    """Three numbers of each sample's output, to which each output adds with a weight of its own."""

    def logits(parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
        outputs = functional_call(network, parameters, (inputs,)).flatten(1)
        mixture = torch.randn(outputs.shape[1], 3, generator=torch.Generator().manual_seed(2))
        return outputs.square() @ mixture

    return logits


def rows(logits: Tensor) -> Tensor:
    """Two rows a sample, which depend on its logits."""
    return torch.stack([logits, logits.cos()], dim=1)


def one_by_one(network: nn.Module, size) -> dict[str, Tensor]:
    """A batch of one after the other, and a backward pass for each row."""
    logits, parameters = logits_of(network), dict(network.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for image in images():
        outputs = logits(parameters, image.unsqueeze(0))
        for row in rows(outputs.detach())[0]:
            network.zero_grad()
            (outputs[0] * row).sum().backward(retain_graph=True)
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    total[name] += size(parameter.grad)
    return total


@pytest.mark.parametrize("size", [torch.square, torch.abs])
@pytest.mark.parametrize("layer", LAYERS)
def test_at_once_is_one_by_one(layer: str, size) -> None:
    network = made(LAYERS[layer])
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    assert numbers_per_sample(network, logits_of(network), parameters, images()[:2]) is not None
    found = summed_sizes(network, logits_of(network), parameters, images(), rows, size)
    expected = one_by_one(network, size)
    assert list(found) == list(expected)
    assert any(total.max() > 0 for total in expected.values())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("network", UNKNOWN)
def test_what_has_no_rule_is_known_and_left_to_single_samples(network: str) -> None:
    unknown = made(UNKNOWN[network])
    parameters = {name: parameter.detach() for name, parameter in unknown.named_parameters()}
    assert numbers_per_sample(unknown, logits_of(unknown), parameters, images()[:2]) is None
    found = [sizes_of_one(logits_of(unknown), parameters, image.unsqueeze(0), rows, torch.square) for image in images()]
    total = {name: sum(sizes[name] for sizes in found) for name in parameters}
    torch.testing.assert_close(total, one_by_one(unknown, torch.square), rtol=1e-4, atol=1e-4)


def test_the_numbers_grow_with_the_maps_and_not_with_the_samples() -> None:
    network = made(LAYERS["3x3"])
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    found = [numbers_per_sample(network, logits_of(network), parameters, images()[:count]) for count in (1, 2, 5)]
    # 6 and 4 maps of 6x6, each of these 4 in 9 patches too, and the largest parameter.
    assert found == [36 * (6 + 10 * 4) + 6 * 4 * 9] * 3
