"""Run a step many times: eagerly, or, where the device can, recorded once per shape as a CUDA graph and replayed.

A step of a small network is hundreds of operations of a few microseconds each; on a GPU, Python takes longer to launch them than the GPU
to compute them. A CUDA graph launches all of them at once, at their recorded addresses. So a step that is recorded must work in place,
on tensors that stay where they are, and whatever changes from step to step must be a tensor on the device: the batch's indices, the
number of the step, the learning rate. Random numbers come from generators that the graph advances as eager steps would, so that a run
that is interrupted and resumed draws the same ones.

A step is observed before it is recorded. One that waits for the device (it looks at a value, or copies from the host), or that draws
random numbers on the host, depends on what a recording would not see; it runs eagerly, for ever, through the same code.
"""

import os
import warnings
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lifelong.errors import LifelongError

SWITCH = "LIFELONG_CUDA_GRAPHS"
"""The environment variable that turns recording off with the value 0."""

OBSERVATIONS = 2
"""Steps of a shape that are observed before it is given up: the first may fill caches, which waits for the device."""

KEPT = 4
"""Recordings that are kept at once; the one that was used least recently is dropped for a new one."""

Step = Callable[..., None]
"""Takes tensors, works in place and returns nothing."""


@runtime_checkable
class Recording(Protocol):
    """What a step did on a device."""

    def replay(self) -> None:
        """Do it again, with what the tensors hold now."""
        ...


@runtime_checkable
class Recorder(Protocol):
    """How steps are recorded on a kind of device."""

    def observe(self, step: Callable[[], None]) -> bool:
        """Run a step, and tell whether it kept the device and the host apart."""
        ...

    def record(self, step: Callable[[], None], generators: Sequence[torch.Generator], before: Recording | None) -> Recording:
        """Record a step without running it.

        Args:
            step: one that was observed, or of a kind of which one was.
            generators: those it draws from, on the device.
            before: an earlier recording of the same runner, whose memory may be shared, since the two never run at once.
        """
        ...


class CudaGraphs:
    """Records steps as CUDA graphs.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Eager steps before a recording, and the recording itself, belong on one stream that is not the default one.
        self._stream = torch.cuda.Stream(device)

    def observe(self, step: Callable[[], None]) -> bool:
        """Run a step on the side stream, and listen to what PyTorch says of waiting."""
        with cuda_waits() as waits, self._aside():
            step()
        return not waits

    def record(self, step: Callable[[], None], generators: Sequence[torch.Generator], before: Recording | None) -> Recording:
        """Capture a step on the side stream.

        Raises:
            LifelongError: the step does what CUDA cannot capture, although it does not wait for the device.
        """
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        pool = before.pool() if isinstance(before, torch.cuda.CUDAGraph) else None
        with self._aside():
            # Not `torch.cuda.graph`, which empties the allocator's cache each time: a search records hundreds of networks. Relaxed, since
            # kernels are loaded when they are first used, and that may be in a recording.
            graph.capture_begin(pool=pool, capture_error_mode="relaxed")
            try:
                step()
                graph.capture_end()
            except RuntimeError as error:
                with suppress(RuntimeError):
                    graph.capture_end()
                raise LifelongError(f"a step cannot be recorded as a CUDA graph ({error}); run again with {SWITCH}=0") from error
        return graph

    @contextmanager
    def _aside(self) -> Generator[None]:
        """Run a block on the side stream, after all that came before it and before all that follows."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)


@contextmanager
def cuda_waits() -> Generator[list[str]]:
    """Collect, in a list, a line for every operation of a block for which the host waited for a CUDA device."""
    waits: list[str] = []
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    for warning in caught:
        text = str(warning.message)
        if "synchronizing CUDA operation" in text:
            waits.append(text)
        elif "debug mode" not in text:  # The mode says of itself that it is a prototype.
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def recorder_for(device: torch.device) -> Recorder | None:
    """Return the recorder of steps on a device; None if steps run eagerly."""
    return CudaGraphs(device) if can_record(device) else None


