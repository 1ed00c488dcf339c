"""Runs and streams that several modules of tests use."""

from pathlib import Path

import pytest

from tests.experiment.damage import (
    again,
    config,
    copied,
    finished,
    stopped,
)
from tests.experiment.kill_driver import STREAM


@pytest.fixture
def stream(tmp_path: Path) -> str:
    path = tmp_path / "three.toml"
    path.write_text(STREAM)
    return str(path)


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """Finished runs of two seeds, and one that was stopped and its end, with the stream that they learned."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        finished(folder, "finetune", seed)
    again(copied(stopped(folder, "par"), folder / "par-0"), config(folder, "par"))
    return folder
