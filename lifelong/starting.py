"""What the commands do once their arguments are resolved: run the work as a call that trains, and write its pages.

Nothing heavy is imported before that (see `lifelong.api`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.data.stream_like import TaskObject
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.transfer import Strategy

if TYPE_CHECKING:
    from lifelong.experiment.observer import Observer
    from lifelong.records.distances import DistancesRecord
    from lifelong.records.estimate import EstimateRecord
    from lifelong.records.run import RunRecord
    from lifelong.records.transfer import TransferRecord


def start_learning(
    run: Path, task: str | TaskObject, name: str | None, place: Environment, progress: "bool | Observer" = True
) -> "RunRecord":
    """Run `learn` with resolved arguments."""
    from lifelong.training.process import alone

    with alone("learn"):  # imports draw random numbers, too
        from lifelong.experiment.continuing import learn_more
        from lifelong.experiment.progress import listening
        from lifelong.report.html import write_report

        with listening(progress) as listener:
            summary = learn_more(run, task, place, listener, name=name)
            write_report(run, summary)
    return summary


def start(config: RunConfig, out: Path, place: Environment, progress: "bool | Observer" = True, engine: str = "local") -> "RunRecord":
    """Run `run` or `tune` with resolved arguments."""
    from lifelong.training.process import alone

    with alone("run" if config.tuning is None else "tune"):  # imports draw random numbers, too
        from lifelong.experiment.progress import listening
        from lifelong.experiment.run import run as run_experiment
        from lifelong.report.html import write_report

        with listening(progress) as listener:
            if engine == "local":
                summary = run_experiment(config, out, place, listener)
            else:
                from lifelong.experiment.sweep import sweep

                ((_, summary),) = sweep([(config, out)], place, 1, lambda position: listener, engine, tell=listener.note)
            write_report(out, summary)
    return summary


def start_comparison(
    configs: list[RunConfig], out: Path, place: Environment, progress: "bool | Observer" = True, workers: int = 1, engine: str = "local"
) -> "list[RunRecord]":
    """Run `compare` with resolved arguments. Where runs fail, those that are finished are compared first."""
    from lifelong.training.process import alone

    with alone("compare"):  # imports draw random numbers, too
        from lifelong.experiment.compare import compare as compare_experiments
        from lifelong.experiment.progress import listening
        from lifelong.experiment.sweep import SweepError
        from lifelong.report.comparison import write_comparison
        from lifelong.report.html import write_report

        with listening(progress) as listener:
            failed = None
            try:
                summaries = dict(enumerate(compare_experiments(configs, out, place, listener, workers, engine)))
            except SweepError as error:
                failed, summaries = error, error.summaries
            for position, summary in sorted(summaries.items()):
                write_report(out / f"{configs[position].method}-seed{configs[position].seed}", summary)
            if summaries:
                write_comparison(out, [summary for _, summary in sorted(summaries.items())])
            if failed is not None:
                raise failed
    return list(summaries.values())


def measure(config: RunConfig, out: Path, place: Environment, progress: "bool | Observer" = True) -> "DistancesRecord":
    """Run `distances` with resolved arguments."""
    import json

    from lifelong.training.process import as_found

    with as_found():  # imports draw random numbers, too
        from lifelong.experiment.distances import distances as measure_distances
        from lifelong.experiment.progress import listening
        from lifelong.report.figures import divergence_heatmap
        from lifelong.storage import write_text

        with listening(progress) as listener:
            result = measure_distances(config.stream, config.seed, config.settings, place, listener)
            write_text(out / "distances.json", json.dumps(result.to_dict(), indent=1) + "\n")
            divergence_heatmap(result, out / "distances.png")
    return result


def start_transfer(
    configs: list[RunConfig],
    strategies: Sequence[Strategy],
    measures: Sequence[str] | None,
    out: Path,
    place: Environment,
    progress: "bool | Observer" = True,
) -> "TransferRecord":
    """Run `transfer` with resolved arguments."""
    import json

    from lifelong.training.process import alone

    with alone("transfer"):  # imports draw random numbers, too
        from lifelong.experiment.progress import listening
        from lifelong.experiment.transfer import transfer as measure_transfer
        from lifelong.report.transfer import write_transfer
        from lifelong.storage import write_text

        with listening(progress) as listener:
            result = measure_transfer(configs, strategies, measures, out, place, listener)
            write_text(out / "transfer.json", json.dumps(result.to_dict(), indent=1) + "\n")
            write_transfer(out, result)
    return result


def start_estimates(
    configs: Sequence[RunConfig], outs: Sequence[Path], place: Environment, progress: "bool | Observer" = True, budget: float | None = None
) -> "list[EstimateRecord]":
    """Estimate runs, one after another, instead of carrying them out."""
    from lifelong.training.process import alone

    with alone("estimate"):  # imports draw random numbers, too
        from lifelong.experiment.estimate import BUDGET, estimate

        with listening(progress) as listener:
            return [
                estimate(config, out, place, listener, BUDGET if budget is None else budget)
                for config, out in zip(configs, outs, strict=True)
            ]


def start_learning_estimate(
    run: Path, task: str | TaskObject, name: str | None, place: Environment, progress: "bool | Observer" = True
) -> "EstimateRecord":
    """Estimate `learn` instead of carrying it out."""
    from lifelong.training.process import alone

    with alone("estimate"):  # imports draw random numbers, too
        from lifelong.experiment.estimate import estimate_learning

        with listening(progress) as listener:
            return estimate_learning(run, task, place, listener, name=name)


def listening(progress: "bool | Observer") -> "Observer":
    """Return the requested progress listener."""
    from lifelong.experiment.observer import Observer
    from lifelong.experiment.progress import ConsoleProgress

    if isinstance(progress, Observer):
        return progress
    if not isinstance(progress, bool):
        raise LifelongError(f"progress = {progress!r}: expected true or false, or a lifelong.Observer")
    return ConsoleProgress() if progress else Observer()
