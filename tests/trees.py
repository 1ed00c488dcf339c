"""Trees of tensors and plain values, compared bit for bit."""

import torch


def same(left, right) -> bool:
    """Whether two trees have the same shape, and the same bits in every tensor."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right
