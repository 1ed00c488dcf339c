"""An accelerator that is none, so that what a CUDA device would do can be tested where there is none.

Its tensors claim the device `pretend:0`, hold a tensor of the CPU inside, and compute with the CPU's own kernels: where the library takes
the same branches the numbers are the CPU's. What they do not do, as on CUDA, is mix with tensors of the CPU: an operation on both raises.
Every wait of the host for the device is noted: a GPU idles wherever the library waits in a training step.

    with pretend.counted() as syncs:
        ...
    assert syncs == []

It can also be told to have no float64, as Apple's GPUs have none (`without_float64`).

What is not like CUDA: random numbers are those of the CPU, and so is the global generator. Generators are made by a stand-in for
`torch.Generator`, which the fixture `accelerator` puts in its place meanwhile.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
import torch.utils.backend_registration

import lifelong

NAME = "pretend"

LIBRARY = Path(lifelong.__file__).parent

SYNCHRONIZING = {
    "_linalg_check_errors",
    "_linalg_eigh",
    "_linalg_svd",
    "_local_scalar_dense",
    "_unique",
    "_unique2",
    "bincount",
    "equal",
    "masked_select",
    "multinomial",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
    "unique_dim_consecutive",
}
"""Operations for whose result, or whose result's size, CUDA makes the host wait."""

INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations that take indices of the host too: they are copied, and the host waits; as it does for a mask, whose places are counted."""

COPIES = {"_to_copy", "copy_"}

WITH_NUMBERS = {"fill", "fill_", "masked_fill", "masked_fill_"}
"""Operations that take a single number of the host although they are not tagged as elementwise."""

PLAIN = {bool, float, int, str, torch.dtype, type(None)}


@dataclass(frozen=True)
class Sync:
    """The host waits for the device.

    Attributes:
        operation: of PyTorch, such as "_local_scalar_dense".
        where: the line of the library that asked for it, as "methods/agem.py:69"; "" where none is on the stack (in a backward pass).
    """

    operation: str
    where: str


_counters: list[list[Sync]] = []
_lacking: set[torch.dtype] = set()


class PretendTensor(torch.Tensor):
    """A tensor on the pretended device.

    Attributes:
        raw: the tensor of the CPU that has its numbers.
    """

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "PretendTensor":
        if raw.dtype in _lacking:
            raise TypeError(f"the pretended device has no {raw.dtype}; use float32 instead")
        place = torch.device(NAME, 0)
        made = torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=place
        )
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return _call(function, args, kwargs or {})

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        # By these two, `Module.to` puts the device's numbers into the parameters that are there, which modules may share.
        return ["raw"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], context: None, size: Any, stride: Any) -> "PretendTensor":
        return PretendTensor(inner["raw"])

    def tolist(self) -> Any:
        # PyTorch has none for tensors of a class of their own.
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"pretended {self.raw!r}"


class _PretendGenerator(torch.Generator):
    """A generator of the pretended device: it draws the numbers of the CPU's."""

    def __init__(self) -> None:
        # An operation is given another object for the same generator.
        _generators[self._cdata] = self

    @property
    def device(self) -> torch.device:
        return torch.device(NAME, 0)


_HOST_GENERATOR = torch.Generator

_generators: WeakValueDictionary[int, torch.Generator] = WeakValueDictionary()


class _Generators(type):
    """Makes generators as `torch.Generator` does, which knows nothing of a device that is written in Python."""

    def __call__(cls, device: torch.device | str = "cpu") -> torch.Generator:
        return _PretendGenerator() if torch.device(device).type == NAME else _HOST_GENERATOR(device)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _HOST_GENERATOR)


class AnyGenerator(metaclass=_Generators):
    """What stands for `torch.Generator`."""


def _call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation of PyTorch on what is inside of the tensors, and put the results onto the device."""
    name = function._schema.name.partition("::")[2]
    own: list[PretendTensor] = []
    others: list[torch.Tensor] = []
    inner_args, inner_kwargs = _inside(args, own, others), _inside(kwargs, own, others)
    if own and others:
        _check_devices(function, name, args, others)
    wanted = kwargs.get("device")
    on_device = bool(own) if wanted is None else torch.device(wanted).type == NAME
    if _counters and _waits(name, args, kwargs, on_device):
        sync = Sync(name, _asked_by())
        for counter in _counters:
            counter.append(sync)
    result = function(*inner_args, **inner_kwargs)
    if not function._schema.is_mutable:
        return _outside(result, {}, on_device)
    if torch.Tag.inplace_view in function.tags:
        with torch.utils._mode_utils.no_dispatch():
            function(*args, **kwargs)
    for item in own:
        assert item.shape == item.raw.shape, f"{name} changes a shape in place, which the pretended device cannot"
    return _outside(result, {id(item.raw): item for item in own}, on_device)


def _inside(value: Any, own: list[PretendTensor], others: list[torch.Tensor]) -> Any:
    """What the CPU's operation is given for what the device's was given; the tensors in it are noted, by where they are."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, PretendTensor):
        own.append(value)
        return value.raw
    if isinstance(value, torch.Tensor):
        others.append(value)
    elif isinstance(value, (list, tuple)):
        return type(value)([_inside(item, own, others) for item in value])
    elif isinstance(value, dict):
        return {key: _inside(item, own, others) for key, item in value.items()}
    elif isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    elif isinstance(value, _HOST_GENERATOR) and value._cdata not in _generators:
        raise RuntimeError(f"expected a generator of the device '{NAME}', not one of the CPU")
    return value


