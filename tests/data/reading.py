"""Say what a source has read, or how it refuses."""

import pytest
import torch

from lifelong.data.sources import Sources
from lifelong.errors import LifelongError


def numbers(pixels: torch.Tensor) -> list[int]:
    """Which numbered images these are."""
    corner = pixels[:, :, 0, 0].long()
    return (corner[:, 0] + 256 * corner[:, 1]).tolist()


def fails(sources: Sources, name: str, *words: str) -> None:
    """See that opening a source is refused in one line that has all the words."""
    with pytest.raises(LifelongError) as caught:
        sources.open(name)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
