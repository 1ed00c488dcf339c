"""Low-rank adapters: what a task adds to the convolutions of a frozen residual stage.

    y = BN(W * x + B (A * x))        A: k x k to r channels, B: 1 x 1, zero at first

W and BN are the frozen network's. Since B starts at zero, the adapted stage starts as the frozen one.

Source: parallel residual adapters (Rebuffi et al., CVPR 2018) with the low rank and the zero start of LoRA (Hu et al., ICLR 2022).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.frozen import Borrowed
from lifelong.networks.resnet import BasicBlock


class LowRank(nn.Module):
    """What is added to the output of one convolution.

    Args:
        convolution: the frozen one, whose size, stride and padding the first map takes.
        rank: channels r between the two maps.
    """

    def __init__(self, convolution: nn.Conv2d, rank: int) -> None:
        super().__init__()
        size, stride, padding = convolution.kernel_size[0], convolution.stride[0], convolution.padding
        assert not isinstance(padding, str)
        self.down = nn.Conv2d(convolution.in_channels, rank, size, stride=stride, padding=padding[0], bias=False)
        self.up = nn.Conv2d(rank, convolution.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d _h _w"]:
        """Compute the addition."""
        return self.up(self.down(x))


class AdaptedStage(nn.Module):
    """A frozen stage of residual blocks with adapters of its own at every 3 x 3 convolution, and averaged features.

    Args:
        blocks: of the frozen stage, which is run but not held, trained or saved.
        rank: of the adapters.
    """

    def __init__(self, blocks: Sequence[nn.Module], rank: int) -> None:
        super().__init__()
        residual = [block for block in blocks if isinstance(block, BasicBlock)]
        assert len(residual) == len(blocks), "adapters are for residual blocks"
        self._parts = tuple(
            tuple(Borrowed(part) for part in (block.conv1, block.bn1, block.conv2, block.bn2, block.downsample)) for block in residual
        )
        self.adapters = nn.ModuleList(LowRank(convolution, rank) for block in residual for convolution in (block.conv1, block.conv2))

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Compute the adapted features from the maps before the stage."""
        x = maps
        for index, (conv1, bn1, conv2, bn2, downsample) in enumerate(self._parts):
            y = torch.relu(bn1(conv1(x) + self.adapters[2 * index](x)))
            x = torch.relu(bn2(conv2(y) + self.adapters[2 * index + 1](y)) + downsample(x))
        return x.mean(dim=(2, 3))
