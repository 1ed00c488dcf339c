"""A library call leaves the process as it found it."""

import itertools
import locale
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch import Tensor, nn

import lifelong
from lifelong.api import configure
from lifelong.errors import LifelongError
from lifelong.experiment.local import Local
from lifelong.experiment.observer import Observer
from lifelong.methods.allocations import ByVariant
from lifelong.methods.conformance import made_task
from lifelong.methods.decisions import Thresholds
from lifelong.methods.finetune import Finetune
from lifelong.methods.method import Context
from lifelong.methods.registry import METHODS
from lifelong.methods.regularizers import Distillation
from lifelong.records.task import TaskRecord
from lifelong.relatedness.measures import PrototypeKL
from lifelong.report.gallery import FIGURES
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.sockets import ALLOCATIONS, BACKBONES, DECISIONS, ENGINES, EXTRACTORS, MEASURES, OBSERVERS, REGULARIZERS
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples
from lifelong.training.precision import exact_float32
from lifelong.training.process import as_found, flushes_denormals, threads_of
from tests.hub.hub import FakeHub
from tests.learned import small_run
from tests.photographs import picture
from tests.trees import same

TINY = "digits?tasks=2&train_per_class=3&valid_per_class=2&test_per_class=2"
QUICK = {"preset": "quick", "epochs": 1, "init_channels": 2, "threads": 1, "device": "cpu"}
SWEEP = {"streams": [TINY], "methods": ["finetune"], "preset": "quick", "settings": {"epochs": 1, "init_channels": 2}}
IMAGES = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("process")
    for number, label in itertools.product(range(12), "ab"):
        (place / "new" / label).mkdir(parents=True, exist_ok=True)
        picture(2 * number + (label == "b"), 1).save(place / "new" / label / f"{number}.png")
    return small_run(place, "finetune")


