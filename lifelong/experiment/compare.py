"""Run several methods and seeds over one stream, each in its own run directory."""

from pathlib import Path

from lifelong.experiment.derived import known_summary
from lifelong.experiment.observer import Observer
from lifelong.experiment.sweep import sweep
from lifelong.records.run import RunRecord
from lifelong.settings.run import Environment, RunConfig


def compare(
    configs: list[RunConfig], out: Path, environment: Environment, progress: Observer | None = None, workers: int = 1, engine: str = "local"
) -> list[RunRecord]:
    """Run each config into `out/<method>-seed<seed>`, continuing interrupted runs; return their summaries in order.

    Args:
        configs: the runs' configurations.
        out: the folder of the comparison.
        environment: where data, weights and the device are.
        progress: observer of the runs; None: no one.
        workers: number of runs in parallel.
        engine: name of the engine that carries them out; see `lifelong.experiment.engine`.

    Raises:
        SweepError: runs have failed; see `lifelong.experiment.sweep`.
    """
    listener = progress or Observer()

    def begin(position: int) -> Observer:
        in_turn = (workers, engine) == (1, "local")
        return listener if in_turn else listener.beside(f"{configs[position].method}, seed {configs[position].seed}")

    planned = [(config, out / f"{config.method}-seed{config.seed}") for config in configs]
    summaries = dict(sweep(planned, environment, workers, begin, engine, tell=listener.note))
    return [summaries[position] for position in range(len(configs))]


def read_summaries(paths: list[Path]) -> list[RunRecord]:
    """Return the summaries of run directories, as `run_directories` finds them.

    Raises:
        LifelongError: a path holds no summary, or one that contradicts its run.
    """
    return [known_summary(run) for run in run_directories(paths)]


def run_directories(paths: list[Path]) -> list[Path]:
    """Return run directories in order, each once; a folder of run directories stands for all of them, sorted by name."""
    runs: dict[Path, Path] = {}
    for path in paths:
        inner = sorted(file.parent for file in Path(path).glob("*/summary.json"))
        runs |= {run.resolve(): run for run in (inner or [Path(path)])}
    return list(runs.values())
