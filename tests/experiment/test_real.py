"""Real images, ImageNet features: tasks of the same classes find each other, and nothing else does."""

from pathlib import Path

import pytest

from lifelong.experiment.distances import distances
from lifelong.settings.par import PARSettings
from lifelong.settings.run import Environment

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def here(data_folder: Path, weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path))
    return Environment(data=data_folder, weights=weights_file, device="cpu", threads=1)


@pytest.mark.slow
def test_second_draws_join_the_first(here: Environment) -> None:
    """CIFAR-10 (400 a class), MNIST, DTD, Fashion-MNIST (40 a class), then CIFAR-10's and MNIST's classes again with 40 images each."""
    found = distances(str(EXAMPLES / "real-mnist-again.toml"), 0, PARSettings(), here)
    assert found["tasks"] == ["cifar10-a", "mnist", "dtd", "fashion", "cifar10-b", "mnist-b"]
    assert found["groups"] == [[0, 4], [1, 5], [2], [3]]
    raw = found["divergences"]
    assert raw[4][0] < 0.5
    assert raw[5][1] < 0.5
    others = [value for task, row in enumerate(raw) for earlier, value in enumerate(row) if (task, earlier) not in {(4, 0), (5, 1)}]
    assert min(others) > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("stream", ["real", "real-mnist-again"])
def test_for_other_draws_too(here: Environment, stream: str, seed: int) -> None:
    found = distances(str(EXAMPLES / f"{stream}.toml"), seed, PARSettings(), here)
    expected = [[0, 4], [1], [2], [3]] if stream == "real" else [[0, 4], [1, 5], [2], [3]]
    assert found["groups"] == expected
