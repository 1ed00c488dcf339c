"""Maxima over a grid of fields that cover maps of any size, which PyTorch cannot write as ONNX."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def adaptive_max_pool(maps: Float[Tensor, "n c h w"], side: int) -> Float[Tensor, "n c s s"]:
    """Compute the maxima of maps over side x side fields, as `torch.nn.functional.adaptive_max_pool2d`.

    While a program is traced for export, field by field: the i-th of `side` fields of n places begins at floor(i n / side) and ends
    before ceil((i + 1) n / side).
    """
    if not torch.compiler.is_compiling():
        return F.adaptive_max_pool2d(maps, side)
    for axis in (2, 3):
        places = maps.shape[axis]
        fields = [(place * places // side, -(-(place + 1) * places // side)) for place in range(side)]
        maps = torch.stack([maps.narrow(axis, first, end - first).amax(dim=axis) for first, end in fields], dim=axis)
    return maps


class AdaptiveMaxPool(nn.Module):
    """`adaptive_max_pool` as a module.

    Args:
        side: of the grid.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c s s"]:
        """Compute the maxima."""
        return adaptive_max_pool(maps, self.side)
