"""A run on a frozen network continues without the file that the network's weights came from."""

from pathlib import Path
from typing import NoReturn

import pytest

import lifelong
from lifelong.errors import LifelongError
from lifelong.experiment import run as module
from lifelong.experiment.observer import Observer

STREAM = "digits?tasks=2&train_per_class=3&valid_per_class=2&test_per_class=2"


class Interrupted(Observer):
    """Interrupts a run before its first task, or after it."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks

    def task_started(self, index: int, name: str) -> None:
        if index == self.tasks:
            raise KeyboardInterrupt


def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(name: str, feature_input: str) -> NoReturn:
        raise LifelongError("no weights")

    monkeypatch.delenv("LIFELONG_WEIGHTS", raising=False)
    monkeypatch.setattr(module, "extractor_opener", lambda environment, device: opened)


@pytest.mark.parametrize("method", ["ncm", "ranpac", "fecam"])
def test_a_run_continues_by_the_network_that_it_keeps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str) -> None:
    whole = lifelong.run(STREAM, method, out=tmp_path / "whole", threads=1, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        lifelong.run(STREAM, method, out=tmp_path / "cut", threads=1, device="cpu", progress=Interrupted(1))
    without_weights(monkeypatch)
    continued = lifelong.run(STREAM, method, out=tmp_path / "cut", threads=1, device="cpu")
    assert continued.complete
    assert continued.accuracy == whole.accuracy


def test_before_its_first_task_is_finished_a_run_asks_for_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        lifelong.run(STREAM, "ncm", out=tmp_path, threads=1, device="cpu", progress=Interrupted(0))
    without_weights(monkeypatch)
    with pytest.raises(LifelongError, match="no weights"):
        lifelong.run(STREAM, "ncm", out=tmp_path, threads=1, device="cpu")
