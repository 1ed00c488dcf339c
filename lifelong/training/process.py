"""What a library call may change in the process around it while it computes, and leaves as it found it."""

import logging
import multiprocessing
import os
import random
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch

from lifelong.errors import LifelongError
from lifelong.training.stages import DRAWING

LOUD = ("torch.onnx", "optuna")
"""Loggers whose level is set on the way, so that they do not talk over progress."""

SET = ("TORCHINDUCTOR_CACHE_DIR",)
"""Variables of the environment that PyTorch sets by itself, when it exports."""


@contextmanager
def as_found() -> Generator[None]:
    """Enter a block after which the process is as before: threads, denormals, generators, warnings, loggers, environment variables, and
    how processes are started.

    Where several threads are in such blocks, what they share is put back when the last one leaves. Threads that PyTorch started within the
    block keep what they took over from it, and freed memory that the C library keeps stays kept.
    """
    threads, flushed = torch.get_num_threads(), flushes_denormals()
    _Shared.enter()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)
        _Shared.leave()


class _Shared:
    """What all threads of the process have in common, as it was before the first of them came in."""

    lock = threading.Lock()
    inside = 0
    before = ExitStack()

    @classmethod
    def enter(cls) -> None:
        with cls.lock:
            if not cls.inside:
                cls.before = ExitStack()
                for name in LOUD:
                    cls.before.callback(logging.getLogger(name).setLevel, logging.getLogger(name).level)
                for name in SET:
                    cls.before.callback(_set_variable, name, os.environ.get(name))
                cls.before.callback(random.setstate, random.getstate())
                cls.before.callback(np.random.set_state, np.random.get_state())
                cls.before.callback(_torch_generators())
                if multiprocessing.get_start_method(allow_none=True) is None:
                    # The first process settles it, even one of a context of its own: a program that has not chosen still may.
                    cls.before.callback(partial(multiprocessing.set_start_method, None, force=True))
                cls.before.enter_context(warnings.catch_warnings())
            cls.inside += 1

    @classmethod
    def leave(cls) -> None:
        with cls.lock:
            cls.inside -= 1
            if not cls.inside:
                cls.before.close()


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _torch_generators() -> Callable[[], None]:
    """Return a function that restores PyTorch's global generators, unless another thread draws from them and restores them itself."""
    if not DRAWING.acquire(blocking=False):
        return lambda: None
    try:
        cards = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return partial(_put_back, torch.get_rng_state(), cards)
    finally:
        DRAWING.release()


def _put_back(state: torch.Tensor, cards: list[torch.Tensor]) -> None:
    if DRAWING.acquire(blocking=False):
        try:
            torch.set_rng_state(state)
            if cards:
                torch.cuda.set_rng_state_all(cards)
        finally:
            DRAWING.release()


class _Work:
    """The public call that trains just now, if one does, and the thread that it is in."""

    lock = threading.RLock()
    calls: list[str] = []  # noqa: RUF012 - one for the whole process


@contextmanager
def alone(call: str) -> Generator[None]:
    """Enter the block of a public call that trains: `as_found`, and no other thread is in such a block meanwhile.

    Training draws from PyTorch's global generators and has switches of the whole process (precision, warnings). In one thread a call may
    make another, such as `tune` a run.

    Args:
        call: the name of the call, for messages.

    Raises:
        LifelongError: another thread is at work.
    """
    lock, calls = _Work.lock, _Work.calls
    if not lock.acquire(blocking=False):
        raise LifelongError(
            f"{call}: another thread of this program is at work in {next(iter(calls), 'one')}, and the two would change each"
            " other's random numbers; wait for it, or start this in a process of its own"
        )
    calls.append(call)
    try:
        with as_found():
            yield
    finally:
        calls.pop()
        lock.release()


def _in_child() -> None:
    """Begin a forked process with one thread, whatever the others were doing."""
    _Work.lock, _Work.calls = threading.RLock(), []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


@contextmanager
def threads_of(count: int) -> Generator[None]:
    """Enter a block that computes on so many threads; afterwards this thread has as many as before, as the others always have."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def flushes_denormals() -> bool:
    """Whether this thread takes numbers below the smallest normal float for zero."""
    return not bool(torch.full((1,), 1e-30).mul(1e-10).item())
