"""CIFAR-100 in form, made of numbered images, and a place of its own for the cache."""

from pathlib import Path

import pytest

from lifelong.data.known_sources import CIFAR100
from lifelong.reproduction.plan import Choice
from lifelong.reproduction.scales import read_scale
from lifelong.settings.run import Environment
from tests.streams.made_sources import made_source


@pytest.fixture(scope="session")
def made_data(tmp_path_factory) -> Path:
    """A data folder with a small `cifar100` and nothing else."""
    folder = tmp_path_factory.mktemp("data")
    made_source(folder, "cifar100", {"train": 6, "test": 2}, 100, column="fine_label", names=CIFAR100)
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory, monkeypatch):
    """A cache that the tests share, no place of data or weights, and an empty folder to stand in."""
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("LIFELONG_DATA", raising=False)
    monkeypatch.delenv("LIFELONG_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture
def place(made_data) -> Environment:
    return Environment(data=made_data, device="cpu", threads=1)


@pytest.fixture
def tiny() -> Choice:
    return Choice(read_scale("tiny"), seeds=(0,))
