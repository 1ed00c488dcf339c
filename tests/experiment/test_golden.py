"""The golden table: what every method comes to on three small tasks of real digits, seeds 0 to 2; and seed 0 with a third of the epochs.

A change that moves a method's accuracy, forgetting, size or memory moves its row, in whichever direction. After a change that is meant
to: `python -m tests.experiment.test_golden METHOD ...` writes the rows anew (all methods without names); say why in the commit.

Trainings are in float64, so that a change of the code moves a row and another processor does not: in float32, rows differed by up to 0.20
in AP between instruction sets. And they are such as do not magnify rounding, where some settings would (`SETTINGS`). `make golden` computes
the table as other processors do.
"""

import csv
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lifelong.experiment.run import run
from lifelong.methods.registry import METHODS
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.training import TrainingSettings
from tests.methods.test_conformance import small_settings
from tests.precision import float64

HERE = Path(__file__).resolve().parent
TABLE = HERE / "golden.csv"
SEEDS = (0, 1, 2)
SHORT = "short"
"""The training of a row with a third of the epochs of the others, which are "long"."""

TRAINING = TrainingSettings(epochs=24, batch_size=40, lr=0.05)
GATED = TrainingSettings(epochs=24, batch_size=40, lr=0.01)
"""For gates, whose plain SGD takes steps ten times as long."""

SEARCHING = TrainingSettings(epochs=32, batch_size=60, lr=0.05)
"""Where half of the epochs go into a search, in which a path gets a part of the batch."""

TRAININGS = {"hat": GATED, "cat": GATED, "mntdp-s": SEARCHING}

SETTINGS: dict[str, dict[str, Any]] = {
    "ewc": {"fisher": "exact", "fisher_samples": 24, "penalty_weight": 3.0},  # lr * penalty * Fisher < 2: by the default it is 500
    "mas": {"penalty_weight": 0.1},  # the same: by the default 16
    "hat": {"init_channels": 16, "s_max": 5.0},  # gates that do not close to the last bit, whose gradient would be magnified
    "cat": {"init_channels": 16, "s_max": 5.0},
    "expert-gate": {"gate_code": 16},
    "mntdp-s": {"arch_lr": 0.1},
    "learn-to-grow": {"search_epochs": 10, "search_lr": 0.05},
    "par": {"cells": 4, "search_epochs": 3},
}
"""What would take too long, learn nothing, magnify rounding, or leave out what is the method's own, at its default."""

TOLERANCE = 0.0101
"""Of AP and AF: three of the 300 answers after the last task. As computed with AVX-512, AVX2 and SSE4, no row differed in any number."""


def measure(method: str, length: str, seed: int, out: Path) -> dict[str, str]:
    """A row of the table."""
    small = small_settings(method)
    width = {"init_channels": 8} if hasattr(small, "init_channels") else {}
    settings = replace(small, **width | SETTINGS.get(method, {}))
    training = TRAININGS.get(method, TRAINING)
    if length == SHORT:
        training = replace(training, epochs=training.epochs // 3, lr=2 * training.lr)
    config = RunConfig(stream=str(HERE / "golden.toml"), method=method, seed=seed, preset="paper", training=training, settings=settings)
    with float64():
        summary = run(config, out, Environment(device="cpu", threads=1))
    return {
        "method": method,
        "training": length,
        "seed": str(seed),
        "ap": f"{summary['ap']:.4f}",
        "af": f"{summary['af']:.4f}",
        "parameters": str(summary["parameters"]),
        "memory": str(sum(summary["memory"].values())),
    }


ROWS = [(SHORT, 0), *(("long", seed) for seed in SEEDS)]
"""Of each method: training and seed."""


def golden() -> dict[tuple[str, str, int], dict[str, str]]:
    """The rows by method, training and seed."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {(row["method"], row["training"], int(row["seed"])): row for row in csv.DictReader(file)}


def test_every_method_has_its_rows():
    assert set(golden()) == {(method, *row) for method in METHODS for row in ROWS}


@pytest.mark.parametrize("method", list(METHODS))
def test_golden(method, tmp_path):
    """The short training; the others take their time."""
    compare(method, *ROWS[0], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("seed", SEEDS)
def test_golden_long(method, seed, tmp_path):
    compare(method, "long", seed, tmp_path)


def compare(method: str, length: str, seed: int, out: Path) -> None:
    now, then = measure(method, length, seed, out), golden()[method, length, seed]
    for key in ("ap", "af"):
        assert float(now[key]) == pytest.approx(float(then[key]), abs=TOLERANCE), key
    assert (now["parameters"], now["memory"]) == (then["parameters"], then["memory"])


def main(methods: list[str]) -> None:
    """Write the rows of some methods anew, in the registry's order."""
    rows = golden() if TABLE.exists() else {}
    for method in methods or METHODS:
        for length, seed in ROWS:
            with tempfile.TemporaryDirectory() as folder:
                rows[method, length, seed] = row = measure(method, length, seed, Path(folder))
            print(*row.values(), sep=",", flush=True)
        ordered = [rows[name, *row] for name in METHODS for row in ROWS if (name, *row) in rows]
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["method", "training", "seed", "ap", "af", "parameters", "memory"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(ordered)


if __name__ == "__main__":
    main(sys.argv[1:])
