"""SGD whose state survives an interruption to the bit."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lifelong.storage import Tree


def sgd(parameters: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD with momentum and coupled weight decay over the parameters that require gradients, one fused update a step."""
    return torch.optim.SGD([p for p in parameters if p.requires_grad], lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)


def momentum_state(optimizer: torch.optim.SGD) -> Tree:
    """The momentum buffers in the order of the parameters; None for a parameter that has not been stepped."""
    return [optimizer.state[p].get("momentum_buffer") for group in optimizer.param_groups for p in group["params"]]


def load_momentum(optimizer: torch.optim.SGD, buffers: list[Tensor | None]) -> None:
    """Put saved momentum buffers back.

    Each gets the memory layout of its parameter: files hold plain layouts, but fused updates of channels-last weights walk both
    in step.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, buffer in zip(parameters, buffers, strict=True):
        if buffer is not None:
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
