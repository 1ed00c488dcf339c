"""Progressive networks: a column of blocks for each task, and laterals by which it reads the columns before it.

A column is a chain of blocks that ends in its head. Block l of column t takes its own input, and by a lateral what the same input is in
each earlier column:

    h[t, l]  =  B[t, l](h[t, l-1])  +  lateral of (h[1, l-1], ..., h[t-1, l-1])               no lateral at the first block: images

``adapter``
    U(relu(V [a_1 h[1, l-1]; ...; a_{t-1} h[t-1, l-1]])): each source has a learned scale a_k, V is a 1x1 convolution (a linear layer at
    the head) that brings all sources back to the width of one, and U is a block like B.
``copies``
    a block like B for every source, and the sum of what they give.

Sources: Rusu et al., Progressive Neural Networks (2016, arXiv 1606.04671), Eq. 2 and section 2; on blocks of a residual network: the code
of PAR's authors (adapter) and of MNTDP's (copies). Blocks end in their own nonlinearity, so that the sum is taken after it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.blocks import Chain

LateralForm = Literal["adapter", "copies"]
Scales = Literal["ones", "normal"]
"""Where the scales of sources start: at 1, or drawn from a standard normal."""


class Adapter(nn.Module):
    """A block on several sources, scaled and reduced to the width of one.

    Args:
        sources: how many there are, at least 1.
        reduce: from all sources, one after the other along dimension 1, to the block's input (V).
        block: the block (U).
        scales: where the scales of sources start.

    Attributes:
        alpha: the scale of each source.
    """

    def __init__(self, sources: int, reduce: nn.Module, block: nn.Module, scales: Scales = "ones") -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(sources) if scales == "ones" else torch.randn(sources))
        self.reduce = reduce
        self.block = block

    def forward(self, sources: Sequence[Float[Tensor, "n c *side"]]) -> Float[Tensor, "n ..."]:
        """Apply the block to the reduced sources."""
        scaled = [scale * source for scale, source in zip(self.alpha, sources, strict=True)]
        return self.block(F.relu(self.reduce(torch.cat(scaled, dim=1))))


class Copies(nn.Module):
    """A block for each source, summed."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, sources: Sequence[Float[Tensor, "n c *side"]]) -> Float[Tensor, "n ..."]:
        """Sum the blocks' outputs."""
        outputs = [block(source) for block, source in zip(self.blocks, sources, strict=True)]
        return torch.stack(outputs).sum(dim=0)


class Level(nn.Module):
    """A block of a column, with its lateral, if there is one."""

    def __init__(self, block: nn.Module, lateral: Adapter | Copies | None) -> None:
        super().__init__()
        self.block = block
        self.lateral = lateral

    def forward(self, own: Float[Tensor, "n c *side"], sources: Sequence[Float[Tensor, "n c *side"]]) -> Float[Tensor, "n ..."]:
        """Add the block's output for the column's own input and the lateral's for the same input in the earlier columns."""
        return self.block(own) if self.lateral is None else self.block(own) + self.lateral(sources)


class Column(nn.Module):
    """A network for one task that reads those of earlier tasks, which are not part of it.

    Args:
        chain: makes its blocks; initial weights are drawn from torch's global generator.
        classes: of the task.
        earlier: number of columns before it.
        form: of the laterals.
        scales: where an adapter's scales of its sources start.

    Attributes:
        trunk: the levels below the head, which later columns read.
        head: the last level.
    """

    def __init__(self, chain: Chain, classes: int, earlier: int, form: LateralForm = "adapter", scales: Scales = "ones") -> None:
        super().__init__()

        def level(make: Callable[[], nn.Module], reduce: Callable[[], nn.Module]) -> Level:
            if not earlier:
                return Level(make(), None)
            if form == "copies":
                return Level(make(), Copies(make() for _ in range(earlier)))
            return Level(make(), Adapter(earlier, reduce(), make(), scales))

        width, features = chain.channels, chain.feature_dim
        self.trunk = nn.ModuleList([Level(chain.make(0), None)])
        for make in chain.blocks[1:]:
            self.trunk.append(level(make, lambda: nn.Conv2d(earlier * width, width, 1)))
        self.head = level(lambda: nn.Linear(features, classes), lambda: nn.Linear(earlier * features, features))

    def outputs(self, images: Float[Tensor, "n 3 h w"], earlier: Sequence[Sequence[Tensor]]) -> list[Float[Tensor, "n ..."]]:
        """Compute the output of each level of the trunk; features come last.

        Args:
            images: prepared images.
            earlier: the `outputs` of each earlier column for the same images.
        """
        outputs = [self.trunk[0](images, ())]
        for below, level in enumerate(self.trunk[1:]):
            outputs.append(level(outputs[below], [column[below] for column in earlier]))
        return outputs

    def forward(self, images: Float[Tensor, "n 3 h w"], earlier: Sequence[Sequence[Tensor]]) -> Float[Tensor, "n classes"]:
        """Compute logits; arguments as for `outputs`."""
        return self.head(self.outputs(images, earlier)[-1], [column[-1] for column in earlier])


def outputs_of(columns: Iterable[Column], images: Float[Tensor, "n 3 h w"]) -> list[list[Float[Tensor, "n ..."]]]:
    """Compute the outputs of every level of consecutive columns from the first on, each once."""
    outputs: list[list[Tensor]] = []
    for column in columns:
        outputs.append(column.outputs(images, outputs))
    return outputs
