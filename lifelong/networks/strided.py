"""1x1 convolutions with a stride, without a kernel that writes past its memory.

The gradient of their weights in oneDNN, for maps that lie channels-last with fewer channels than the processor's vectors hold floats (8
with AVX2, 16 with AVX-512), overruns its workspace: the program crashes, or runs on with a damaged heap (uxlfoundation/oneDNN, issue 6035;
in PyTorch 2.13). A 1x1 convolution of every second pixel is one of stride 1 on these pixels, and that has another kernel.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.layout import on_cpu

NARROW = 16
"""From this many input channels on, no processor overruns."""


def pixelwise(x: Float[Tensor, "n c h w"], weight: Float[Tensor, "d c 1 1"], stride: int) -> Float[Tensor, "n d _h _w"]:
    """Convolve every `stride`-th pixel with a 1x1 kernel."""
    if stride > 1 and x.shape[1] < NARROW and on_cpu(x):
        return F.conv2d(x[:, :, ::stride, ::stride], weight)
    return F.conv2d(x, weight, stride=stride)


class Pixelwise(nn.Conv2d):
    """A 1x1 convolution without bias, of any stride. Its weight is of shape (D, C, 1, 1)."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__(inputs, channels, 1, stride=stride, bias=False)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d _h _w"]:
        """Convolve every `stride`-th pixel."""
        return pixelwise(input, self.weight, self.stride[0])
