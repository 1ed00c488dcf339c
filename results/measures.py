"""What every measure of relatedness says of the S⁻-like stream: one pair of tasks with the same classes, nine pairs without.

    python results/measures.py results/measures.csv [--seeds 0 1 2] [--runs DIR]

The stream is `examples/real.toml` with at most 100 training images of a class. Each task gets an expert of its own (the fixed cell, C = 16,
20 epochs), so that measures of experts find the same experts; `--runs` keeps these runs, and continues them. Data and weights:
LIFELONG_DATA, LIFELONG_WEIGHTS. One row for each seed and measure:

    same, least_other, median_other    distance of the last task from the first, whose classes it has; of the other nine pairs
    found                              whether the first task is the nearest to the last
    bytes                              kept of the first task, the prototypes included where they are what the measure keeps
    seconds                            processor time that the last task's divergences take, given the frozen features
    minutes                            of the seed: training the experts, and all measures
"""

import argparse
import csv
import datetime
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

import lifelong
from lifelong.data.sources import Sources
from lifelong.data.task import Task
from lifelong.experiment.machine import machine_name
from lifelong.methods.method import Method
from lifelong.relatedness.assessment import task_features
from lifelong.relatedness.experts import EarlierExperts
from lifelong.relatedness.extractor import open_extractor
from lifelong.relatedness.measures import Sample, measure_divergences
from lifelong.reproduction.commit import commit
from lifelong.settings.par import PARSettings
from lifelong.settings.run import Environment
from lifelong.settings.sockets import MEASURES
from lifelong.streams.named_streams import open_stream
from lifelong.trees import tensor_bytes

STREAM = "examples/real.toml?train_per_class=100"


def main() -> int:
    """Read the command line and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            rows += measured(seed, (options.runs or Path(folder)) / f"seed{seed}")
            write(rows, options.table)
    return 0


def write(rows: list[dict[str, Any]], table: Path) -> None:
    """Write the table."""
    seeds = " ".join(sorted({str(row["seed"]) for row in rows}))
    about = {
        "command": f"python results/measures.py results/measures.csv --seeds {seeds}",
        "commit": commit(),
        "machine": machine_name(torch.device("cpu")),
        "weights": "ResNet-18 to layer3",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *about])
        writer.writeheader()
        writer.writerows(row | about for row in rows)


def measured(seed: int, folder: Path) -> list[dict[str, Any]]:
    """Train an expert for each task, and measure every task by every measure."""
    settings: dict[str, Any] = {"variant": "fixed", "init_channels": 16, "epochs": 20, "device": "cpu"}
    summary = lifelong.run(STREAM, "par", seed=seed, out=folder, threads=1, **settings)
    assert [task.expert for task in summary.tasks] == [0, 1, 2, 3, 4]
    trained = time.monotonic()
    method = lifelong.Learner.load(folder, threads=1)._saved.method
    extractor = open_extractor("resnet18", weights=Environment().weights)
    stream = open_stream(STREAM, seed, Sources(Environment().data))
    tasks = [stream[index] for index in range(len(stream))]
    samples = [task_features(task, extractor, PARSettings()) for task in tasks]
    rows = [{"seed": seed, "measure": name} | row(name, samples, tasks, method) for name in MEASURES]
    # The run may have been continued: its own time is that of all its parts.
    spent = sum(task.seconds or 0.0 for task in summary.tasks) + time.monotonic() - trained
    return [each | {"minutes": f"{spent / 60:.1f}"} for each in rows]


def row(name: str, samples: list[Sample], tasks: list[Task], method: Method[Any]) -> dict[str, Any]:
    """Measure every task against those before it, and summarize."""
    measure, settings = MEASURES[name](), PARSettings(measure=name, keep_features=True)
    kept: list[Any] = []
    distances: list[list[float]] = []
    spent = 0.0
    for plain, task in zip(samples, tasks, strict=True):
        seen = EarlierExperts(method.modules, task.valid.images, task.normalization) if measure.needs_experts else None
        began = time.process_time()
        sample = replace(plain, first=kept[0] if kept else None, experts=seen)
        sample = replace(sample, own=measure.keep(sample, settings))
        divergences = measure_divergences(name, sample, kept, settings)
        spent = time.process_time() - began
        distances.append(measure.to_distance(divergences).tolist())
        kept.append(sample.own)
    same, *rest = distances[-1]
    others = [*rest, *(value for each in distances[:-1] for value in each)]
    return {
        "same": f"{same:.3f}",
        "least_other": f"{min(others):.3f}",
        "median_other": f"{median(others):.3f}",
        "found": same < min(rest),
        "bytes": tensor_bytes(kept[0]),
        "seconds": f"{spent:.2f}",
    }


if __name__ == "__main__":
    raise SystemExit(main())
