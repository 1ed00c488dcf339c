"""Random numbers that no other thread can change, nor be changed by.

PyTorch's modules draw their initial weights from one generator for the whole process. A block of `drawn_from` gives what is drawn within it
by this thread a generator of its own instead, so that networks can be built while another thread trains, and are what they would have been:
on the CPU a generator with a seed draws what the global one draws with it.

What happens inside a kernel, such as dropout, cannot be given a generator, and still draws from the global one (`stages.seeded`).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

MAKERS = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson")
"""Functions of torch that make a tensor of random numbers."""

FILLERS = ("bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_")
"""Methods of a tensor that fill it with random numbers."""

DRAWING: frozenset[Callable[..., Any]] = frozenset(
    [getattr(torch, name) for name in MAKERS]
    + [getattr(Tensor, name) for name in (*FILLERS, "bernoulli", "multinomial")]
    # Those of torch.nn.init that are asked as a whole, and hand their generator on.
    + [made for made in vars(nn.init).values() if inspect.isfunction(made) and "generator" in inspect.signature(made).parameters]
)
"""All that draw, and take a generator."""


class _Drawn(TorchFunctionMode):
    """What draws on the CPU is given a generator, unless it has one."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in DRAWING and given.get("generator") is None and _on_cpu(args, given):
            given["generator"] = self.generator
        return func(*args, **given)


def _on_cpu(args: tuple[Any, ...], given: Mapping[str, Any]) -> bool:
    """Whether a function draws on the CPU: its tensor is there, or the one it makes."""
    tensor = next((value for value in (*args, *given.values()) if isinstance(value, Tensor)), None)
    place = tensor.device if tensor is not None else given.get("device") or torch.get_default_device()
    return torch.device(place).type == "cpu"


def drawn_from(generator: torch.Generator) -> AbstractContextManager[object]:
    """Enter a block in which this thread draws on the CPU from a generator, where it names none.

    Args:
        generator: of the CPU.
    """
    return _Drawn(generator)


def drawn_apart() -> AbstractContextManager[object]:
    """Enter a block that leaves the global generator alone: for networks whose initial weights are replaced at once."""
    return drawn_from(torch.Generator().manual_seed(0))
