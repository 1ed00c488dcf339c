"""What a library call may change in the process around it while it computes, and leaves as it found it."""

import logging
import random
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch

LOUD = ("torch.onnx", "optuna")
"""Loggers whose level is set on the way, so that they do not talk over progress."""


@contextmanager
def as_found() -> Generator[None]:
    """A block after which the process is as before: threads, what becomes of tiny floats, global generators, warnings, levels of loggers.

    Threads that PyTorch started within the block keep what they took over from it, and freed memory that the C library keeps stays kept.
    """
    threads, flushed = torch.get_num_threads(), flushes_denormals()
    cards = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    levels = {name: logging.getLogger(name).level for name in LOUD}
    with warnings.catch_warnings():
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_flush_denormal(flushed)
            torch.set_rng_state(torch_state)
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            if cards:
                torch.cuda.set_rng_state_all(cards)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def threads_of(count: int) -> Generator[None]:
    """A block that computes on so many threads; this thread of the program has as many as before afterwards, and others always have."""
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
