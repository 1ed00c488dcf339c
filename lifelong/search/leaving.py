"""A distribution over the paths along a source: where to leave it; and how its logits are learned from rewards.

At each module of the source path stands a choice, a softmax over leaving (column 0) and staying (column 1). The probability of a path
is the product of its choices:

    p(k) = leave_k * product of stay_j over j < k;   of the last path, which never leaves, the product of all stay_j

With all logits at zero, half of all draws take the first path, a quarter the second, and so on: a source has to earn its reuse.

Source: Veniat et al., MNTDP (ICLR 2021), the stochastic variant and its code (conditional softmax).
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def log_probabilities(logits: Float[Tensor, "choices 2"]) -> Float[Tensor, " choices+1"]:
    """log p(k) of each path."""
    leave, stay = logits.log_softmax(dim=1).unbind(dim=1)
    none = logits.new_zeros(1)
    return torch.cat([none, stay.cumsum(dim=0)]) + torch.cat([leave, none])


def entropy(log_p: Float[Tensor, " paths"]) -> Float[Tensor, ""]:
    """Of a distribution over paths, in nats."""
    return -(log_p.exp() * log_p).sum()


def reinforce_loss(log_p: Float[Tensor, " paths"], paths: Int64[Tensor, "n"], rewards: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """A loss whose gradient estimates minus the gradient of the expected reward, without bias.

    -mean of (R_i - the mean reward of the others) log p(path_i). The paper's code subtracts the mean of all n rewards, R_i among them,
    which shrinks the estimate to (1 - 1/n) of the gradient in expectation. Both are one and the same up to that factor, since
    R_i - mean of the others = n / (n - 1) (R_i - mean of all).

    Args:
        log_p: log-probability of each path.
        paths: the path that was drawn for each sample.
        rewards: what it earned; of a single sample nothing is learned, as there is none to compare with.
    """
    count = len(rewards)
    advantages = (rewards - rewards.mean()) * count / max(count - 1, 1)
    return -(advantages * log_p[paths]).mean()
