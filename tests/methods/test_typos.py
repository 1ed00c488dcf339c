"""A misspelled setting is found by the type checker: in every method, in the search and in relatedness, wherever one is read."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("methods", "search", "relatedness")

OWN = """
from dataclasses import dataclass

from lifelong.methods.finetune import Finetune
from lifelong.methods.method import Method
from lifelong.methods.single import SingleNetworkMethod
from lifelong.settings.base import setting
from lifelong.settings.baselines import SharedBackboneSettings


@dataclass(frozen=True, kw_only=True)
class OwnSettings(SharedBackboneSettings):
    strength: float = setting(1.0, "weight")


class Typed(SingleNetworkMethod[OwnSettings]):
    def right(self) -> float:
        return self.settings.strength

    def wrong(self) -> float:
        return self.settings.strenght


class Untyped(SingleNetworkMethod):
    def right(self) -> float:
        return self.settings.strength


class Bare(Method):
    def right(self) -> float:
        return self.settings.strength


class Finer(Finetune):
    def right(self) -> str:
        return self.settings.backbone
"""
"""Methods of a third party: with its settings as the parameter of the base class, where a typo is an error, and without."""


def settings_read(source: str) -> list[ast.Attribute]:
    """Find every `settings.NAME` and `....settings.NAME` of a module."""
    attributes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute) and node.attr != "__name__")
    return [node for node in attributes if (getattr(node.value, "attr", None) or getattr(node.value, "id", None)) == "settings"]


def misspelled(source: str) -> tuple[str, set[int]]:
    """Misspell every setting that a module reads; return the lines too."""
    lines, numbers = source.splitlines(keepends=True), set()
    for node in sorted(settings_read(source), key=lambda node: (node.end_lineno, node.end_col_offset), reverse=True):
        line = lines[node.end_lineno - 1].encode()
        lines[node.end_lineno - 1] = (line[: node.end_col_offset] + b"_typo" + line[node.end_col_offset :]).decode()
        numbers.add(node.end_lineno)
    return "".join(lines), numbers


def test_a_misspelled_setting_is_found(tmp_path: Path) -> None:
    if importlib.util.find_spec("ty") is None:
        pytest.skip("ty is not installed: whether the type checker finds misspelled settings is NOT tested; pip install 'lifelong[dev]'")
    shutil.copytree(ROOT / "lifelong", tmp_path / "lifelong", ignore=shutil.ignore_patterns("__pycache__"))
    planted = set()
    for file in (file for place in PLACES for file in sorted((tmp_path / "lifelong" / place).glob("*.py"))):
        text, lines = misspelled(file.read_text())
        file.write_text(text)
        planted |= {(file.relative_to(tmp_path).as_posix(), line) for line in lines}
    (tmp_path / "own.py").write_text(OWN)
    planted.add(("own.py", OWN.splitlines().index("        return self.settings.strenght") + 1))

    files = sorted({name for name, _ in planted})
    command = [sys.executable, "-m", "ty", "check", "--output-format", "concise", "--color", "never", "--python", sys.prefix, *files]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    found = {
        (name, int(line)) for name, line in re.findall(r"^(\S+?):(\d+):\d+: error\[(?:missing|unresolved)-attribute\]", said, re.MULTILINE)
    }
    assert len(planted) > 100
    assert found == planted, said