def can_record(device: torch.device) -> bool:
    """Return whether steps on a device may be recorded: on CUDA, unless LIFELONG_CUDA_GRAPHS=0."""
    return device.type == "cuda" and os.environ.get(SWITCH) != "0"


class HostSide:
    """What the host knows of a step, which a recording would not see. Whoever looks at it is noted.

    Args:
        generator: of random numbers that the host has to know, on the CPU.

    Attributes:
        indices: the positions of the step's samples, on the CPU.
        used: whether a step has looked at any of this.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._indices = torch.zeros(0, dtype=torch.int64)
        self.used = False

    @property
    def generator(self) -> torch.Generator:
        """Return the generator of the host's random numbers."""
        self.used = True
        return self._generator

    @property
    def indices(self) -> Tensor:
        """Return the positions of the samples of the current or next step."""
        self.used = True
        return self._indices

    @indices.setter
    def indices(self, indices: Tensor) -> None:
        self._indices = indices


@dataclass
class _Known:
    """What is known of steps of one key and shape.

    Attributes:
        observed: how often it was run under observation.
        clean: whether the last of them kept device and host apart.
        recording: of it, once it is recorded.
        inputs: the tensors that the recording reads.
    """

    observed: int = 0
    clean: bool = False
    recording: Recording | None = None
    inputs: tuple[Tensor, ...] = ()


class StepRunner:
    """Runs the steps of one training or search.

    Args:
        device: where the steps compute.
        generators: the generators on the device that steps draw from, in addition to torch's global one.
        host: what steps may know of the host; those that look at it are never recorded.
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator] = (), host: HostSide | None = None) -> None:
        self._recorder = recorder_for(device)
        self._generators, self._host = generators, host
        self._known: dict[Hashable, _Known] = {}
        self._clean_kinds: set[Hashable] = set()

    def run(self, key: Hashable, step: Step, *inputs: Tensor, kind: Hashable = None) -> None:
        """Run a step, or replay it.

        Args:
            key: names what is computed: steps of one key and of inputs of the same shapes and types do the same.
            step: takes the inputs. It must work in place on tensors that outlive it, and be equal at every call with this key.
            inputs: what changes from step to step.
            kind: steps of one kind differ in the network alone. Once one of them was observed to keep device and host apart, the others
                are recorded at once.
        """
        if self._recorder is None:
            step(*inputs)
            return
        known = self._of((key, *((tensor.shape, tensor.dtype) for tensor in inputs)), kind)
        if known.recording is None and known.clean:
            known.inputs = tuple(tensor.clone() for tensor in inputs)
            known.recording = self._recorder.record(lambda: step(*known.inputs), self._generators, self._last_recording())
        if known.recording is not None:
            for mine, given in zip(known.inputs, inputs, strict=True):
                mine.copy_(given)
            known.recording.replay()
        elif known.observed < OBSERVATIONS:
            known.observed += 1
            known.clean = self._observe(self._recorder, lambda: step(*inputs))
            if known.clean and kind is not None:
                self._clean_kinds.add(kind)
        else:
            step(*inputs)

    @property
    def recorded(self) -> int:
        """Return how many recordings are kept."""
        return sum(known.recording is not None for known in self._known.values())

    def _of(self, key: Hashable, kind: Hashable) -> _Known:
        """Return what is known of a key, and make it the most recently used one."""
        known = self._known.pop(key, None) or _Known(clean=kind in self._clean_kinds)
        self._known[key] = known
        if len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        return known

    def _last_recording(self) -> Recording | None:
        return next((known.recording for known in reversed(self._known.values()) if known.recording is not None), None)

    def _observe(self, recorder: Recorder, step: Callable[[], None]) -> bool:
        before = torch.default_generator.get_state()
        if self._host is not None:
            self._host.used = False
        clean = recorder.observe(step)
        looked = self._host is not None and self._host.used
        return clean and not looked and torch.equal(before, torch.default_generator.get_state())
