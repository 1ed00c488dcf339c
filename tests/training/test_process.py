"""A library call leaves the process as it found it."""

import itertools
import logging
import shutil
import signal
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import lifelong
from lifelong.training.precision import exact_float32
from lifelong.training.process import as_found, flushes_denormals, threads_of
from tests.learned import small_run
from tests.photographs import picture

TINY = "digits?tasks=2&train_per_class=3&valid_per_class=2&test_per_class=2"
QUICK = {"preset": "quick", "epochs": 1, "init_channels": 2, "threads": 1, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("process")
    for number, label in itertools.product(range(12), "ab"):
        (place / "new" / label).mkdir(parents=True, exist_ok=True)
        picture(2 * number + (label == "b"), 1).save(place / "new" / label / f"{number}.png")
    return small_run(place, "finetune")


def state() -> list:
    """All of a process that a program would notice; but for Python's own generator, which the tests' check of annotations draws from."""
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    torch_state, numpy_state = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
    levels = [logging.getLogger(name).level for name in ("torch.onnx", "optuna", "PIL", "")]
    switches = [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(), torch.get_float32_matmul_precision()]
    threads, filters, running = torch.get_num_threads(), list(warnings.filters), threading.active_count()
    return [
        threads,
        flushes_denormals(),
        signals,
        torch_state,
        numpy_state,
        levels,
        switches,
        filters,
        running,
    ]


CALLS = {
    "run": lambda run, out: lifelong.run(TINY, "finetune", out=out, **QUICK),
    "tune": lambda run, out: lifelong.tune(TINY, "finetune", grid={"lr": [0.1, 0.01]}, out=out, **QUICK),
    "compare": lambda run, out: lifelong.compare(TINY, ["finetune"], out=out, **QUICK),
    "distances": lambda run, out: lifelong.distances(TINY, out=out, extractor="pixels", threads=1, progress=False),
    "learn": lambda run, out: lifelong.learn(shutil.copytree(run, out), f"folder:{run.parent / 'new'}", threads=1, progress=False),
    "load and predict": lambda run, out: lifelong.Learner.load(run, threads=1).predict(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)),
    "logits": lambda run, out: lifelong.Learner.load(run).logits(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "a"),
    "make_method": lambda run, out: lifelong.make_method("par"),
}


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_the_process_as_it_found_it(learned, tmp_path, name, flush):
    if flush and name != "run":
        pytest.skip("the program's own choice is kept in one way for all")
    kept = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_flush_denormal(flush)
    try:
        before = state()
        CALLS[name](learned, tmp_path / "out")
        assert state() == before
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(kept)


def test_also_where_it_fails():
    kept = torch.get_num_threads()

    def fail() -> None:
        with as_found():
            torch.set_num_threads(kept + 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.get_num_threads() == kept


def test_threads_of_a_program_have_their_own_number():
    """Two that answer at once, and end in the order in which they began."""
    seen, first, second = [], threading.Event(), threading.Event()
    kept = torch.get_num_threads()

    def one() -> None:
        with threads_of(kept + 1):
            first.set()
            second.wait(10)
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=one)
    thread.start()
    first.wait(10)
    with threads_of(kept + 2):
        second.set()
        thread.join()
        assert torch.get_num_threads() == kept + 2
    assert torch.get_num_threads() == kept
    assert len(seen) == 1


def test_blocks_of_several_threads_leave_one_switch_as_it_was(monkeypatch):
    """PyTorch has one switch for TF32; here blocks end in the order in which they began, not the other way round."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    one, other = exact_float32(torch.device("cuda")), exact_float32(torch.device("cuda"))
    one.__enter__()
    other.__enter__()
    assert not torch.backends.cudnn.allow_tf32
    one.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    other.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32
