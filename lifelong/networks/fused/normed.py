"""Maps whose batch norm is still to be applied."""

from typing import NamedTuple

from torch import Tensor


class Normed(NamedTuple):
    """Maps of which batch norm's statistics are known, and which it has not yet been applied to.

    Attributes:
        maps: before batch norm, (n, c, h, w), channels last.
        coefficients: mean, reciprocal deviation, scale and shift of each channel, (4, c).
        sums: stands in autograd's graph for the sums that the gradient needs, (2, c); holds nothing.
    """

    maps: Tensor
    coefficients: Tensor
    sums: Tensor
