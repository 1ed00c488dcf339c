"""Computing in float64, where two ways to the same result stay together.

In float32 they do not. A ReLU whose input is zero to rounding is open on one processor and closed on another; the step that follows
differs in the fourth digit, not in the eighth, and after a dozen steps a small network is another one. The same holds for a batch that
is split otherwise. In float64 such an input is a billion times rarer, and what remains of a difference hardly grows.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float64() -> Iterator[None]:
    """Make networks, images and random numbers in float64 within the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