def _outside(value: Any, known: dict[int, PretendTensor], on_device: bool) -> Any:
    """Results as tensors of the device; what was changed in place is the very tensor that was given."""
    if isinstance(value, torch.Tensor):
        if id(value) in known:
            return known[id(value)]
        return PretendTensor(value) if on_device else value
    return type(value)(_outside(item, known, on_device) for item in value) if isinstance(value, (list, tuple)) else value


def _check_devices(function: Any, name: str, args: tuple[Any, ...], others: list[torch.Tensor]) -> None:
    """Raise where CUDA would: a tensor of the CPU takes part in nothing but a copy, unless it is a single number or an index."""
    if name in COPIES:
        return
    if isinstance(args[0], PretendTensor):
        if name in INDEXED:
            # Indices may be the host's; what is put there may be a single number.
            others = [item for item in args[2:3] if isinstance(item, torch.Tensor) and not isinstance(item, PretendTensor)]
        if name in INDEXED | WITH_NUMBERS or torch.Tag.pointwise in function.tags:
            others = [item for item in others if item.dim() > 0]
    elif torch.Tag.pointwise in function.tags and not function._schema.is_mutable:
        others = [item for item in others if item.dim() > 0]
    if others:
        shapes = ", ".join(str(tuple(item.shape)) for item in others)
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found '{NAME}:0' and 'cpu' (of shape {shapes})")


def _waits(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], on_device: bool) -> bool:
    """Whether CUDA would make the host wait."""
    if name in SYNCHRONIZING:
        return True
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name in INDEXED:
        indices = [index for index in args[1] if index is not None]
        return any(not isinstance(index, PretendTensor) or index.dtype in (torch.bool, torch.uint8) for index in indices)
    if name == "copy_":
        source, non_blocking = args[1], (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        # To the host it waits, or the host would read what is not there yet.
        return not isinstance(args[0], PretendTensor) or not (isinstance(source, PretendTensor) or non_blocking)
    return name == "_to_copy" and not on_device


def _asked_by() -> str:
    """The innermost line of the library on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(LIBRARY):
            return f"{file.relative_to(LIBRARY)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


@cache
def register() -> tuple[torch.library.Library, ...] | None:
    """Make the device known to PyTorch, once in a process; what is returned must be kept. None: this PyTorch is too old."""
    set_up = getattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend", None)
    if set_up is None:
        return None
    set_up(NAME)
    # Operations without a tensor of the device, such as `torch.zeros`; all others come to `__torch_dispatch__`.
    every, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(lambda function, *args, **kwargs: _call(function, args, kwargs), "PrivateUse1")
    # These make an empty tensor and then change its shape in place.
    arange, eye = torch.ops.aten.arange, torch.ops.aten.eye
    for function in (arange.default, arange.start, arange.start_step, eye.default, eye.m):
        some.impl(function, lambda *args, function=function, **kwargs: _call(function, args, kwargs), "PrivateUse1")
    # `torch.tensor` passes `__torch_dispatch__` by, and no fallback is asked for its copy.
    copy = torch.ops.aten.copy_.default
    some.impl("_copy_from", lambda source, target, non_blocking=False: _call(copy, (target, source, non_blocking), {}), "PrivateUse1")
    return every, some


@contextmanager
def counted() -> Generator[list[Sync]]:
    """A block whose waits are noted in a list, also those of backward passes, which run in a thread of their own."""
    syncs: list[Sync] = []
    _counters.append(syncs)
    try:
        yield syncs
    finally:
        _counters.remove(syncs)


@contextmanager
def without_float64() -> Generator[None]:
    """A block in which the device has no float64, as Apple's GPUs have none: to make a tensor of it raises."""
    _lacking.add(torch.float64)
    try:
        yield
    finally:
        _lacking.clear()
