"""Plausible results, made up: what the runner would have written, with names as nasty as a person's folders can be."""

import json
import math
from typing import Any

import numpy as np

from lifelong.networks.genotype import DARTS_V1, DARTS_V2, Genotype

NASTY = [
    '<script>alert("x")</script>',
    "cats & dogs",
    "[bold red]zebra[/bold red]",
    "猫と犬 $x^2$ ☃",
    "a\nb\x1b[31mc",
    "w" * 90,
    "naïve",
    "../../etc",
]


def summary(
    tasks: int = 6,
    *,
    method: str = "par",
    seed: int = 0,
    complete: bool = True,
    decides: bool = True,
    names: list[str] | None = None,
    cells: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """A summary as the runner writes it.

    Args:
        tasks: how many tasks are finished.
        method: the method's name.
        seed: moves the accuracies.
        complete: whether the stream is at its end.
        decides: whether the method measures distances and decides.
        names: of the tasks; repeated where there are too few.
        cells: whether the records hold genotypes, whose diagrams take long to draw.
        settings: hyper-parameters in addition to those of every summary.
    """
    random = np.random.default_rng([seed, *method.encode()])
    first = random.uniform(0.6, 0.95, tasks)
    accuracy = [[float(np.clip(first[j] - 0.02 * (i - j) * (j % 2), 0, 1)) for j in range(i + 1)] for i in range(tasks)]
    records = [_record(index, (names or [f"task-{index}"])[index % len(names or [""])], decides, random) for index in range(tasks)]
    experts = 0
    for record in records if decides else []:
        record["expert"] = 0 if record["decision"] == "reuse-expert" else experts
        experts += record["decision"] != "reuse-expert"
        record["genotype"] = record["genotype"] if cells else None
    phases: dict[str, float] = {}
    for record in records:
        for phase, seconds in record["seconds_by_phase"].items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    return {
        "version": "0.1.0",
        "stream": "digits",
        "stream_fingerprint": "0123456789abcdef",
        "method": method,
        "preset": "quick",
        "seed": seed,
        "settings": {
            "stream": "digits",
            "method": method,
            "seed": seed,
            "preset": "quick",
            "epochs": 30,
            "weight_decay_grid": [],
            **settings,
        },
        "ap": float(np.mean(accuracy[-1])) if tasks else None,
        "af": float(np.mean([now - accuracy[j][j] for j, now in enumerate(accuracy[-1])])) if tasks else None,
        "bwt": -0.0321 if tasks > 1 else None,
        "forgetting": 0.0432 if tasks > 1 else None,
        "weighted_accuracy": 0.7654 if tasks else None,
        "parameters": sum(record["parameters_added"] for record in records),
        "seconds": sum(phases.values()),
        "seconds_by_phase": phases,
        "memory": {"prototypes": 20480 * tasks, "teacher logits": 0},
        "accuracy": accuracy,
        "tasks": records,
        "device": "cpu",
        "machine": "Some CPU <8 cores>",
        "threads": 2,
        "torch": "2.13.0",
        "peak_memory_bytes": 812_000_000,
        "extractor": "pixels" if decides else None,
        "notes": ["relatedness by raw pixels & nothing else"],
        "complete": complete,
    }


def _record(index: int, name: str, decides: bool, random: np.random.Generator) -> dict[str, Any]:
    distances = [float(value) for value in random.gamma(2.0, 0.6, index)] if decides else []
    groups = [min(value, 1 - math.exp(-2 * value)) for value in distances]
    near = min(groups, default=1.0)
    decision = "reuse-expert" if near <= 0.5 else "reuse-cell" if near <= 0.75 else "search"
    seconds = {
        "distances": 0.2,
        "search": 8.0 if decision == "search" and decides else 0.0,
        "train": float(random.uniform(3, 9)),
        "evaluate": 0.3,
    }
    return {
        "name": name,
        "classes": [f"{name} class {label}" for label in range(5)],
        "train": 400,
        "valid": 100,
        "test": 200,
        "decision": decision if decides else None,
        "expert": None,
        "distances": distances,
        "group_distances": groups,
        "alpha": 0.5 if decides else None,
        "beta": 0.75 if decides else None,
        "reason": f"the nearest group holds '{name}'" if decides else "",
        "frozen": decides and index == 4,
        "genotype": (repr(DARTS_V1) if index % 2 else repr(DARTS_V2)) if decides else None,
        "epochs": 30,
        "seconds": sum(seconds.values()),
        "seconds_by_phase": seconds,
        "parameters_added": 1290 if decision == "reuse-expert" and decides else 17_712,
        "hyperparameters": {"weight_decay": 0.003, "best_epoch": 21, "valid_accuracy": 0.91},
        "judged": {"recall": [0.9, 0.8, 0.75, 1.0, None], "confusion": [[9, 1, 0, 0, 0] for _ in range(5)], "majority": 0.25},
    }


def many(tasks: int = 100, experts: int = 60, names: list[str] | None = None) -> dict[str, Any]:
    """A summary of a long stream: as many different cells as experts, and tasks that join them in turn."""
    made = summary(tasks, names=names)
    for index, record in enumerate(made["tasks"]):
        expert = index % experts
        record |= {"expert": expert, "genotype": _cell(expert), "decision": "search" if index < experts else "reuse-expert"}
        record["reason"] = "0.978 > β 0.75 from group 1: cell searched" if index < experts else f"0.314 ≤ α 0.5 from group {expert}: shared"
    return made


def _cell(number: int) -> str:
    """A cell of its own for every number."""
    names = ("sep_conv_3x3", "dil_conv_3x3", "max_pool_3x3", "skip_connect")
    node = [((names[number // 4**index % 4], index), ("sep_conv_3x3", index + 1)) for index in range(4)]
    plan = (node[0], node[1], node[2], node[3])
    return repr(Genotype(plan, plan))


def curves(tasks: int, epochs: int = 60, stages: tuple[str, ...] = ("search", "train", "distill")) -> str:
    """A curves.jsonl as the runner writes it."""
    lines = [
        {"task": task, "stage": stage, "epoch": epoch, "loss": 2 * math.exp(-epoch / 20), "accuracy": 1 - math.exp(-epoch / (9 + task))}
        for task in range(tasks)
        for stage in stages
        for epoch in range(1, epochs + 1)
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def distances(tasks: int = 6, names: list[str] | None = None) -> dict[str, Any]:
    """What `lifelong.experiment.distances` returns."""
    made = summary(tasks, names=names)
    return {
        "stream": made["stream"],
        "seed": 0,
        "tasks": [record["name"] for record in made["tasks"]],
        "raw": [record["distances"] + [None] * (tasks - index) for index, record in enumerate(made["tasks"])],
        "decisions": [_decision(record) for record in made["tasks"]],
        "extractor": "pixels",
        "alpha": 0.5,
        "beta": 0.75,
    }


def _decision(record: dict[str, Any]) -> dict[str, Any]:
    """As `lifelong.relatedness.groups.Decision.as_dict` gives it."""
    kept = {key: record[key] for key in ("group_distances", "alpha", "beta", "reason", "frozen")}
    return kept | {"action": record["decision"], "group": record["expert"], "divergences": record["distances"]}
