"""Every public function checks what it is given, as the command line does: one line, and nothing starts."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import torch
from annotated_types import Ge

import lifelong
from lifelong import api
from lifelong.methods.backbone import feature_dim
from lifelong.methods.finetune import Finetune
from lifelong.methods.registry import METHODS
from lifelong.settings.arguments import Place, checked, hold
from lifelong.settings.base import setting
from lifelong.settings.baselines import FinetuneSettings, LwFSettings
from tests.learned import small_run

TINY = "digits?tasks=2&train_per_class=3&valid_per_class=2&test_per_class=2"

WRONG = [
    (lambda: lifelong.run(TINY, "finetune", threads="2"), "run: threads = '2': expected an integer >= 0"),
    (lambda: lifelong.run(TINY, "finetune", threads=-1), "run: threads = -1: expected an integer >= 0"),
    (lambda: lifelong.run(TINY, "finetune", save_every=float("nan")), "run: save_every = nan: expected a number >= 0"),
    (lambda: lifelong.run(TINY, "finetune", download="yes"), "run: download = 'yes': expected true or false"),
    (lambda: lifelong.run(TINY, "finetune", seed=1.5), "run: seed = 1.5: expected an integer"),
    (lambda: lifelong.run(TINY, "finetune", seed=2**32), "run: seed = 4294967296: expected an integer"),
    (lambda: lifelong.run(TINY, "finetune", preset="papr"), "did you mean 'paper'?"),
    (lambda: lifelong.run(TINY, "finetune", out=3), "run: out = 3: expected a path or None"),
    (
        lambda: lifelong.run(3, "finetune"),
        "run: stream = 3: expected a path or a lifelong.Stream, or a list of tasks, each made by lifelong.Task.from_arrays",
    ),
    (lambda: lifelong.run(TINY, 3), "run: method = 3: expected a text"),
    (lambda: lifelong.run(TINY, "finetune", progress="wandb"), "progress = 'wandb': expected true or false"),
    (lambda: lifelong.run(TINY, "finetune", progress=[1, 2]), "progress = [1, 2]: expected true or false"),
    (lambda: lifelong.run(TINY, "finetune", epochs="1"), '--epochs "1": expected an integer >= 1'),
    (lambda: lifelong.run(TINY, "finetune", device=0), "run: device = 0: expected a text"),
    (lambda: lifelong.run(TINY, "finetune", device="gpu"), "--device gpu: no such device; did you mean 'cuda'?"),
    (lambda: lifelong.run(TINY, "finetune", device="cuda:x"), "--device cuda:x"),
    (lambda: lifelong.compare("digits", "par"), "compare: methods = 'par': expected a list, each a text; write ['par']"),
    (lambda: lifelong.compare("digits", seeds=3), "compare: seeds = 3: expected a list, each an integer"),
    (lambda: lifelong.compare("digits", seeds=[0, "a"]), "compare: seeds = [0, 'a']: expected a list, each an integer"),
    (lambda: lifelong.compare("digits", workers=0), "compare: workers = 0: expected an integer >= 1"),
    (lambda: lifelong.tune("digits", "lwf", grid=3), "tune: grid = 3: expected a text or a dict or None"),
    (lambda: lifelong.tune("digits", "lwf", grid={"lr": [1]}, tolerance=1.0), "tune: tolerance = 1.0: expected a number >= 0 and < 1"),
    (lambda: lifelong.distances("digits", data=b"x"), "distances: data = b'x': expected a path or None"),
    (lambda: lifelong.learn("runs/x", 3), "learn: task = 3: expected a text"),
    (lambda: lifelong.open_stream("digits", True), "open_stream: seed = True: expected an integer"),
    (lambda: lifelong.open_stream(None), "open_stream: name = None: expected a path"),
    (lambda: api.describe_stream("digits", -1), "describe_stream: seed = -1: expected an integer >= 0"),
    (lambda: api.preview_stream("digits", 3), "preview_stream: out = 3: expected a path"),
    (lambda: api.describe_method(3), "describe_method: name = 3: expected a text"),
    (lambda: api.finished("runs/x"), "finished: runs = 'runs/x': expected a list, each a path; write ['runs/x']"),
    (lambda: api.configure(3), "configure: stream = 3: expected a path or a lifelong.Stream, or a list of tasks"),
    (lambda: lifelong.export("runs/x", "a", format="tflite"), "export: format = 'tflite': expected one of 'onnx', 'torch'"),
    (lambda: lifelong.export("runs/x", 0), "export: task = 0: expected a text"),
    (lambda: lifelong.Learner.load(3), "Learner.load: run = 3: expected a path"),
    (lambda: lifelong.Learner.load("runs/x", threads=1.0), "Learner.load: threads = 1.0: expected an integer >= 0"),
    (lambda: lifelong.make_method(3), "make_method: name = 3: expected a text"),
    (
        lambda: lifelong.make_method("finetune", LwFSettings()),
        "the settings of 'finetune' are a FinetuneSettings, not LwFSettings(",
    ),
    (lambda: lifelong.check_method(Finetune(FinetuneSettings())), "give a function that makes a fresh method"),
    (lambda: lifelong.check_method(Finetune), "makes no method"),
    (lambda: lifelong.check_method(lambda: 3), "gives 3, which is not a lifelong.Method"),
    (lambda: lifelong.check_method(lambda: Finetune(FinetuneSettings()), images=0), "check_method: images = 0: expected an integer >= 1"),
    (lambda: lifelong.Task("a", "bc", lambda split: None), "Task: classes = 'bc': expected a list, each a text"),
    (lambda: lifelong.Task("a", ["b", "c"], 3), "Task: load = 3: expected a function"),
    (lambda: feature_dim(torch.nn.Linear(2, 3)), "the network Linear has feature_dim = None; set it to the length"),
]


@pytest.mark.parametrize(("call", "line"), WRONG, ids=[line for _, line in WRONG])
def test_a_wrong_argument_is_one_line(call, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lifelong.LifelongError) as caught:
        call()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "nothing starts"


def test_every_public_function_is_checked():
    """Whatever is new is, too."""
    functions = [getattr(lifelong, name) for name in lifelong.__all__ if inspect.isfunction(getattr(lifelong, name))]
    assert len(functions) >= 10
    assert [function.__name__ for function in functions if not hasattr(function, "__wrapped__")] == []


@pytest.mark.parametrize("settings", [{"epochs": np.int64(1), "lr": np.float32(0.125), "augment": np.bool_(False)}])
def test_numbers_of_numpy_are_numbers(settings):
    config = api.configure("digits", "finetune", np.int64(3), **settings)
    assert (type(config.seed), type(config.training.epochs), type(config.training.lr)) == (int, int, float)
    assert (config.training.epochs, config.training.lr, config.training.augment, config.seed) == (1, 0.125, False, 3)
    assert api.configure("digits", weight_decay_grid=np.array([0.5, 0.25])).training.weight_decay_grid == (0.5, 0.25)
    with pytest.raises(lifelong.LifelongError, match="expected an integer"):
        api.configure("digits", "finetune", epochs=np.float64(1.5))


@pytest.mark.parametrize(
    ("hint", "value", "found"),
    [
        (Place, Path("a"), Path("a")),
        (Place | None, None, None),
        (list[Annotated[int, Ge(0)]], (0, 1), [0, 1]),
        (Literal["a", "b"], "a", "a"),
        (float, 3, 3.0),
        (torch.Tensor, 3, 3),  # of what is not known nothing is said
    ],
)
def test_what_is_accepted(hint, value, found):
    assert hold(hint, value) == found


@pytest.mark.parametrize(
    ("images", "labels", "line"),
    [
        (torch.zeros(2, 3, 8, 8), torch.zeros(2).long(), "Split: images (shape (2, 3, 8, 8), torch.float32)"),
        (torch.zeros(2, 8, 8, 3).byte(), torch.zeros(2).long(), "Split: images (shape (2, 8, 8, 3), torch.uint8)"),
        (torch.zeros(2, 3, 8, 8).byte(), torch.zeros(3).long(), "Split: labels (shape (3,), torch.int64)"),
        (np.zeros((2, 3, 8, 8)), torch.zeros(2).long(), "Split: images (ndarray)"),
    ],
)
def test_a_split_of_another_form(images, labels, line):
    split = object.__new__(lifelong.Split)  # the tests' own check of annotations would come first
    object.__setattr__(split, "images", images)
    object.__setattr__(split, "labels", labels)
    with pytest.raises(lifelong.LifelongError) as caught:
        split.__post_init__()
    assert line in str(caught.value)


def test_python_s_own_complaint_of_a_call_stays():
    @checked
    def call(number: int, *, other: str = "a") -> str:
        return other * number

    assert call(2, other="b") == "bb"
    with pytest.raises(TypeError, match="missing a required argument"):
        call()


@dataclass(frozen=True, kw_only=True)
class OwnSettings(FinetuneSettings):
    strength: Annotated[float, Ge(0)] = setting(1.0, "how strong")


@dataclass(frozen=True, kw_only=True)
class ShadowSettings(FinetuneSettings):
    epochs: int = setting(1, "one of every run's")


@dataclass(frozen=True, kw_only=True)
class NegativeSettings(FinetuneSettings):
    strength: Annotated[float, Ge(0)] = setting(-1.0, "how strong")


class Own(Finetune):
    name = "own"


class BadName(Finetune):
    name = "bad name!"


class Half(lifelong.Method):
    name = "half"


@pytest.mark.parametrize(
    ("method", "settings", "line"),
    [
        (BadName, OwnSettings, "name = 'bad name!' must be letters"),
        (Own(OwnSettings()), OwnSettings, "give the class itself"),
        (int, OwnSettings, "give the class itself"),
        (Half, OwnSettings, "lacks learn, load_state_dict, modules, predict, state_dict"),
        (Own, OwnSettings(), "give the dataclass itself"),
        (Own, dict, "give the dataclass itself"),
        (Own, ShadowSettings, "its setting 'epochs' is one of every run"),
        (Own, NegativeSettings, "has the default -1.0: expected a number >= 0"),
    ],
)
def test_what_is_no_method_is_not_registered(method, settings, line):
    known = dict(METHODS)
    with pytest.raises(lifelong.LifelongError) as caught:
        lifelong.register_method(method, settings)
    assert line in str(caught.value)
    assert known == METHODS


@pytest.fixture(scope="module")
def learner(tmp_path_factory):
    return lifelong.Learner.load(small_run(tmp_path_factory.mktemp("run"), "finetune"), device="cpu", threads=1)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda it, x: it.predict(x, 0), "Learner.predict: task = 0: expected a text"),
        (lambda it, x: it.predict(x, infer="confidenc"), "expected one of 'auto', 'method', 'confidence'; did you mean 'confidence'?"),
        (lambda it, x: it.logits(x.float() / 255, "a"), "type torch.float32: this run takes uint8"),
        (lambda it, x: it.logits(x[0], "a"), "of shape (3, 8, 8)"),
        (lambda it, x: it.logits(x.numpy(), "a"), "images as a ndarray: this run takes uint8"),
        (lambda it, x: it.logits(x, "z"), "has learned no task 'z'"),
        (lambda it, x: it.read(x - 1.0), "values from -1 to -1: images are of 0..255"),
    ],
)
def test_what_a_learner_refuses(learner, call, line):
    with pytest.raises(lifelong.LifelongError) as caught:
        call(learner, torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert line in str(caught.value)