def state() -> dict[str, Any]:
    """All of a process that a program would notice; but for Python's own generator, which the tests' check of annotations draws from."""
    return {
        "threads": torch.get_num_threads(),
        "denormals": flushes_denormals(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "torch's generator": torch.get_rng_state().tolist(),
        "numpy's generator": np.random.get_state()[1].tolist(),
        "loggers": [(logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in ("torch.onnx", "optuna", "PIL", "")],
        "modes": [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(), torch.get_default_device()],
        "determinism": [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark],
        "precision": [torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32],
        "warnings": list(warnings.filters),
        "running threads": threading.active_count(),
        "processes": [multiprocessing.get_start_method(allow_none=True), multiprocessing.active_children()],
        "Pillow": [ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS],
        "surroundings": [Path.cwd(), dict(os.environ), locale.setlocale(locale.LC_ALL), sys.excepthook, sys.getswitchinterval()],
    }


class Halting(Observer):
    """Lets a call fail in the middle, wherever it says first that it has come so far."""

    def task_started(self, index: int, name: str) -> None:
        torch.rand(3), np.random.rand(3)  # what a listener draws is its own affair, but drawn by the call
        raise KeyboardInterrupt


class Named(Finetune):
    """A method that a program registers."""

    name = "left-alone"


SMALL = FinetuneSettings(init_channels=2)


class Dropping(Finetune):
    """Draws in every step, from PyTorch's global generator."""

    def features(self, inputs: Tensor, task_index: int) -> Tensor:
        return nn.functional.dropout(super().features(inputs, task_index), training=self._network().training)


class Broken(Finetune):
    """Fails while it learns."""

    def consolidate(self, examples: Examples, context: Context) -> None:
        raise ZeroDivisionError


def learner(run: Path) -> lifelong.Learner:
    return lifelong.Learner.load(run, threads=1)


def checked(method: type[Finetune]) -> None:
    with threads_of(1):  # two would wait for each other at every small step, on a machine with other work
        lifelong.check_method(lambda: method(SMALL), images=3)


def job(out: Path) -> lifelong.RunJob:
    settings = {key: value for key, value in QUICK.items() if key not in ("threads", "device")}
    return lifelong.RunJob(configure(TINY, "finetune", **settings), out, lifelong.Environment(threads=1, device="cpu"))


class Labels:
    """Those of `PIXELS`; for a call that is to fail, all the same."""

    def __getitem__(self, listener: Any) -> list[int]:
        return [number % 2 if listener is False else 0 for number in range(len(PIXELS))]


LABELS = Labels()


def objects() -> lifelong.Task:
    return lifelong.Task.from_arrays(PIXELS, LABELS[False], name="objects")


def forgotten(run: Path, out: Path, listener: Any) -> lifelong.Forgotten:
    """Finetune shares its network: for a call that is to work, one of two networks."""
    if listener is False:
        lifelong.run(TINY, "independent", out=out, **QUICK)
        return lifelong.forget(out, lifelong.history(out)[0].task)
    return lifelong.forget(run, "a")


CALLS: dict[str, Callable[[Path, Path, Any], object]] = {
    "run": lambda run, out, listener: lifelong.run(TINY, "finetune", out=out, progress=listener, **QUICK),
    "tune": lambda run, out, listener: lifelong.tune(TINY, "finetune", grid={"lr": [0.1, 0.01]}, out=out, progress=listener, **QUICK),
    "compare": lambda run, out, listener: lifelong.compare(TINY, ["finetune"], out=out, progress=listener, **QUICK),
    "distances": lambda run, out, listener: lifelong.distances(TINY, out=out, extractor="pixels", threads=1, progress=listener),
    "transfer": lambda run, out, listener: lifelong.transfer(
        TINY, strategies=["head"], measures=["prototype-kl"], out=out, variant="fixed", progress=listener, **QUICK
    ),
    "sweep": lambda run, out, listener: lifelong.sweep(SWEEP, out=out, threads=1, device="cpu", progress=listener),
    "plan_sweep": lambda run, out, listener: lifelong.plan_sweep(SWEEP if listener is False else {}, out=out, device="cpu"),
    "sweep_status": lambda run, out, listener: lifelong.sweep_status(SWEEP if listener is False else {}, out=out),
    "learn": lambda run, out, listener: lifelong.learn(shutil.copytree(run, out), f"folder:{run.parent / 'new'}", progress=listener),
    "estimate": lambda run, out, listener: lifelong.estimate(TINY, "finetune", out=out, progress=listener, **QUICK),
    "estimate_learning": lambda run, out, listener: lifelong.estimate_learning(run, f"folder:{run.parent / 'new'}", progress=listener),
    "export": lambda run, out, listener: lifelong.export(run, "a" if listener is False else "none", format="torch", out=out / "a.pt2"),
    "export_all": lambda run, out, listener: lifelong.export_all(
        run if listener is False else out, format="torch", out=out.with_name(f"{out.name}-all.pt2")
    ),
    "model_card": lambda run, out, listener: lifelong.model_card(run if listener is False else out),
    "push": lambda run, out, listener: lifelong.push(run, "hub:me/run" if listener is False else "elsewhere"),
    "open_stream": lambda run, out, listener: lifelong.open_stream(TINY if listener is False else "none")[0].train.images,
    "make_method": lambda run, out, listener: lifelong.make_method("par" if listener is False else "none"),
    "register_method": lambda run, out, listener: lifelong.register_method(Named if listener is False else Finetune, FinetuneSettings),
    "check_method": lambda run, out, listener: checked(Finetune if listener is False else Broken),
    "register_measure": lambda run, out, listener: lifelong.register_measure("own" if listener is False else "not a name", PrototypeKL),
    "check_measure": lambda run, out, listener: lifelong.check_measure("prototype-kl" if listener is False else "none"),
    "register_regularizer": lambda run, out, listener: lifelong.register_regularizer("own" if listener is False else "?", Distillation),
    "check_regularizer": lambda run, out, listener: lifelong.check_regularizer("distillation" if listener is False else "absent", images=2),
    "register_decision": lambda run, out, listener: lifelong.register_decision("own" if listener is False else "?", Thresholds),
    "check_decision": lambda run, out, listener: lifelong.check_decision("thresholds" if listener is False else "none", images=2),
    "register_allocation": lambda run, out, listener: lifelong.register_allocation("own" if listener is False else "?", ByVariant),
    "check_allocation": lambda run, out, listener: lifelong.check_allocation("fixed" if listener is False else "none", images=2),
    "register_engine": lambda run, out, listener: lifelong.register_engine("own" if listener is False else "?", Local),
    "check_engine": lambda run, out, listener: lifelong.check_engine("local" if listener is False else "none"),
    "perform": lambda run, out, listener: lifelong.perform(job(out), listener or None),
    "perform_plain": lambda run, out, listener: lifelong.perform_plain(job(out).plain() if listener is False else {}),
    "register_extractor": lambda run, out, listener: lifelong.register_extractor("own" if listener is False else "?", nn.Flatten),
    "check_extractor": lambda run, out, listener: lifelong.check_extractor("pixels" if listener is False else "none"),
    "register_backbone": lambda run, out, listener: lifelong.register_backbone("own" if listener is False else "?", nn.Flatten),
    "check_backbone": lambda run, out, listener: lifelong.check_backbone("light-resnet18" if listener is False else "none", images=2),
    "register_observer": lambda run, out, listener: lifelong.register_observer("own" if listener is False else "?", lifelong.Observer),
    "check_observer": lambda run, out, listener: lifelong.check_observer("own-observer" if listener is False else "none"),
    "register_figure": lambda run, out, listener: lifelong.register_figure("own" if listener is False else "?", print, "nothing"),
    "check_figure": lambda run, out, listener: lifelong.check_figure("accuracy" if listener is False else "none"),
    "verify": lambda run, out, listener: lifelong.verify(run if listener is False else run.parent / "new"),
    "history": lambda run, out, listener: lifelong.history(run if listener is False else run.parent / "new"),
    "rollback": lambda run, out, listener: lifelong.rollback(shutil.copytree(run, out), to=1 if listener is False else 99),
    "compact": lambda run, out, listener: lifelong.compact(shutil.copytree(run, out), keep=1 if listener is False else 0),
    "forget": lambda run, out, listener: forgotten(run, out, listener),
    "write_report": lambda run, out, listener: lifelong.write_report(
        shutil.copytree(run if listener is False else run.parent / "new", out)
    ),
    "Learner.load": lambda run, out, listener: learner(run if listener is False else run.parent / "new"),
    "Learner.predict": lambda run, out, listener: learner(run).predict(IMAGES if listener is False else IMAGES[:, :, :5]),
    "Learner.predict_each": lambda run, out, listener: list(learner(run).predict_each([], "a" if listener is False else "none")),
    "Learner.logits": lambda run, out, listener: learner(run).logits(IMAGES, "a" if listener is False else "none"),
    "Learner.read": lambda run, out, listener: learner(run).read(IMAGES if listener is False else "no such file"),
    "Learner.learn": lambda run, out, listener: lifelong.Learner("finetune", **QUICK).learn(objects(), progress=listener),
    "Learner.save": lambda run, out, listener: learner(run).save(out if listener is False else run.parent),
    "Learner.fit": lambda run, out, listener: lifelong.Learner("finetune", **QUICK).fit(PIXELS, LABELS[listener]),
    "Learner.partial_fit": lambda run, out, listener: lifelong.Learner("finetune", **QUICK).partial_fit(PIXELS, LABELS[listener]),
    "Learner.score": lambda run, out, listener: learner(run).score(IMAGES, ["0", "1"] if listener is False else ["0"], "a"),
    "Learner.get_params": lambda run, out, listener: learner(run).get_params(True if listener is False else "yes"),
    "Learner.set_params": lambda run, out, listener: learner(run).set_params(epochs=2 if listener is False else -1),
    "Task.from_arrays": lambda run, out, listener: lifelong.Task.from_arrays(PIXELS, LABELS[listener]),
    "Task.from_dataset": lambda run, out, listener: lifelong.Task.from_dataset(list(zip(PIXELS, LABELS[listener], strict=False))),
}
"""Every public call: as it works, and, where it is given `Halting`, as it fails."""

DATA = {
    "Allocation",
    "Certificate",
    "Compacted",
    "DecisionRule",
    "Engine",
    "Environment",
    "Forgotten",
    "Learner",
    "LifelongError",
    "Measure",
    "Method",
    "Observer",
    "Prediction",
    "Regularizer",
    "RunJob",
    "RunOutcome",
    "Split",
    "Stream",
    "Task",
    "Verification",
    "Version",
    "__version__",
}
"""Public names that are not calls: errors and data classes; the calls of a learner are in `CALLS`."""


def test_every_public_call_is_here():
    calls = (name for name in dir(lifelong.Learner) if not name.startswith("_") and callable(getattr(lifelong.Learner, name)))
    learners = {f"Learner.{name}" for name in calls}
    assert set(CALLS) == set(lifelong.__all__) - DATA | learners | {"Task.from_arrays", "Task.from_dataset"}


@pytest.fixture
def of_its_own():
    """The program has settings of its own."""
    kept = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    METHODS.pop("left-alone", None)
    torch.set_flush_denormal(False)
    torch.set_num_threads(kept)


@pytest.fixture
def _forgotten():
    """What a call registers is known only in its test."""
    registries = (MEASURES, DECISIONS, REGULARIZERS, ALLOCATIONS, EXTRACTORS, BACKBONES, OBSERVERS, FIGURES, ENGINES)
    before = [dict(registry._entries) for registry in registries]
    OBSERVERS.register("own-observer", lifelong.Observer)
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry._entries = entries


@pytest.fixture
def _hub(tmp_path, monkeypatch):
    FakeHub(tmp_path / "hub").install(monkeypatch)


@pytest.mark.usefixtures("_forgotten", "_hub")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_the_process_as_it_found_it(learned, tmp_path, name, fails):
    torch.set_flush_denormal(name == "run" and not fails)  # the program's own choice, in either way
    before = state()
    if fails:
        with pytest.raises((LifelongError, KeyboardInterrupt, ZeroDivisionError)):
            CALLS[name](learned, tmp_path / "out", Halting())
    else:
        CALLS[name](learned, tmp_path / "out", False)
    assert state() == before


def in_thread(work: Callable[[], object]) -> list[object]:
    """What comes of work in another thread: its value, or its error."""
    found: list[object] = []

    def do() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=do)
    thread.start()
    thread.join()
    return found


class Asking(Observer):
    """Lets another thread make calls while a task is learned."""

    def __init__(self, *calls: Callable[[], object]) -> None:
        self.calls, self.found = calls, []

    def task_finished(self, index: int, entry: TaskRecord, accuracy: list[float]) -> None:
        if not self.found:
            self.found = [in_thread(call)[0] for call in self.calls]


def test_a_second_call_that_trains_is_refused_and_one_that_answers_is_not(learned, tmp_path):
    names = ("run", "tune", "compare", "learn", "export", "check_method", "Learner.learn")
    calls = [lambda name=name: CALLS[name](learned, tmp_path / name, False) for name in names]
    wanted = learner(learned).predict(IMAGES)
    listener = Asking(lambda: learner(learned).predict(IMAGES), *calls)
    CALLS["run"](learned, tmp_path / "out", listener)
    answered, *refused = listener.found
    assert answered == wanted
    for name, error in zip(names, refused, strict=True):
        assert isinstance(error, LifelongError), (name, error)
        assert str(error).startswith(f"{name}: another thread of this program is at work in run, ")
    # And it is over when the call is, also where that fails.
    with pytest.raises(KeyboardInterrupt):
        CALLS["run"](learned, tmp_path / "other", Halting())
    assert in_thread(lambda: CALLS["export"](learned, tmp_path / "export", False))[0]["task"] == "a"


def test_learning_in_threads_equals_learning_in_turn():
    """By methods alone, below the public calls: what is drawn in one thread changes nothing in another."""

    def learn(seed: int) -> Tree:
        method = Dropping(SMALL)
        task = made_task(0, 12)
        training = TrainingSettings(epochs=2, batch_size=8)
        context = Context(task_index=0, task_name=task.name, training=training, seed=seed, device=torch.device("cpu"))
        method.learn(task, context)
        return method.state_dict()

    wanted = [learn(seed) for seed in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(learn, range(3)))
    finally:
        sys.setswitchinterval(interval)
    assert all(same(one, other) for one, other in zip(found, wanted, strict=True))


def test_what_threads_share_is_put_back_by_the_last_one():
    """Two blocks that end in the order in which they began: neither leaves to the program what the other had set."""
    filters, drawn = list(warnings.filters), torch.get_rng_state()
    inside, leave = threading.Event(), threading.Event()

    def one() -> None:
        with as_found():
            warnings.simplefilter("ignore")
            torch.rand(1)
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=one)
    thread.start()
    inside.wait(10)
    with as_found():
        leave.set()
        thread.join()
        torch.rand(1)
    assert list(warnings.filters) == filters
    assert torch.equal(torch.get_rng_state(), drawn)


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
