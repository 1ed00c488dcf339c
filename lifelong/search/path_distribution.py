"""A distribution over where to leave a source path, and how its logits are learned from rewards.

At each module of the source path there is a choice: a softmax over leaving (column 0) and staying (column 1). The probability of a path
is the product of its choices:

    p(k) = leave_k * product of stay_j over j < k;   of the last path, which never leaves, the product of all stay_j

With all logits at zero, half of all draws take the first path, a quarter the second, and so on: reuse has to be earned.

Source: Veniat et al., MNTDP (ICLR 2021), the stochastic variant and its code (conditional softmax).
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def log_probabilities(logits: Float[Tensor, "choices 2"]) -> Float[Tensor, " choices+1"]:
    """Compute log p(k) of each path."""
    leave, stay = logits.log_softmax(dim=1).unbind(dim=1)
    none = logits.new_zeros(1)
    return torch.cat([none, stay.cumsum(dim=0)]) + torch.cat([leave, none])


def entropy(log_p: Float[Tensor, " paths"]) -> Float[Tensor, ""]:
    """Compute the entropy of a distribution over paths, in nats."""
    return -(log_p.exp() * log_p).sum()


def reinforce_loss(log_p: Float[Tensor, " paths"], paths: Int64[Tensor, "n"], rewards: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Compute a loss whose gradient is an unbiased estimate of minus the gradient of the expected reward.

    -mean of (R_i - the mean reward of the others) log p(path_i). The paper's code subtracts the mean of all n rewards, R_i among them,
    which shrinks the estimate to (1 - 1/n) of the gradient in expectation. Both are one and the same up to that factor, since
    R_i - mean of the others = n / (n - 1) (R_i - mean of all).

    Args:
        log_p: log-probability of each path.
        paths: the path drawn for each sample.
        rewards: its reward; nothing is learned from a single sample, which has no other to compare with.
    """
    count = len(rewards)
    advantages = (rewards - rewards.mean()) * count / max(count - 1, 1)
    return -(advantages * log_p[paths]).mean()
