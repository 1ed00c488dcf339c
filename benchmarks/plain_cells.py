"""The cell network of `lifelong.networks.cells` as a person would write it first: ordinary modules, contiguous layout.

The reference of `expert_training.py`, and of the tests. Parameter names are the same, so that weights can be carried over.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.networks.genotype import CellPlan, Genotype


def separable(channels: int, stride: int, dilation: int) -> list[nn.Module]:
    """ReLU, depthwise 3x3, pointwise, batch norm."""
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]


class Reduce(nn.Module):
    """Factorized reduction of maps of even size."""

    def __init__(self, inputs: int, channels: int, apply_bn: bool) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, channels // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.apply_bn = apply_bn

    def forward(self, x: Tensor) -> Tensor:
        """Half the size."""
        x = torch.relu(x)
        x = torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1)
        return self.bn(x) if self.apply_bn else x


def make(name: str, channels: int, stride: int, apply_bn: bool) -> nn.Module:
    """Make the module of an operation."""
    operations = {
        "max_pool_3x3": lambda: nn.MaxPool2d(3, stride=stride, padding=1),
        "avg_pool_3x3": lambda: nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False),
        "skip_connect": lambda: nn.Identity() if stride == 1 else Reduce(channels, channels, apply_bn),
        "sep_conv_3x3": lambda: nn.Sequential(*separable(channels, stride, 1), *separable(channels, 1, 1)),
        "dil_conv_3x3": lambda: nn.Sequential(*separable(channels, stride, 2)),
    }
    return operations[name]()


class PlainCell(nn.Module):
    """One cell."""

    def __init__(self, plan: CellPlan, c0: int, c1: int, channels: int, *, reduce: bool, halve: bool, apply_bn: bool) -> None:
        super().__init__()
        pre = [nn.Sequential(nn.ReLU(), nn.Conv2d(c, channels, 1, bias=False), nn.BatchNorm2d(channels)) for c in (c0, c1)]
        self.preprocess0 = Reduce(c0, channels, apply_bn) if halve else pre[0]
        self.preprocess1 = pre[1]
        self.plan = plan
        self.nodes = nn.ModuleList(
            nn.ModuleList(make(name, channels, 2 if reduce and source < 2 else 1, apply_bn) for name, source in node) for node in plan
        )

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        """Compute the nodes, concatenated."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for node, modules in zip(self.plan, self.nodes, strict=True):
            states.append(sum(module(states[source]) for module, (_, source) in zip(modules, node, strict=True)))  # ty: ignore
        return torch.cat(states[2:], dim=1)


class PlainCellNetwork(nn.Module):
    """Stem, cells, global average pooling."""

    def __init__(self, genotype: Genotype, channels: int, cells: int = 4, *, reduce_bn: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * channels, 3, padding=1, bias=False), nn.BatchNorm2d(3 * channels))
        self.cells = nn.ModuleList()
        c0 = c1 = 3 * channels
        halve = False
        for index in range(cells):
            reduce = index in (cells // 3, 2 * cells // 3)
            plan = genotype.reduce if reduce else genotype.normal
            self.cells.append(PlainCell(plan, c0, c1, channels, reduce=reduce, halve=halve, apply_bn=reduce_bn))
            c0, c1, halve = c1, 4 * channels, reduce
        self.feature_dim = 4 * channels

    def forward(self, images: Tensor) -> Tensor:
        """Features of normalized images."""
        s0 = s1 = self.stem(images)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1)
        return F.adaptive_avg_pool2d(s1, 1).flatten(1)
