"""Plants typos in a copy of the library, and checks that the type checker finds each of them and nothing else."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

Reads = Callable[[str], Sequence[ast.Attribute]]
"""Finds the attributes of a module's text that are to be misspelled."""


def misspelled(source: str, reads: Reads) -> tuple[str, set[int]]:
    """Return a module's text with each of these attributes misspelled, and the lines of the typos."""
    lines, numbers = source.splitlines(keepends=True), set()
    for node in sorted(reads(source), key=lambda node: (node.end_lineno or 0, node.end_col_offset or 0), reverse=True):
        assert node.end_lineno is not None
        line = lines[node.end_lineno - 1].encode()
        lines[node.end_lineno - 1] = (line[: node.end_col_offset] + b"_typo" + line[node.end_col_offset :]).decode()
        numbers.add(node.end_lineno)
    return "".join(lines), numbers


def check_typos(folder: Path, packages: Sequence[str], reads: Reads, own: str, wrong: Sequence[str], *, at_least: int) -> None:
    """Plant typos, and check that the type checker finds exactly these.

    Args:
        folder: for the copy of the library.
        packages: of the library, in whose modules typos are planted.
        reads: what is misspelled there.
        own: text of a program that uses the library.
        wrong: parts of the lines of `own` that have a typo.
        at_least: typos that must have been planted.
    """
    if importlib.util.find_spec("ty") is None:
        pytest.skip("ty is not installed: whether the type checker finds typos is NOT tested; pip install 'lifelong[dev]'")
    shutil.copytree(ROOT / "lifelong", folder / "lifelong", ignore=shutil.ignore_patterns("__pycache__"))
    planted = {("own.py", number) for number, line in enumerate(own.splitlines(), 1) if any(part in line for part in wrong)}
    (folder / "own.py").write_text(own)
    for file in (file for package in packages for file in sorted((folder / "lifelong" / package).glob("*.py"))):
        text, lines = misspelled(file.read_text(), reads)
        file.write_text(text)
        planted |= {(file.relative_to(folder).as_posix(), line) for line in lines}
    files = sorted({name for name, _ in planted})
    command = [sys.executable, "-m", "ty", "check", "--output-format", "concise", "--color", "never", "--python", sys.prefix, *files]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout
    told = re.findall(r"^(\S+?):(\d+):\d+: error\[(?:missing|unresolved)-attribute\]", said, re.MULTILINE)
    assert len(planted) >= at_least
    assert {(name, int(line)) for name, line in told} == planted, said
