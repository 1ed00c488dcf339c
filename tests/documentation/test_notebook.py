"""The notebooks of `examples/`: valid, without stored outputs, and their code runs from top to bottom."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8"))["cells"]


def code(file: Path) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in cells(file) if cell["cell_type"] == "code")


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_form(file: Path) -> None:
    """What nbformat 4.5 demands, and nothing of a machine on which it was run."""
    book = json.loads(file.read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert set(book) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    for cell in book["cells"]:
        own = {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | own
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        if own:
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_links_lead_somewhere(file: Path) -> None:
    import re

    text = "".join(line for cell in cells(file) if cell["cell_type"] == "markdown" for line in cell["source"])
    places = re.findall(r"\]\(([^)#:]+)\)", text)
    assert places
    for place in places:
        assert (file.parent / place).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_code_runs(file: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LIFELONG_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code(file)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )  # seconds; far more on a busy machine
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("because" in line for line in lines) == 3, "three tasks, each with its decision"
    assert any(line.startswith("AP 0.") for line in lines)
    assert "'stripes'" in lines[-1]
    assert (tmp_path / "first-steps" / "report.html").is_file()
