"""What was recorded of runs of the reference codes: figures, which are in `docs/fidelity.md` with where each is held."""

import ast
import datetime
import re
import statistics
import tomllib
from pathlib import Path

import pytest
import torch

from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import Genotype
from lifelong.search.distribution import Distribution, derive
from tests.reference.recordings import FOLDER, recording, rows, too_large

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("projection", "low", "high"), [("softmax", (0.155, 0.1667), (0.1667, 0.178)), ("simplex", (0.0, 0.1), (0.25, 1.0))]
)
def test_how_far_a_search_leaves_chance(projection: str, low: tuple[float, float], high: tuple[float, float]) -> None:
    """PAR's code kept every probability between 0.157 and 0.177 for 100 epochs of step 0.01, whatever the accuracies; 1/6 is chance."""
    generator, cell = torch.Generator().manual_seed(0), Distribution()
    for _ in range(100):
        cell.learn(cell.sample(generator), torch.rand((), generator=generator).item(), 0.01, projection)
        if projection == "softmax":
            assert cell.probabilities.min() > 0.155
            assert cell.probabilities.max() < 0.178
    assert low[0] <= cell.probabilities.min() <= low[1]
    assert high[0] <= cell.probabilities.max() <= high[1]


def test_the_size_of_random_cells() -> None:
    """200 random genotypes in PAR's code, C = 64 with a head of ten classes: 226,759 on average, deviation 30,820.

    Means of 200 and of 60 differ by 4,500 (a standard deviation): three times that.
    """
    nothing = Distribution().probabilities
    sizes = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        cell = Genotype(derive(nothing, generator).plan, derive(nothing, generator).plan)
        with torch.device("meta"):  # weights are counted, none is drawn
            sizes.append(sum(parameter.numel() for parameter in CellNetwork(cell, 64).parameters()) + 2_570)
    assert statistics.fmean(sizes) == pytest.approx(226_759, abs=13_600)
    assert statistics.stdev(sizes) == pytest.approx(30_820, rel=0.25)
    assert min(sizes) > 164_042 * 0.75
    assert max(sizes) < 435_146  # all separable convolutions
    # Row #2 of the paper's Table 5, in millions: ten searched cells with heads; ten random ones vary by 0.1.
    assert 10 * statistics.fmean(sizes) / 1e6 == pytest.approx(2.277, abs=0.1)


def test_the_page_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"


def checked_rows() -> list[tuple[str, str, str]]:
    """The rows of the page's last table: the allowed difference, the file and the test."""
    page = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    return re.findall(r"^\| [^|]+ \| [^|]+ \| ([^|]+) \| `(tests/[\w/]+\.py)::(\w+)` \|$", page, re.MULTILINE)


def constants(file: str, test: str) -> set[float]:
    """All numbers in the code of a test, and in that of the functions of its module that it names."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    named = [node.id for node in ast.walk(functions[test]) if isinstance(node, ast.Name) and node.id in functions]
    nodes = [node for name in (test, *named) for node in ast.walk(functions[name])]
    return {float(node.value) for node in nodes if isinstance(node, ast.Constant) and type(node.value) in (int, float)}


@pytest.mark.parametrize(("allowed", "file", "test"), checked_rows())
def test_the_page_says_what_a_test_allows(allowed: str, file: str, test: str) -> None:
    """Every number of the column is one of the test's code (what it is a part of need not be): neither can be loosened alone."""
    words = re.findall(r"(\d[\d,.]*(?:e-?\d+)?)( %)?", re.sub(r" of [\d,.]+", "", allowed))
    assert words or allowed in ("none", "rounding")
    for number, percent in words:
        value = float(number.replace(",", "")) / (100 if percent else 1)
        assert value in constants(file, test), f"{test} allows something else than {number}{percent}"


def test_a_number_of_the_page_that_is_loosened_is_found() -> None:
    """Rounding is rounding; a real difference is near the one that is printed."""
    printed = float(rows()["par-smoothed-distillation-loss"].number)
    assert too_large({"par-smoothed-distillation-loss": printed / 2, "leep": 1e-16, "par-decisions": 0.0}) == []
    (line,) = too_large({"par-smoothed-distillation-loss": printed / 11})
    assert line.startswith("par-smoothed-distillation-loss: 5e-04, found")


def test_every_recording_says_where_it_comes_from_and_is_small() -> None:
    """Inputs and outputs of numbers, with the repository and commit that the page prints: 50 KB each, 500 KB in all."""
    files = sorted(FOLDER.iterdir())
    assert {file.stem for file in files} == {name for name in rows() if "," not in name}
    assert {name.partition(",")[0] for name in rows()} <= {file.stem for file in files}
    assert sum(file.stat().st_size for file in files) < 500_000
    for file in files:
        assert file.suffix == ".safetensors"
        assert file.stat().st_size < 50_000, file
        recorded = recording(file.stem)
        said = recorded.metadata
        assert re.fullmatch(r"[0-9a-f]{40}", said["commit"])
        assert rows()[file.stem].middle == f"{said['repository']} {said['commit'][:7]}"
        assert said["path"].endswith(".py") or ".py " in said["path"]
        assert datetime.date.fromisoformat(said["recorded"]) >= datetime.date(2026, 11, 27)
        assert re.match(r"\d+\.\d+\.\d+", said["torch"])
        assert {key.partition("/")[0] for key in recorded.tensors} == {"in", "out"}
        assert all(tensor.isfinite().any() for tensor in recorded.tensors.values())


def test_recordings_are_not_in_the_wheel() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]["find"]["include"]
    assert packages == ["lifelong*"]
    assert not list((ROOT / "lifelong").rglob("*.safetensors"))
