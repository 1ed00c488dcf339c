"""The small AlexNet on which HAT and GPM report CIFAR-100: three convolutions, two wide linear layers.

Sources: Serrà et al., HAT (ICML 2018), and Saha et al., GPM (ICLR 2021), with their authors' code. Both have the same shape,

    conv 4x4, 3 -> 64      dropout 0.2, max-pool 2
    conv 3x3, 64 -> 128    dropout 0.2, max-pool 2
    conv 2x2, 128 -> 256   dropout 0.5, max-pool 2
    linear 1024 -> 2048    dropout 0.5
    linear 2048 -> 2048    dropout 0.5

each layer followed by a ReLU, none padded. HAT's layers have biases and no batch norm; GPM's have batch norm and no biases, nor have
its heads. The shape is made for images of 32 x 32 pixels; larger ones are pooled to maps of 2 x 2 before the linear layers.
"""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from lifelong.errors import LifelongError
from lifelong.networks.max_pool import adaptive_max_pool
from lifelong.networks.wiring import Wire

SMALLEST = 19
"""Smallest image side in pixels that the convolutions and their pooling allow."""

SIDE = 2
"""Side of the maps that the linear layers read."""


class AlexNet(nn.Module):
    """HAT's AlexNet (6,503,872 parameters), or with batch norm GPM's (6,508,416); 2,048 features.

    Weights start as PyTorch's defaults, as in the authors' code.

    Args:
        channels: of the first convolution; the other layers have 2, 4, 32 and 32 times as many units.
        batch_norm: batch norm after each layer and no biases (GPM), instead of biases and no batch norm (HAT).

    Attributes:
        feature_dim: features per image, 32 times `channels`.
        head_bias: whether heads on the features have a bias.
    """

    def __init__(self, channels: int = 64, *, batch_norm: bool = False) -> None:
        super().__init__()
        first, second, third, wide = (factor * channels for factor in (1, 2, 4, 32))
        self.feature_dim = wide
        self.head_bias = not batch_norm
        bias = not batch_norm
        self.convs = nn.Sequential(
            _layer(nn.Conv2d(3, first, 4, bias=bias), nn.BatchNorm2d(first) if batch_norm else None, 0.2, nn.MaxPool2d(2)),
            _layer(nn.Conv2d(first, second, 3, bias=bias), nn.BatchNorm2d(second) if batch_norm else None, 0.2, nn.MaxPool2d(2)),
            _layer(nn.Conv2d(second, third, 2, bias=bias), nn.BatchNorm2d(third) if batch_norm else None, 0.5, nn.MaxPool2d(2)),
        )
        self.linears = nn.Sequential(
            _layer(nn.Linear(SIDE * SIDE * third, wide, bias=bias), nn.BatchNorm1d(wide) if batch_norm else None, 0.5),
            _layer(nn.Linear(wide, wide, bias=bias), nn.BatchNorm1d(wide) if batch_norm else None, 0.5),
        )

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Features of normalized images.

        Raises:
            LifelongError: the images are too small for the network.
        """
        if min(images.shape[2:]) < SMALLEST:
            size = " x ".join(map(str, images.shape[2:]))
            raise LifelongError(
                f"AlexNet needs images of {SMALLEST} x {SMALLEST} pixels or more, not {size}; use --backbone light-resnet18"
            )
        return self.linears(adaptive_max_pool(self.convs(images), SIDE).flatten(1))

    def wiring(self) -> list[Wire]:
        """List which units each layer reads and writes."""
        blocks = ["convs.0", "convs.1", "convs.2", "linears.0", "linears.1"]
        sources = [None, *(f"{block}.relu" for block in blocks[:-1])]
        layers = [Wire(f"{block}.weights", f"{block}.relu", source) for block, source in zip(blocks, sources, strict=True)]
        return layers + ([] if self.head_bias else [Wire(f"{block}.norm", f"{block}.relu") for block in blocks])


def _layer(weights: nn.Module, norm: nn.Module | None, dropout: float, pool: nn.Module | None = None) -> nn.Sequential:
    parts = {"weights": weights, "norm": norm, "relu": nn.ReLU(), "dropout": nn.Dropout(dropout), "pool": pool}
    return nn.Sequential(OrderedDict((name, part) for name, part in parts.items() if part is not None))
