"""The environment travels as one object; its fields as keyword arguments are a shorthand."""

import inspect
import pickle
from dataclasses import fields, replace
from pathlib import Path

import pytest

import lifelong
from lifelong import api
from lifelong.errors import LifelongError
from lifelong.settings.run import Environment, EnvironmentOptions, environment_of, split_options


def test_it_is_listed_once():
    """Fields, arguments and options agree, but for what a sweep alone sets."""
    names = [field.name for field in fields(Environment)]
    parameters = inspect.signature(Environment.__init__).parameters
    assert names == list(parameters)[1:] == [*EnvironmentOptions.__annotations__, "at_once"]
    assert {field.name: field.default for field in fields(Environment)} == {name: parameters[name].default for name in names}
    assert all(f"        {name}: " in (Environment.__doc__ or "") for name in names)


def test_paths_and_the_variables_that_they_default_to(monkeypatch):
    monkeypatch.setenv("LIFELONG_DATA", "/images")
    monkeypatch.delenv("LIFELONG_WEIGHTS", raising=False)
    here = Environment(weights="w.safetensors", observe=["tensorboard", "wandb"], tensorboard=True)
    assert (here.data, here.weights) == (Path("/images"), Path("w.safetensors"))
    assert here.observers == ("tensorboard", "wandb")
    assert Environment(tensorboard=True).observers == ("tensorboard",)
    assert pickle.loads(pickle.dumps(here)) == here == replace(here, threads=0)
    assert Environment(data="mine").data == Path("mine")


def test_keywords_override_the_object():
    given = {"device": "cuda:1", "epochs": 3, "data": "theirs"}
    place, rest = split_options("run", Environment(device="cpu", threads=2, data="mine"), given)
    assert (place.device, place.threads, place.data, rest) == ("cuda:1", 2, Path("theirs"), {"epochs": 3})
    assert split_options("run", None, {}) == (Environment(), {})
    assert environment_of("learn", Environment(threads=2), {"device": "cpu"}) == Environment(threads=2, device="cpu")


@pytest.mark.parametrize(
    "call",
    [
        lambda given: lifelong.run("digits", **given),
        lambda given: lifelong.tune("digits", "lwf", grid="lr=0.1,0.2", **given),
        lambda given: lifelong.compare("digits", **given),
        lambda given: lifelong.distances("digits", **given),
        lambda given: lifelong.learn("runs/none", "folder:none", **given),
        lambda given: lifelong.verify("runs/none", **given),
        lambda given: lifelong.open_stream("digits", **given),
        lambda given: api.describe_stream("digits", **given),
        lambda given: api.preview_stream("digits", "none.png", **given),
        lambda given: lifelong.write_report("runs/none", **given),
        lambda given: lifelong.Learner.load("runs/none", **given),
    ],
    ids=lambda call: call.__code__.co_names[-1],
)
def test_every_function_takes_it(call, tmp_path, monkeypatch):
    """A field's wrong value and a misspelled field are one line in each, and nothing is begun."""
    monkeypatch.chdir(tmp_path)
    for given, line in [
        ({"environment": "cpu"}, "environment = 'cpu': expected Environment(...)"),
        ({"environment": Environment(device="cpu"), "threads": -1}, "threads = -1: expected an integer >= 0"),
        ({"devise": "cpu"}, "did you mean 'device'?"),
        ({"skip_broke": True}, "did you mean 'skip_broken'?"),
    ]:
        with pytest.raises(LifelongError) as caught:
            call(given)
        assert line in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_object_and_keywords_come_to_the_same(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(api, "start", lambda config, out, place, progress: started.append((config, out, place)) or {})
    lifelong.run("digits", "lwf", out="o", epochs=2, device="cpu", threads=2, data="d")
    lifelong.run("digits", "lwf", out="o", epochs=2, environment=Environment(device="cpu", threads=2, data="d"))
    lifelong.run("digits", "lwf", out="o", epochs=2, environment=Environment(device="cuda:7", threads=2), device="cpu", data="d")
    assert started[0] == started[1] == started[2]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"threads": "2"}, "Environment: threads = '2': expected an integer >= 0 and <= 1024"),
        ({"save_every": -1.0}, "Environment: save_every = -1.0: expected a number >= 0"),
        ({"device": "gpu"}, "--device gpu: no such device; did you mean 'cuda'?"),
        ({"observe": "tensorboard"}, "Environment: observe = 'tensorboard': expected a list, each a text; write ['tensorboard']"),
        ({"observe": ["tensorbord"]}, "unknown observer 'tensorbord'; did you mean 'tensorboard'?"),
        ({"data": 3}, "Environment: data = 3: expected a path or None"),
        ({"at_once": 0}, "Environment: at_once = 0: expected an integer >= 1"),
    ],
)
def test_a_wrong_value_is_one_line(given, line):
    with pytest.raises(LifelongError) as caught:
        Environment(**given)
    assert str(caught.value).startswith(line)
