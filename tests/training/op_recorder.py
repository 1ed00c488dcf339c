"""A stand-in for CUDA graphs on a CPU: records the operations of a step with their very tensors, and does them again.

Like a CUDA graph it knows addresses, not names: a replay reads and writes the tensors of the recording, and numbers that Python computed
stay what they were. So a step that is not fit to be recorded gives other results when it is replayed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lifelong.training import optimizer, step_runner
from lifelong.training.stages import Stage, derive_seed
from lifelong.training.step_runner import Recording

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.default")
"""Operations for which a GPU makes the host wait."""


class _Observer(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = "index" in str(func) and any(x.dtype == torch.bool for x in tree_leaves(args[1:]) if isinstance(x, Tensor))
        self.waits |= masked or any(name in str(func) for name in WAITS)
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """The operations of a step in order, each with its arguments and results."""

    def __init__(self, owner: "OpRecorder") -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, Any]] = []
        self.owner, self.replays = owner, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.steps.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        if self.replays == 1:
            return  # A CUDA graph is recorded without being run; here the recording was the first run.
        self.owner.replays += 1
        for func, args, kwargs, result in self.steps:
            fresh = func(*args, **kwargs)
            if any(value.alias_info is not None for value in func._schema.returns):
                continue  # A view of the recorded tensors, or one of them changed in place.
            for old, new in zip(tree_leaves(result), tree_leaves(fresh), strict=True):
                if isinstance(old, Tensor):
                    old.copy_(new)


class OpRecorder:
    """Records steps on the CPU.

    Attributes:
        observed: for each observed step, whether it kept device and host apart.
        recordings: how many were made.
        replays: how many of their replays did something.
    """

    def __init__(self) -> None:
        self.observed: list[bool] = []
        self.recordings = self.replays = 0

    def observe(self, step: Callable[[], None]) -> bool:
        with _Observer() as observer:
            step()
        self.observed.append(not observer.waits)
        return self.observed[-1]

    def record(self, step: Callable[[], None], generators: Sequence[torch.Generator], before: Recording | None) -> Operations:
        self.recordings += 1
        operations = Operations(self)
        with operations:
            step()
        return operations


@contextmanager
def recording(patch: pytest.MonkeyPatch) -> Iterator[OpRecorder]:
    """Steps on the CPU are recorded, and the host's generator is another than the device's, as on a GPU."""
    recorder = OpRecorder()
    with patch.context() as inner:
        inner.setattr(step_runner, "recorder_for", lambda device: recorder)
        inner.setattr(optimizer, "can_record", lambda device: True)
        apart(inner)
        yield recorder


def apart(patch: pytest.MonkeyPatch) -> None:
    """Give the host a generator of its own, as on a GPU."""

    def generators(self: Stage, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
        return self.generator(device), torch.Generator().manual_seed(derive_seed(self.seed, "host"))

    patch.setattr(Stage, "generators", generators)
