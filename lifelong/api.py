"""The Python interface: the commands of the command line as functions.

Nothing heavy is imported before a configuration has been checked, so that a misspelled setting is reported at once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from lifelong.catalog import describe_method, describe_stream, list_methods, list_streams, open_stream, preview_stream
from lifelong.configuration import DEFAULT_METHODS, comparison, configure, configured, default_out, to_tune, transfers
from lifelong.data.stream_like import StreamObjects, TaskObject
from lifelong.settings.arguments import Count, Place, Seconds, Seed, Share, Workers, checked
from lifelong.settings.run import Environment, EnvironmentOptions, Preset, environment_of, split_options
from lifelong.settings.transfer import DEFAULT_STRATEGIES, Strategy
from lifelong.starting import (
    measure,
    start,
    start_comparison,
    start_estimates,
    start_learning,
    start_learning_estimate,
    start_transfer,
)

if TYPE_CHECKING:
    from lifelong.experiment.observer import Observer
    from lifelong.experiment.verify import Verification
    from lifelong.records.distances import DistancesRecord
    from lifelong.records.estimate import EstimateRecord
    from lifelong.records.run import RunRecord
    from lifelong.records.transfer import TransferRecord

__all__ = [
    "DEFAULT_METHODS",
    "Environment",
    "compare",
    "comparison",
    "configure",
    "configured",
    "default_out",
    "describe_method",
    "describe_stream",
    "distances",
    "estimate",
    "estimate_learning",
    "finished",
    "learn",
    "list_methods",
    "list_streams",
    "measure",
    "open_stream",
    "preview_stream",
    "run",
    "start",
    "start_comparison",
    "start_estimates",
    "start_learning",
    "start_learning_estimate",
    "start_transfer",
    "to_tune",
    "transfer",
    "transfers",
    "tune",
    "verify",
]


@checked
def run(
    stream: Place | StreamObjects | None = None,
    method: str | None = None,
    seed: Seed | None = None,
    *,
    out: Place | None = None,
    preset: Preset | None = None,
    config: Place | None = None,
    environment: Environment | None = None,
    progress: "bool | Observer" = True,
    **settings: object,
) -> "RunRecord":
    """Learn a stream with a method, or continue an interrupted call, and write the report.

    Args:
        stream, method, seed, preset, config: see `configure`.
        out: the run directory; by default see `default_out`.
        environment: where data, weights and the device are; by default `Environment()`.
        progress: True prints progress, False is silent; or a `lifelong.Observer`.
        settings: hyper-parameters (see `configure`), and fields of the `Environment`, which override those of `environment`.

    Returns:
        The content of ``summary.json``: `ap`, `af`, `parameters`, `accuracy`, `tasks`, ... by attribute or by key (``summary["ap"]``);
        `to_dict` gives plain values.

    Raises:
        LifelongError: an argument is not usable; the message says which, and how to fix it.
    """
    place, hyper_parameters = split_options("run", environment, settings)
    resolved = configured(stream, method, seed, preset=preset, config=config, **hyper_parameters)
    return start(resolved, Path(out) if out is not None else default_out(resolved), place, progress)


@checked
def learn(
    run: Place,
    task: str | TaskObject,
    *,
    name: str | None = None,
    environment: Environment | None = None,
    progress: "bool | Observer" = True,
    **options: Unpack[EnvironmentOptions],
) -> "RunRecord":
    """Learn one more task in a finished run, or continue an interrupted call, and rewrite the report.

    Args:
        run: the run directory.
        task: address of the task's images: ``folder:PATH`` with one folder per class, or any other source of one data set; or a task of
            `lifelong.Task.from_arrays` or `from_dataset`.
        name: name of the task; by default that of the object, or the last part of the address.
        environment, progress: see `run`.
        options: fields of the `Environment`; they override those of `environment`.

    Returns:
        The summary with the new task.

    Raises:
        LifelongError: the run is not finished or has another task of this name, or the images are not usable.
    """
    return start_learning(Path(run), task, name, environment_of("learn", environment, options), progress)


@checked
def estimate(
    stream: Place | StreamObjects | None = None,
    method: str | None = None,
    seed: Seed | None = None,
    *,
    out: Place | None = None,
    preset: Preset | None = None,
    config: Place | None = None,
    environment: Environment | None = None,
    budget: Seconds = 60.0,
    progress: "bool | Observer" = True,
    **settings: object,
) -> "EstimateRecord":
    """Say what a run would learn and about how long it would take, from a few steps of each search and training; no run is begun.

    Nothing is written but what every command caches: decoded images, and features of a frozen network.

    Args:
        stream, method, seed, out, preset, config, environment, progress, settings: see `run`.
        budget: seconds after which the remaining tasks are estimated by their numbers of images; the first is always measured.

    Returns:
        `seconds`, between `lowest` and `highest`, `parameters`, `bytes`, `peak_memory_bytes`, `checks`, `stops` (why the run would not
        start), and `tasks` with all of this for each.

    Raises:
        LifelongError: an argument is not usable, or images or weights are missing.
    """
    place, hyper_parameters = split_options("estimate", environment, settings)
    resolved = configured(stream, method, seed, preset=preset, config=config, **hyper_parameters)
    return start_estimates([resolved], [Path(out) if out is not None else default_out(resolved)], place, progress, budget)[0]


@checked
def estimate_learning(
    run: Place,
    task: str | TaskObject,
    *,
    name: str | None = None,
    environment: Environment | None = None,
    progress: "bool | Observer" = True,
    **options: Unpack[EnvironmentOptions],
) -> "EstimateRecord":
    """Say about how long `learn` with these arguments would take; the run is only read.

    Args:
        run, task, name, environment, progress, options: see `learn`.

    Raises:
        LifelongError: the run is not finished, or the images are not usable.
    """
    return start_learning_estimate(Path(run), task, name, environment_of("estimate_learning", environment, options), progress)


@checked
def tune(
    stream: Place | StreamObjects | None = None,
    method: str | None = None,
    seed: Seed | None = None,
    *,
    grid: str | Mapping[str, Any] | None = None,
    tolerance: Share | None = None,
    trials: Count | None = None,
    out: Place | None = None,
    preset: Preset | None = None,
    config: Place | None = None,
    environment: Environment | None = None,
    engine: str = "local",
    progress: "bool | Observer" = True,
    **settings: object,
) -> "RunRecord":
    """Learn a stream, tuning hyper-parameters for each task on its own validation images; the same call continues it.

    Args:
        stream, method, seed, preset, config: see `configure`.
        grid: values to try, in order: ``"lr=0.01,0.1 penalty_weight=1,10"``, or a dict of lists; None: taken from the file `config`.
        tolerance: the first candidate at most this much less accurate than the best is chosen; in [0, 1), by default 0.
        trials: number of candidates per task, which Optuna proposes from the values and ranges (``"lr=0.001..0.1"``) of the grid; by
            default 0: every combination.
        engine: see `compare`.
        out, environment, progress, settings: see `run`.

    Returns:
        As `run`. `tuning` has the cost, and each of `tasks` has its own `tuning`: all candidates, and the chosen one.

    Raises:
        LifelongError: an argument is not usable; the message says which, and how to fix it.
    """
    place, hyper_parameters = split_options("tune", environment, settings)
    chosen: dict[str, Any] = {"grid": grid, "tolerance": tolerance, "trials": trials, **hyper_parameters}
    resolved = to_tune(configured(stream, method, seed, preset=preset, config=config, **chosen))
    return start(resolved, Path(out) if out is not None else default_out(resolved), place, progress, engine=engine)


@checked
def compare(
    stream: Place | StreamObjects | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    seeds: Sequence[Seed] = (0,),
    *,
    out: Place | None = None,
    preset: Preset | None = None,
    config: Place | None = None,
    environment: Environment | None = None,
    workers: Workers = 1,
    engine: str = "local",
    progress: "bool | Observer" = True,
    **settings: object,
) -> "list[RunRecord]":
    """Run several methods and seeds on one stream, each in its own folder below `out`, and write the comparison.

    Args:
        stream, preset, config, environment, progress: see `run`.
        methods: names of methods.
        seeds: random seeds; every method runs once per seed.
        out: the folder of the comparison; by default ``runs/<stream>-compare``.
        workers: number of parallel runs, each in its own process, which imports the calling program again: put the call under
            ``if __name__ == "__main__":``. Unless `threads` is given, they share the cores.
        engine: what carries out the runs: "local" (this machine), "ray", "ray:ADDRESS", "slurm", "slurm:FILE", or one added by
            `register_engine`.
        settings: see `run`; a hyper-parameter applies to the methods that have it.

    Returns:
        The summaries of the runs, method by method.

    Raises:
        LifelongError: an argument is not usable, or runs have failed; one that fails does not stop the others.
    """
    place, hyper_parameters = split_options("compare", environment, settings)
    configs = comparison(stream, methods, seeds, preset=preset, config=config, **hyper_parameters)
    folder = Path(out) if out is not None else default_out(configs[0], "compare")
    return start_comparison(configs, folder, place, progress, workers, engine)


@checked
def finished(runs: Sequence[Place], out: Place | None = None) -> "list[RunRecord]":
    """Read the summaries of finished runs, and write their comparison if `out` is given.

    Args:
        runs: run directories.
        out: folder for the comparison's report; None: nothing is written.

    Raises:
        LifelongError: a folder holds no run, or a copy of another.
    """
    from lifelong.experiment.compare import read_summaries, run_directories
    from lifelong.report.comparison import write_comparison
    from lifelong.report.runs import check_distinct

    folders = run_directories([Path(run) for run in runs])
    summaries = read_summaries(folders)
    check_distinct(dict(zip(map(str, folders), summaries, strict=True)))
    if out is not None:
        from lifelong.training.process import as_found

        with as_found():
            write_comparison(Path(out), summaries)
    return summaries


@checked
def verify(
    run: Place,
    *,
    judge: bool = False,
    repair: bool = False,
    environment: Environment | None = None,
    **options: Unpack[EnvironmentOptions],
) -> "Verification":
    """Check that a run directory is what was written: the digest of every file, the configuration against the run's identity, all numbers
    that can be derived again, and the weights against the record of their judging.

    Args:
        run: the run directory; it is only read, unless `repair` is given.
        judge: also judge every task again from its test images, as far as these are here.
        repair: first put the last good state in place, write anew what follows from it, and drop what is computed again.
        environment, options: see `learn`; to judge.

    Returns:
        "sound", whether all is well, "files" with the condition of each, "judged", and "repaired", what was repaired.

    Raises:
        LifelongError: the folder holds no run, or another version's; or, to repair, another process is running in it.
    """
    place = environment_of("verify", environment, options)
    from lifelong.experiment.verify import verify as verify_run

    return verify_run(Path(run), place, judge=judge, repair=repair)


@checked
def distances(
    stream: Place | StreamObjects | None = None,
    seed: Seed | None = None,
    *,
    out: Place | None = None,
    preset: Preset | None = None,
    config: Place | None = None,
    environment: Environment | None = None,
    progress: "bool | Observer" = True,
    **settings: object,
) -> "DistancesRecord":
    """Measure how far each task of a stream is from earlier ones, and what PAR would decide; nothing is trained.

    Args:
        stream, seed, preset, config, environment, progress: see `run`.
        out: folder for ``distances.json`` and the heat map ``distances.png``; by default ``runs/<stream>-distances-seed<seed>``.
        settings: hyper-parameters of PAR; and fields of the `Environment`, as in `run`.

    Returns:
        `tasks` (names), `divergences` (row i, column j: of task i from the earlier task j, Eq. 4), `decisions`, ...

    Raises:
        LifelongError: an argument is not usable.
    """
    place, hyper_parameters = split_options("distances", environment, settings)
    resolved = configured(stream, "par", seed, preset=preset, config=config, **hyper_parameters)
    return measure(resolved, Path(out) if out is not None else default_out(resolved, "distances"), place, progress)


@checked
def transfer(
    stream: Place | StreamObjects | None = None,
    seeds: Sequence[Seed] = (0,),
    *,
    strategies: Sequence[Strategy] = DEFAULT_STRATEGIES,
    measures: Sequence[str] | None = None,
    out: Place | None = None,
    preset: Preset | None = None,
    config: Place | None = None,
    environment: Environment | None = None,
    progress: "bool | Observer" = True,
    **settings: Any,
) -> "TransferRecord":
    """Learn every ordered pair of a stream's tasks, and see how well distances predict what is gained; the same call continues it.

    Args:
        stream, preset, config, environment, progress: see `run`.
        seeds: random seeds; everything is measured once with each.
        strategies: how a task is learned with the help of another's expert: "share" it by distillation, "fine-tune" a copy of it, train a
            "head" on it, or train a new expert of its "cell". Rules that share do so by the first.
        measures: names of measures of relatedness; by default all that can be computed.
        out: folder for ``transfer.json``, ``transfer.csv``, ``transfer.html`` and what was trained; by default
            ``runs/<stream>-transfer``.
        settings: hyper-parameters of PAR and of training; and fields of the `Environment`, as in `run`.

    Returns:
        `seeds` with all pairs, `agreement` (Kendall's tau of each measure with the gains), `rules` (their regret against an oracle), ...

    Raises:
        LifelongError: an argument is not usable.
    """
    place, hyper_parameters = split_options("transfer", environment, settings)
    configs = transfers(stream, seeds, strategies, measures, preset=preset, config=config, **hyper_parameters)
    folder = Path(out) if out is not None else default_out(configs[0], "transfer")
    return start_transfer(configs, strategies, measures, folder, place, progress)
