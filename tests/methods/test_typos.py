"""A misspelled setting is found by the type checker: in every method, in the search and in relatedness, wherever one is read."""

import ast
from pathlib import Path

from tests.typos import check_typos

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


def test_a_misspelled_setting_is_found(tmp_path: Path) -> None:
    check_typos(tmp_path, PLACES, settings_read, OWN, ["self.settings.strenght"], at_least=100)
