"""The examples of what a person may exchange, and a measure that keeps its contract."""

import importlib.util
from pathlib import Path

import torch

import lifelong

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = "digits?tasks=3&train_per_class=6&valid_per_class=4&test_per_class=4"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Constant(lifelong.Measure):
    def keep(self, sample, settings):
        return {}

    def divergences(self, sample, kept, settings):
        return torch.ones(len(kept))
