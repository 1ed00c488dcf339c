"""SGD whose state survives an interruption to the bit, and whose step can be recorded as a CUDA graph."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from lifelong.storage import Tree
from lifelong.training.step_runner import can_record


class SGD:
    """SGD with momentum and coupled weight decay, with one fused update per step.

    It runs PyTorch's own update behind a smaller interface: `torch.optim.SGD` imports `torch._dynamo` when it is first made, which takes a
    second of every short run, and holds the rate as a number, which a recorded step would never see change.

    A parameter that a step's loss does not depend on (the head of a task that is not in the batch) is unchanged by that step.

    Args:
        parameters: those that require gradients are trained.
        lr: initial learning rate, > 0.
        momentum: in [0, 1).
        weight_decay: of an L2 penalty, >= 0.

    Attributes:
        parameters: the trained ones, in the order given.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._momentum, self._weight_decay = momentum, weight_decay
        # Zeros, as good as none: the fused update does not take parameters whose first gradient comes later than the others'.
        self._buffers = [torch.zeros_like(parameter) if momentum else None for parameter in self.parameters]
        self._lr = lr
        self._rate: float | Tensor = lr
        if self.parameters and can_record(self.parameters[0].device):
            device = self.parameters[0].device
            self._rate = torch.tensor(lr, device=device, dtype=torch.float64 if device.type == "cpu" else torch.float32)

    @property
    def lr(self) -> float:
        """Return the learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = value
        if isinstance(self._rate, Tensor):
            self._rate.fill_(value)
        else:
            self._rate = value

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def clear_grad(self) -> None:
        """Set existing gradients to zero: parameters outside a step's loss still move by momentum and weight decay."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        moved = [(p, p.grad, b) for p, b in zip(self.parameters, self._buffers, strict=True) if p.grad is not None]
        if not moved:
            return
        parameters, gradients, buffers = (list(column) for column in zip(*moved, strict=True))
        sgd(
            parameters,
            gradients,
            buffers,
            fused=True,
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=self._rate,  # ty: ignore[invalid-argument-type]  # A tensor is taken too; the annotation is of the scripted form.
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def state(self) -> Tree:
        """Return the momentum buffers in the order of the parameters; None for each without momentum."""
        return list(self._buffers)

    def load(self, buffers: list[Tensor | None]) -> None:
        """Put saved momentum buffers back, in place.

        Each keeps the memory layout of its parameter: files hold plain layouts, but fused updates of channels-last weights walk both
        in step.
        """
        for mine, saved in zip(self._buffers, buffers, strict=True):
            if mine is not None and saved is not None:
                mine.copy_(saved)
