"""What docs/extending.md shows is true: the example keeps the contract, runs by its name, and is as short as is said."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import lifelong
from lifelong.methods.registry import METHODS
from lifelong.training.examples import image_examples
from tests.made import made_batch, made_task
from tests.methods.test_par import context

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "new_method.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example, imported; what it registers is forgotten afterwards."""
    spec = importlib.util.spec_from_file_location("new_method", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "new_method", module)
    known = dict(METHODS)
    spec.loader.exec_module(module)
    yield module
    METHODS.clear()
    METHODS.update(known)


def test_it_is_as_short_as_is_said() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60


def test_it_keeps_the_contract(example: ModuleType) -> None:
    lifelong.check_method(lambda: example.Stay(example.StaySettings(init_channels=4)))


def test_its_spring_is_half_the_strength_times_the_squared_way(example: ModuleType) -> None:
    method = example.Stay(example.StaySettings(init_channels=4, strength=3.0))
    method.learn(made_task(), context(0))
    examples = image_examples(made_task(kind=1), augmented=False)
    inputs, labels = examples.prepare(examples.train), examples.train_labels
    head = torch.nn.Linear(4, 3)
    loss = method.loss(head, examples)
    weight = next(method.backbone.parameters())
    weight.data += 0.05
    plain = torch.nn.functional.cross_entropy(head(method.features(inputs, 1)), labels).item()
    found = loss(made_batch(inputs, labels, labels)).item()
    assert found == pytest.approx(plain + 3.0 / 2 * 0.05**2 * weight.numel(), rel=1e-5)


def test_a_run_takes_it_by_its_name(example: ModuleType, tmp_path: Path) -> None:
    stream = "digits?tasks=2&train_per_class=3&valid_per_class=2&test_per_class=2"
    summary = lifelong.run(stream, "stay", preset="quick", strength=2.0, init_channels=4, epochs=1, out=tmp_path, progress=False)
    assert summary["method"] == "stay"
    assert len(summary["tasks"]) == 2
    assert "strength = 2.0" in (tmp_path / "config.toml").read_text()


def test_the_command_line_of_the_file_knows_it() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, str(EXAMPLE), "methods", "stay", "--json"]
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
    assert '"strength"' in answer.stdout


def test_a_name_that_is_taken_is_one_line(example: ModuleType) -> None:
    with pytest.raises(lifelong.LifelongError, match="'stay' is registered already; give it another"):
        lifelong.register_method(example.Stay, example.StaySettings)


def test_a_class_within_a_function_is_refused(example: ModuleType) -> None:
    class Inner(example.Stay):
        name = "inner"

    with pytest.raises(lifelong.LifelongError, match="at the top level of the module"):
        lifelong.register_method(Inner, example.StaySettings)
    assert "inner" not in METHODS
