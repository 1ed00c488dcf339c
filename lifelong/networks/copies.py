"""Many modules of one form, each with weights of its own: the first is built, the others are copies of it.

Building a network draws initial weights, layer by layer; where saved weights replace them at once, that is most of the time that loading
takes. A copy has every attribute of the first, and its own tensors. Only what is sure to be copied whole is copied at all: modules of
plain attributes, without hooks, that share no tensor with one another. Where nobody else has the weights that are given, as those that
were just read from a file (`Loading`), the copy has these very tensors.
"""

import copy
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from lifelong.networks.frozen import freeze

IMMUTABLE = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.memory_format, type, FunctionType)
"""What copies may have in common."""

ALWAYS = frozenset(vars(nn.Module()))
"""What every module has."""


ALIGNED = 64
"""Bytes that PyTorch aligns a tensor's memory to."""


class Loading:
    """What is known of modules while a method is loaded.

    Args:
        own: nobody else has the weights that are given.
    """

    def __init__(self, *, own: bool) -> None:
        self._own = own
        self._taken: set[int] = set()
        self._made: dict[int, tuple[nn.Module, Mapping[str, Tensor]]] = {}

    def note(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Keep in mind that a module has the names, shapes and types of these weights."""
        self._made[id(module)] = module, weights

    def is_of(self, module: nn.Module, weights: object) -> bool:
        """Tell whether a module was made of these weights."""
        return id(module) in self._made and self._made[id(module)][1] is weights

    def serial(self, module: nn.Module) -> int | None:
        """Return a number for a module whose weights need not be read (see `lifelong.trees.known_by`)."""
        return 0 if id(module) in self._made else None

    def takes(self, tensor: Tensor) -> bool:
        """Tell whether a tensor can become a module's; it then is."""
        place = tensor.data_ptr()
        free = self._own and place not in self._taken and place % ALIGNED == 0 and tensor.is_contiguous() and not tensor.requires_grad
        if free:
            self._taken.add(place)
        return free


_LOADING: ContextVar[Loading | None] = ContextVar("loading", default=None)


@contextmanager
def loading(*, own: bool) -> Generator[Loading]:
    """Enter a block in which a method is loaded.

    Args:
        own: nobody else has the weights that are given: modules may have these very tensors.
    """
    known = Loading(own=own)
    before = _LOADING.set(known)
    try:
        yield known
    finally:
        _LOADING.reset(before)


class LoadedModules:
    """Makes frozen modules from their weights.

    Args:
        device: where they shall be.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._device = device
        self._forms: dict[Hashable, _Form | None] = {}

    def __call__(self, form: Hashable, build: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> nn.Module:
        """Return a frozen module of these weights.

        Args:
            form: modules of equal form are built alike.
            build: builds one, with any weights.
            weights: as its `state_dict` gave them.

        Raises:
            RuntimeError: they are not the weights of such a module.
        """
        known = self._forms.get(form)
        found = None if known is None else known.copy(weights)
        if found is not None:
            return found
        module = build().to(self._device)
        module.load_state_dict(weights)
        freeze(module)
        if form not in self._forms:
            self._forms[form] = _Form.of(module)
        return module


class _Form:
    """A module of which copies can be made.

    Args:
        module: the module; its submodules have forms.
        submodules: their forms, by name.

    Attributes:
        names: of its tensors and of theirs, as in a `state_dict`.
    """

    def __init__(self, module: nn.Module, submodules: Mapping[str, "_Form | None"]) -> None:
        self._kind, self._submodules = type(module), submodules
        held = {key: value for key, value in vars(module).items() if key not in ("_parameters", "_buffers", "_modules")}
        self._common = {key: value for key, value in held.items() if _immutable(value)}
        self._own = {key: value for key, value in held.items() if key not in self._common}
        its = chain(module._parameters.items(), module._buffers.items())
        tensors = {name: tensor for name, tensor in its if tensor is not None}
        self._device = next((tensor.device for tensor in tensors.values()), None)
        self._tensors = {
            key: {name: None if tensor is None else (tensor.shape, tensor.dtype) for name, tensor in vars(module)[key].items()}
            for key in ("_parameters", "_buffers")
        }
        below = (f"{name}.{inner}" for name, form in submodules.items() if form is not None for inner in form.names)
        self.names = frozenset(chain(tensors, below))

    @classmethod
    def of(cls, module: nn.Module) -> "_Form | None":
        """Return the form of a module; None if it may hold more than a copy would have."""
        inner = [each for _, each in module.named_modules(remove_duplicate=False)]
        tensors = [tensor for each in inner for tensor in (*each._parameters.values(), *each._buffers.values()) if tensor is not None]
        once = len({*map(id, inner)}) == len(inner) and len({*map(id, tensors)}) == len(tensors)
        usual = len({tensor.device for tensor in tensors}) <= 1 and all(tensor.is_contiguous() for tensor in tensors)
        together = usual and len(tensors) == len(module.state_dict())
        return cls._of(module) if once and together and all(map(_simple, inner)) else None

    @classmethod
    def _of(cls, module: nn.Module) -> "_Form":
        return cls(module, {name: None if inner is None else cls._of(inner) for name, inner in module._modules.items()})

    def copy(self, weights: Mapping[str, Tensor]) -> nn.Module | None:
        """Return a copy with other weights; None if those are not of its form."""
        if weights.keys() != self.names:
            return None
        loading = _LOADING.get()
        # Without what watches all calls of PyTorch in `lifelong.training.isolated_draws`: nothing is drawn here.
        with torch.no_grad(), torch._C.DisableTorchFunction():
            made = self._copied(weights, "", loading)
        if made is not None and loading is not None:
            loading.note(made, weights)
        return made

    def _copied(self, weights: Mapping[str, Tensor], prefix: str, loading: Loading | None) -> nn.Module | None:
        tensors: dict[str, dict[str, Tensor | None]] = {"_parameters": {}, "_buffers": {}}
        for key, known in self._tensors.items():
            for name, like in known.items():
                if like is None:
                    tensors[key][name] = None
                    continue
                given = weights[prefix + name]
                if given.shape != like[0] or given.is_floating_point() != like[1].is_floating_point:
                    return None
                if loading is not None and given.dtype == like[1] and given.device == self._device and loading.takes(given):
                    own = given
                else:
                    own = torch.empty(like[0], dtype=like[1], device=self._device).copy_(given)
                tensors[key][name] = nn.Parameter(own, requires_grad=False) if key == "_parameters" else own
        submodules: dict[str, nn.Module | None] = {}
        for name, form in self._submodules.items():
            submodules[name] = None if form is None else form._copied(weights, f"{prefix}{name}.", loading)
            if form is not None and submodules[name] is None:
                return None
        made = self._kind.__new__(self._kind)
        made.__dict__.update(self._common)
        for key, value in self._own.items():
            made.__dict__[key] = _copy(value) if value else value.copy()
        made.__dict__.update(tensors, _modules=submodules)
        return made


def _simple(module: nn.Module) -> bool:
    """Tell whether a module holds nothing but tensors, modules and what is plain."""
    tensors = (*module._parameters.values(), *module._buffers.values())
    others = {key: value for key, value in vars(module).items() if key not in ("_parameters", "_buffers", "_modules")}
    return (
        all(tensor is None or type(tensor) in (Tensor, nn.Parameter) for tensor in tensors)
        and not any(value for key, value in others.items() if key in ALWAYS and "hooks" in key)
        and all(map(_plain, others.values()))
    )


# `Any`: an attribute of a module can be anything.
def _plain(value: Any) -> bool:
    """Tell whether a value is plain all the way down."""
    if isinstance(value, dict):
        return all(map(_plain, value)) and all(map(_plain, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_plain, value))
    return isinstance(value, IMMUTABLE)


# `Any`: as of `_plain`.
def _copy(value: Any) -> Any:
    """Return a copy of a plain value, all the way down."""
    if _immutable(value):
        return value
    return list(map(_copy, value)) if type(value) is list else copy.deepcopy(value)


# `Any`: as of `_plain`.
def _immutable(value: Any) -> bool:
    return all(map(_immutable, value)) if isinstance(value, tuple) else isinstance(value, IMMUTABLE)
