"""SGD whose state survives an interruption to the bit."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lifelong.storage import Tree


def sgd(parameters: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD with momentum and coupled weight decay over the parameters that require gradients, one fused update a step.

    A parameter that has no part in a step's loss (the head of a task that is not in the batch) stays as it is in that step.
    """
    trained = [p for p in parameters if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
    if momentum:
        # Zeros, as good as none: the fused update does not take parameters whose first gradient comes later than the others'.
        for parameter in trained:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def momentum_state(optimizer: torch.optim.SGD) -> Tree:
    """The momentum buffers in the order of the parameters; None without momentum."""
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
