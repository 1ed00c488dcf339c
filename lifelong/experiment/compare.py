"""Several methods and seeds over one stream, one run directory each."""

from pathlib import Path
from typing import Any

from lifelong.experiment.progress import Progress
from lifelong.experiment.results import read_summary
from lifelong.experiment.run import run
from lifelong.settings.run import Environment, RunConfig


def compare(configs: list[RunConfig], out: Path, environment: Environment, progress: Progress | None = None) -> list[dict[str, Any]]:
    """Run each config into `out/<method>-seed<seed>`, continuing what was begun; returns their summaries in order.

    Raises:
        LifelongError: as `run`.
    """
    return [run(config, out / f"{config.method}-seed{config.seed}", environment, progress) for config in configs]


def read_summaries(paths: list[Path]) -> list[dict[str, Any]]:
    """The summaries of run directories, in order and each once; a folder of run directories stands for all of them, sorted by name.

    Raises:
        LifelongError: a path holds neither.
    """
    runs: dict[Path, Path] = {}
    for path in paths:
        inner = sorted(file.parent for file in Path(path).glob("*/summary.json"))
        runs |= {run.resolve(): run for run in (inner or [Path(path)])}
    return [read_summary(run) for run in runs.values()]
