"""A misspelled key of a record is found by the type checker: wherever the library reads one, and in a program of one's own."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord

ROOT = Path(__file__).resolve().parents[2]

READERS = {"summary": RunRecord, "entry": TaskRecord}
"""What records are called where they are read."""

PLACES = ("report", "reproduction", "experiment", "cli")

OWN = """
import lifelong

summary = lifelong.run("digits")
print(summary.parameters, summary["parameters"])
print(summary.paramters)
for task in summary.tasks:
    print(task.divergences, task.distances)
for one in lifelong.compare("digits"):
    print(one.aps)
print(lifelong.distances("digits").raw)
"""
"""A program of a user: four typos, on four lines."""

WRONG_IN_OWN = ("summary.paramters", "task.distances", "one.aps", ".raw")


def misspelled(source: str) -> tuple[str, set[int]]:
    """Misspell every attribute of a record that a module reads, except in lambdas, whose parameters have no type; return the lines too."""
    tree = ast.parse(source)
    in_lambdas = {node for outer in ast.walk(tree) if isinstance(outer, ast.Lambda) for node in ast.walk(outer)}
    read = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and isinstance(node.value, ast.Name)
        and node.value.id in READERS
        and node.attr in READERS[node.value.id].model_fields
        and node not in in_lambdas
    ]
    lines, numbers = source.splitlines(keepends=True), set()
    for node in sorted(read, key=lambda node: (node.end_lineno or 0, node.end_col_offset or 0), reverse=True):
        assert node.end_lineno is not None
        line = lines[node.end_lineno - 1].encode()
        lines[node.end_lineno - 1] = (line[: node.end_col_offset] + b"_typo" + line[node.end_col_offset :]).decode()
        numbers.add(node.end_lineno)
    return "".join(lines), numbers


def test_a_misspelled_key_of_a_record_is_found(tmp_path: Path) -> None:
    if importlib.util.find_spec("ty") is None:
        pytest.skip("ty is not installed: whether the type checker finds misspelled keys is NOT tested; pip install 'lifelong[dev]'")
    shutil.copytree(ROOT / "lifelong", tmp_path / "lifelong", ignore=shutil.ignore_patterns("__pycache__"))
    planted = set()
    for file in (file for place in PLACES for file in sorted((tmp_path / "lifelong" / place).glob("*.py"))):
        text, lines = misspelled(file.read_text())
        file.write_text(text)
        planted |= {(file.relative_to(tmp_path).as_posix(), line) for line in lines}
    (tmp_path / "own.py").write_text(OWN)
    planted |= {("own.py", number) for number, line in enumerate(OWN.splitlines(), 1) if any(wrong in line for wrong in WRONG_IN_OWN)}

    files = sorted({name for name, _ in planted})
    command = [sys.executable, "-m", "ty", "check", "--output-format", "concise", "--color", "never", "--python", sys.prefix, *files]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    found = {
        (name, int(line)) for name, line in re.findall(r"^(\S+?):(\d+):\d+: error\[(?:missing|unresolved)-attribute\]", said, re.MULTILINE)
    }
    assert len(planted) > 80
    assert found == planted, said
