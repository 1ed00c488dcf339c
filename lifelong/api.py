"""The Python interface: the commands of the command line as functions.

Nothing heavy is imported before a configuration has been checked, so that a misspelled setting is reported at once.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.catalog import describe_method, describe_stream, list_methods, list_streams, open_stream, preview_stream
from lifelong.errors import LifelongError
from lifelong.methods.registry import known_methods, method_entry
from lifelong.opening import read_toml
from lifelong.places import Device, Place, environment
from lifelong.settings.arguments import Count, Seconds, Seed, Share, Threads, Workers, checked
from lifelong.settings.resolve import resolve
from lifelong.settings.run import Environment, Preset, RunConfig

if TYPE_CHECKING:
    from lifelong.experiment.verify import Verification
    from lifelong.records.distances import DistancesRecord
    from lifelong.records.run import RunRecord

__all__ = [
    "DEFAULT_METHODS",
    "compare",
    "comparison",
    "configure",
    "default_out",
    "describe_method",
    "describe_stream",
    "distances",
    "environment",
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
    "to_tune",
    "tune",
    "verify",
]

DEFAULT_METHODS = ("par", "finetune", "independent")
"""The methods that `compare` compares by default: PAR, and the lower and upper bounds."""


@checked
def configure(
    stream: Place | None = None,
    method: str | None = None,
    seed: Seed | None = None,
    *,
    preset: Preset | None = None,
    config: Place | None = None,
    compared: Sequence[str] = (),
    **hyper_parameters: Any,
) -> RunConfig:
    """Resolve the configuration of a run: defaults, then the preset, then the file `config`, then the arguments.

    Args:
        stream: name of a stream, or path of its TOML file.
        method: name of a registered method; by default "par".
        seed: random seed; by default 0.
        preset: "paper" (default), "authors-code" or "quick".
        config: a flat TOML file with any of these and of the hyper-parameters.
        compared: methods that run with the same hyper-parameters; those that only they have are ignored.
        hyper_parameters: settings of the method and of training by name, such as ``epochs=10``; also those of tuning (see `tune`).

    Raises:
        LifelongError: a setting, a name or a value is not valid.
    """
    return configured(stream, method, seed, preset=preset, config=config, compared=compared, **hyper_parameters)


def configured(
    stream: Place | None = None,
    method: str | None = None,
    seed: int | None = None,
    *,
    preset: str | None = None,
    config: Place | None = None,
    compared: Sequence[str] = (),
    **hyper_parameters: Any,
) -> RunConfig:
    """Do the same as `configure` for command-line flags: error messages name the flag."""
    return resolve(
        None if stream is None else str(stream),
        method,
        seed,
        preset,
        None if config is None else Path(config),
        hyper_parameters,
        methods={name: entry.settings for name, entry in known_methods().items()},
        compared=compared,
    )


def default_out(config: RunConfig, kind: str | None = None) -> Path:
    """Return the default folder: ``runs/<stream>-<method>-seed<seed>``, or ``runs/<stream>-compare`` for a comparison.

    A tuned run has ``-tuned`` after its method.

    Args:
        config: configuration of the run.
        kind: "compare" or "distances" for these commands; None for a run of one method.
    """
    where, mark, options = config.stream.partition("?")
    place = where.partition(":")[2] or where
    last = place if where.startswith("hub:") else Path(place).name
    stream = last.removesuffix(".toml").removesuffix(".csv") + (mark + options if where == place else "")
    # Earlier versions dropped a file's options, and everything after the last dot of a folder's name.
    whole = config.stream if where == place else place
    earlier = whole if where.startswith("hub:") else Path(whole).stem
    seed = "" if kind == "compare" else f"-seed{config.seed}"
    method = config.method if config.tuning is None else f"{config.method}-tuned"
    folder, before = (Path("runs") / f"{_plain(name)}-{kind or method}{seed}" for name in (stream, earlier))
    return before if not folder.exists() and _holds(before, config.stream) else folder


def _plain(words: str) -> str:
    """Turn user input into a safe part of a path."""
    return re.sub(r"[^\w.-]+", "-", words).strip(".-") or "stream"


def _holds(folder: Path, stream: str) -> bool:
    """Tell whether a folder holds a run of a stream, or a comparison on it."""
    for file in [folder / "config.toml", *sorted(folder.glob("*/config.toml"))]:
        try:
            return read_toml(file).get("stream") == stream
        except (OSError, ValueError):
            continue
    return False


@checked
def run(
    stream: Place | None = None,
    method: str | None = None,
    seed: Seed | None = None,
    *,
    out: Place | None = None,
    preset: Preset | None = None,
    config: Place | None = None,
    data: Place | None = None,
    weights: Place | None = None,
    device: Device = "auto",
    download: bool = False,
    threads: Threads = 0,
    save_every: Seconds = 5.0,
    skip_broken: bool = False,
    tensorboard: bool = False,
    observe: Sequence[str] = (),
    progress: Any = True,
    **hyper_parameters: Any,
) -> "RunRecord":
    """Learn a stream with a method, or continue an interrupted call, and write the report.

    Args:
        stream, method, seed, preset, config, hyper_parameters: see `configure`.
        out: the run directory; by default see `default_out`.
        data: folder with one folder per image source.
        weights: file with the weights of the feature extractor.
        device: "cpu", "cuda" (first GPU), "cuda:1" (second GPU), "mps" (Apple GPU), or "auto" (the first available of cuda, mps and
            cpu).
        download: download missing images and weights from the Hugging Face Hub.
        threads: CPU threads; 0: chosen automatically.
        save_every: seconds between saves of the computation in progress.
        skip_broken: skip unusable images instead of failing.
        tensorboard: also write event files, to ``tensorboard`` in `out`; needs the extra ``lifelong[tensorboard]``.
        observe: names of observers that are told how far the run has come: "tensorboard", "wandb", "mlflow", and those added by
            `register_observer`.
        progress: True prints progress, False is silent; or a `lifelong.Observer`.

    Returns:
        The content of ``summary.json``: `ap`, `af`, `parameters`, `accuracy`, `tasks`, ... by attribute or by key (``summary["ap"]``);
        `to_dict` gives plain values.

    Raises:
        LifelongError: an argument is not usable; the message says which, and how to fix it.
    """
    resolved = configured(stream, method, seed, preset=preset, config=config, **hyper_parameters)
    folder = Path(out) if out is not None else default_out(resolved)
    return start(
        resolved, folder, environment(data, weights, device, download, threads, save_every, skip_broken, tensorboard, observe), progress
    )


@checked
def learn(
    run: Place,
    task: str,
    *,
    name: str | None = None,
    data: Place | None = None,
    weights: Place | None = None,
    device: Device = "auto",
    download: bool = False,
    threads: Threads = 0,
    save_every: Seconds = 5.0,
    skip_broken: bool = False,
    tensorboard: bool = False,
    observe: Sequence[str] = (),
    progress: Any = True,
) -> "RunRecord":
    """Learn one more task in a finished run, or continue an interrupted call, and rewrite the report.

    Args:
        run: the run directory.
        task: address of the task's images: ``folder:PATH`` with one folder per class, or any other source of one data set.
        name: name of the task; by default the last part of its address.
        data, weights, device, download, threads, save_every, skip_broken, tensorboard, observe, progress: see `run`.

    Returns:
        The summary with the new task.

    Raises:
        LifelongError: the run is not finished or has another task of this name, or the images are not usable.
    """
    place = environment(data, weights, device, download, threads, save_every, skip_broken, tensorboard, observe)
    return start_learning(Path(run), task, name, place, progress)


def start_learning(run: Path, task: str, name: str | None, place: Environment, progress: Any = True) -> "RunRecord":
    """Run `learn` with resolved arguments."""
    from lifelong.training.process import alone

    with alone("learn"):  # imports draw random numbers, too
        from lifelong.experiment.continuing import learn_more
        from lifelong.report.html import write_report

        with _listener(progress) as listener:
            summary = learn_more(run, task, place, listener, name=name)
            write_report(run, summary)
    return summary


@checked
def tune(
    stream: Place | None = None,
    method: str | None = None,
    seed: Seed | None = None,
    *,
    grid: str | Mapping[str, Any] | None = None,
    tolerance: Share | None = None,
    trials: Count | None = None,
    out: Place | None = None,
    preset: Preset | None = None,
    config: Place | None = None,
    data: Place | None = None,
    weights: Place | None = None,
    device: Device = "auto",
    download: bool = False,
    threads: Threads = 0,
    save_every: Seconds = 5.0,
    skip_broken: bool = False,
    tensorboard: bool = False,
    observe: Sequence[str] = (),
    progress: Any = True,
    **hyper_parameters: Any,
) -> "RunRecord":
    """Learn a stream, tuning hyper-parameters for each task on its own validation images; the same call continues it.

    Args:
        stream, method, seed, preset, config, hyper_parameters: see `configure`.
        grid: values to try, in order: ``"lr=0.01,0.1 penalty_weight=1,10"``, or a dict of lists; None: taken from the file `config`.
        tolerance: the first candidate at most this much less accurate than the best is chosen; in [0, 1), by default 0.
        trials: number of candidates per task, which Optuna proposes from the values and ranges (``"lr=0.001..0.1"``) of the grid; by
            default 0: every combination.
        out, data, weights, device, download, threads, save_every, skip_broken, tensorboard, observe, progress: see `run`.

    Returns:
        As `run`. `tuning` has the cost, and each of `tasks` has its own `tuning`: all candidates, and the chosen one.

    Raises:
        LifelongError: an argument is not usable; the message says which, and how to fix it.
    """
    chosen: dict[str, Any] = {"grid": grid, "tolerance": tolerance, "trials": trials, **hyper_parameters}
    resolved = to_tune(configured(stream, method, seed, preset=preset, config=config, **chosen))
    folder = Path(out) if out is not None else default_out(resolved)
    return start(
        resolved, folder, environment(data, weights, device, download, threads, save_every, skip_broken, tensorboard, observe), progress
    )


def to_tune(config: RunConfig) -> RunConfig:
    """Return the configuration if it tunes something.

    Raises:
        LifelongError: there is nothing to tune.
    """
    if config.tuning is None:
        raise LifelongError('nothing to tune: give --grid "KEY=VALUE,VALUE,...", such as --grid "lr=0.01,0.1"')
    return config


def start(config: RunConfig, out: Path, place: Environment, progress: Any = True) -> "RunRecord":
    """Run `run` or `tune` with resolved arguments."""
    from lifelong.training.process import alone

    with alone("run" if config.tuning is None else "tune"):  # imports draw random numbers, too
        from lifelong.experiment.run import run as run_experiment
        from lifelong.report.html import write_report

        with _listener(progress) as listener:
            summary = run_experiment(config, out, place, listener)
            write_report(out, summary)
    return summary


@checked
def compare(
    stream: Place | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    seeds: Sequence[Seed] = (0,),
    *,
    out: Place | None = None,
    preset: Preset | None = None,
    config: Place | None = None,
    data: Place | None = None,
    weights: Place | None = None,
    device: Device = "auto",
    download: bool = False,
    threads: Threads = 0,
    save_every: Seconds = 5.0,
    skip_broken: bool = False,
    workers: Workers = 1,
    progress: Any = True,
    **hyper_parameters: Any,
) -> "list[RunRecord]":
    """Run several methods and seeds on one stream, each in its own folder below `out`, and write the comparison.

    Args:
        stream, preset, config, data, weights, device, download, threads, save_every, skip_broken, progress: see `run`.
        methods: names of methods.
        seeds: random seeds; every method runs once per seed.
        out: the folder of the comparison; by default ``runs/<stream>-compare``.
        workers: number of parallel runs, each in its own process, which imports the calling program again: put the call under
            ``if __name__ == "__main__":``. Unless `threads` is given, they share the cores.
        hyper_parameters: see `configure`; each applies to the methods that have it.

    Returns:
        The summaries of the runs, method by method.

    Raises:
        LifelongError: an argument is not usable.
    """
    configs = comparison(stream, methods, seeds, preset=preset, config=config, **hyper_parameters)
    folder = Path(out) if out is not None else default_out(configs[0], "compare")
    place = environment(data, weights, device, download, threads, save_every, skip_broken)
    return start_comparison(configs, folder, place, progress, workers)


def comparison(stream: Place | None, methods: Sequence[str], seeds: Sequence[int], **settings: Any) -> list[RunConfig]:
    """Resolve the configurations of a comparison, method by method; all are checked before anything runs.

    Raises:
        LifelongError: a method or a seed is missing or repeated, or a setting is not valid.
    """
    for name, values in (("methods", methods), ("seeds", seeds)):
        if not values or len(set(values)) != len(values):
            raise LifelongError(f"--{name} {','.join(map(str, values))}: give at least one, and none twice")
    for method in methods:
        method_entry(method)
    return [configured(stream, method, seed, compared=methods, **settings) for method in methods for seed in seeds]


def start_comparison(configs: list[RunConfig], out: Path, place: Environment, progress: Any = True, workers: int = 1) -> "list[RunRecord]":
    """Run `compare` with resolved arguments."""
    from lifelong.training.process import alone

    with alone("compare"):  # imports draw random numbers, too
        from lifelong.experiment.compare import compare as compare_experiments
        from lifelong.report.comparison import write_comparison
        from lifelong.report.html import write_report

        with _listener(progress) as listener:
            summaries = compare_experiments(configs, out, place, listener, workers)
            for one, summary in zip(configs, summaries, strict=True):
                write_report(out / f"{one.method}-seed{one.seed}", summary)
            write_comparison(out, summaries)
    return summaries


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
    data: Place | None = None,
    device: Device = "auto",
    download: bool = False,
    threads: Threads = 0,
    skip_broken: bool = False,
) -> "Verification":
    """Check that a run directory is what was written: the digest of every file, the configuration against the run's identity, all numbers
    that can be derived again, and the weights against the record of their judging.

    Args:
        run: the run directory; it is only read, unless `repair` is given.
        judge: also judge every task again from its test images, as far as these are here.
        repair: first put the last good state in place, write anew what follows from it, and drop what is computed again.
        data, device, download, threads, skip_broken: see `run`; to judge.

    Returns:
        "sound", whether all is well, "files" with the condition of each, "judged", and "repaired", what was repaired.

    Raises:
        LifelongError: the folder holds no run, or another version's; or, to repair, another process is running in it.
    """
    from lifelong.experiment.verify import verify as verify_run

    place = environment(data, None, device, download, threads, 5.0, skip_broken)
    return verify_run(Path(run), place, judge=judge, repair=repair)


@checked
def distances(
    stream: Place | None = None,
    seed: Seed | None = None,
    *,
    out: Place | None = None,
    preset: Preset | None = None,
    config: Place | None = None,
    data: Place | None = None,
    weights: Place | None = None,
    device: Device = "auto",
    download: bool = False,
    threads: Threads = 0,
    save_every: Seconds = 5.0,
    skip_broken: bool = False,
    progress: Any = True,
    **hyper_parameters: Any,
) -> "DistancesRecord":
    """Measure how far each task of a stream is from earlier ones, and what PAR would decide; nothing is trained.

    Args:
        stream, seed, preset, config, data, weights, device, download, threads, save_every, skip_broken, progress: see `run`.
        out: folder for ``distances.json`` and the heat map ``distances.png``; by default ``runs/<stream>-distances-seed<seed>``.
        hyper_parameters: settings of PAR.

    Returns:
        `tasks` (names), `divergences` (row i, column j: of task i from the earlier task j, Eq. 4), `decisions`, ...

    Raises:
        LifelongError: an argument is not usable.
    """
    resolved = configured(stream, "par", seed, preset=preset, config=config, **hyper_parameters)
    folder = Path(out) if out is not None else default_out(resolved, "distances")
    return measure(resolved, folder, environment(data, weights, device, download, threads, save_every, skip_broken), progress)


def measure(config: RunConfig, out: Path, place: Environment, progress: Any = True) -> "DistancesRecord":
    """Run `distances` with resolved arguments."""
    import json

    from lifelong.training.process import as_found

    with as_found():  # imports draw random numbers, too
        from lifelong.experiment.distances import distances as measure_distances
        from lifelong.report.figures import divergence_heatmap
        from lifelong.storage import write_text

        with _listener(progress) as listener:
            result = measure_distances(config.stream, config.seed, config.settings, place, listener)
            write_text(out / "distances.json", json.dumps(result.to_dict(), indent=1) + "\n")
            divergence_heatmap(result, out / "distances.png")
    return result


def _listener(progress: Any) -> Any:
    """Return the requested progress listener."""
    from lifelong.experiment.observer import Observer
    from lifelong.experiment.progress import ConsoleProgress

    if isinstance(progress, Observer):
        return progress
    if not isinstance(progress, bool):
        raise LifelongError(f"progress = {progress!r}: expected true or false, or a lifelong.Observer")
    return ConsoleProgress() if progress else Observer()
