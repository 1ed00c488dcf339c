"""The Python interface: the same commands as on the command line, as functions.

Nothing heavy is imported before a configuration has been checked, so that a misspelt setting is answered at once.
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
"""What `compare` compares unless told otherwise: PAR, and the lower and upper bounds."""


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
    """The configuration of a run: defaults, then the preset, then the file `config`, then what is given here.

    Args:
        stream: a stream's name, or the path of its TOML file.
        method: a registered method's name; by default "par".
        seed: of every random number; by default 0.
        preset: "paper" (default), "authors-code" or "quick".
        config: a flat TOML file with any of these and of the hyper-parameters.
        compared: methods that run with the same hyper-parameters: one that only they have is passed over.
        hyper_parameters: settings of the method and of training by name, such as ``epochs=10``; and what is tuned (see `tune`).

    Raises:
        LifelongError: a setting, a name or a value is not accepted.
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
    """As `configure`, for what flags gave: complaints name the flag."""
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
    """The folder for what names none: ``runs/<stream>-<method>-seed<seed>``; of a comparison ``runs/<stream>-compare``.

    A tuned run has ``-tuned`` after its method.

    Args:
        config: of the run.
        kind: "compare" or "distances", for what is no run of one method.
    """
    where, mark, options = config.stream.partition("?")
    place = where.partition(":")[2] or where
    last = place if where.startswith("hub:") else Path(place).name
    stream = last.removesuffix(".toml").removesuffix(".csv") + (mark + options if where == place else "")
    # Earlier versions left out a file's options, and of a folder's name what stands behind its last dot.
    whole = config.stream if where == place else place
    earlier = whole if where.startswith("hub:") else Path(whole).stem
    seed = "" if kind == "compare" else f"-seed{config.seed}"
    method = config.method if config.tuning is None else f"{config.method}-tuned"
    folder, before = (Path("runs") / f"{_plain(name)}-{kind or method}{seed}" for name in (stream, earlier))
    return before if not folder.exists() and _holds(before, config.stream) else folder


def _plain(words: str) -> str:
    """What a person typed as a part of a path of ours."""
    return re.sub(r"[^\w.-]+", "-", words).strip(".-") or "stream"


def _holds(folder: Path, stream: str) -> bool:
    """Whether a folder holds a run of a stream, or a comparison on it."""
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
) -> dict[str, Any]:
    """Learn a stream with a method, or go on where the same call stopped, and write its report.

    Args:
        stream, method, seed, preset, config, hyper_parameters: see `configure`.
        out: the run directory; by default see `default_out`.
        data: folder with one folder per image source.
        weights: file with the weights of the feature extractor.
        device: where to compute: "cpu", "cuda" (the first GPU), "cuda:1" (the second), "mps" (Apple's), or "auto": the first there
            is of cuda, mps and cpu.
        download: fetch missing images and weights from the hub.
        threads: of the processor; 0 lets the library choose.
        save_every: seconds between two saves of the computation under way.
        skip_broken: leave out images that cannot be used, instead of failing.
        tensorboard: write event files too, into the folder ``tensorboard`` of `out`; needs the extra ``lifelong[tensorboard]``.
        observe: names of observers that are told how far the run has come: "tensorboard", "wandb", "mlflow", and those that
            `register_observer` has added.
        progress: True prints it, False is silent; or a `lifelong.Observer`.

    Returns:
        The content of ``summary.json``: "ap", "af", "parameters", "accuracy", "tasks", ...

    Raises:
        LifelongError: something given cannot be used; the message says what and how to mend it.
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
) -> dict[str, Any]:
    """Learn one more task in a finished run, or go on where the same call stopped, and write its report anew.

    Args:
        run: the run directory.
        task: where the images of the task are: ``folder:PATH`` with a folder for each class, or any other source of one data set.
        name: of the task; by default the last part of its address.
        data, weights, device, download, threads, save_every, skip_broken, tensorboard, observe, progress: see `run`.

    Returns:
        The summary with the new task.

    Raises:
        LifelongError: the run is not finished, has another task of this name, or the images cannot be used.
    """
    place = environment(data, weights, device, download, threads, save_every, skip_broken, tensorboard, observe)
    return start_learning(Path(run), task, name, place, progress)


def start_learning(run: Path, task: str, name: str | None, place: Environment, progress: Any = True) -> dict[str, Any]:
    """What `learn` does once everything is decided."""
    from lifelong.training.process import alone

    with alone("learn"):  # what is imported draws random numbers, too
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
) -> dict[str, Any]:
    """A run whose hyper-parameters are chosen for each task by its own validation images; the same call continues it.

    Args:
        stream, method, seed, preset, config, hyper_parameters: see `configure`.
        grid: what is tried, in order: ``"lr=0.01,0.1 penalty_weight=1,10"``, or a dict of lists; None: the file `config` says it.
        tolerance: the first candidate is taken that is at most this much less accurate than the best; in [0, 1), by default 0.
        trials: candidates per task that Optuna proposes from the values and ranges (``"lr=0.001..0.1"``) of the grid; by default 0:
            every combination.
        out, data, weights, device, download, threads, save_every, skip_broken, tensorboard, observe, progress: see `run`.

    Returns:
        As `run`; "tuning" has the cost, and each of "tasks" its own "tuning": all candidates, and which was chosen.

    Raises:
        LifelongError: something given cannot be used; the message says what and how to mend it.
    """
    chosen: dict[str, Any] = {"grid": grid, "tolerance": tolerance, "trials": trials, **hyper_parameters}
    resolved = to_tune(configured(stream, method, seed, preset=preset, config=config, **chosen))
    folder = Path(out) if out is not None else default_out(resolved)
    return start(
        resolved, folder, environment(data, weights, device, download, threads, save_every, skip_broken, tensorboard, observe), progress
    )


def to_tune(config: RunConfig) -> RunConfig:
    """The same configuration.

    Raises:
        LifelongError: it has nothing to choose from.
    """
    if config.tuning is None:
        raise LifelongError('nothing to choose from: give --grid "KEY=VALUE,VALUE,...", such as --grid "lr=0.01,0.1"')
    return config


def start(config: RunConfig, out: Path, place: Environment, progress: Any = True) -> dict[str, Any]:
    """What `run` does once everything is decided."""
    from lifelong.training.process import alone

    with alone("run" if config.tuning is None else "tune"):  # what is imported draws random numbers, too
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
) -> list[dict[str, Any]]:
    """Run several methods and seeds over one stream, each into its own folder below `out`, and write the comparison.

    Args:
        stream, preset, config, data, weights, device, download, threads, save_every, skip_broken, progress: see `run`.
        methods: names of methods.
        seeds: one run of every method for each.
        out: the folder of the comparison; by default ``runs/<stream>-compare``.
        workers: runs that go on at once, each in a process of its own, which imports the calling program anew: put its work under
            ``if __name__ == "__main__":``. Without a number of threads they share the cores.
        hyper_parameters: see `configure`; each goes to the methods that have it.

    Returns:
        The summaries of the runs, method by method.

    Raises:
        LifelongError: something given cannot be used.
    """
    configs = comparison(stream, methods, seeds, preset=preset, config=config, **hyper_parameters)
    folder = Path(out) if out is not None else default_out(configs[0], "compare")
    place = environment(data, weights, device, download, threads, save_every, skip_broken)
    return start_comparison(configs, folder, place, progress, workers)


def comparison(stream: Place | None, methods: Sequence[str], seeds: Sequence[int], **settings: Any) -> list[RunConfig]:
    """The configurations of a comparison, method by method; all are checked before anything runs.

    Raises:
        LifelongError: a method or a seed is missing or named twice, or a setting is not accepted.
    """
    for name, values in (("methods", methods), ("seeds", seeds)):
        if not values or len(set(values)) != len(values):
            raise LifelongError(f"--{name} {','.join(map(str, values))}: give at least one, and none twice")
    for method in methods:
        method_entry(method)
    return [configured(stream, method, seed, compared=methods, **settings) for method in methods for seed in seeds]


def start_comparison(
    configs: list[RunConfig], out: Path, place: Environment, progress: Any = True, workers: int = 1
) -> list[dict[str, Any]]:
    """What `compare` does once everything is decided."""
    from lifelong.training.process import alone

    with alone("compare"):  # what is imported draws random numbers, too
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
def finished(runs: Sequence[Place], out: Place | None = None) -> list[dict[str, Any]]:
    """The summaries of runs that were made before, and their comparison if `out` says where.

    Args:
        runs: run directories.
        out: the folder for the comparison's report; None writes nothing.

    Raises:
        LifelongError: a folder holds no run, or the copy of another.
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
        "sound", whether all is well, "files" with the condition of each, "judged", and "mended", what was repaired.

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
) -> dict[str, Any]:
    """How far each task of a stream lies from those before it, and what PAR would decide; nothing is trained.

    Args:
        stream, seed, preset, config, data, weights, device, download, threads, save_every, skip_broken, progress: see `run`.
        out: folder for ``distances.json`` and the heat map ``distances.png``; by default ``runs/<stream>-distances-seed<seed>``.
        hyper_parameters: settings of PAR.

    Returns:
        "tasks" (names), "raw" (row i, column j: distance of task i to the earlier task j, Eq. 4), "decisions", ...

    Raises:
        LifelongError: something given cannot be used.
    """
    resolved = configured(stream, "par", seed, preset=preset, config=config, **hyper_parameters)
    folder = Path(out) if out is not None else default_out(resolved, "distances")
    return measure(resolved, folder, environment(data, weights, device, download, threads, save_every, skip_broken), progress)


def measure(config: RunConfig, out: Path, place: Environment, progress: Any = True) -> dict[str, Any]:
    """What `distances` does once everything is decided."""
    import json

    from lifelong.training.process import as_found

    with as_found():  # what is imported draws random numbers, too
        from lifelong.experiment.distances import distances as measure_distances
        from lifelong.report.figures import distance_heatmap
        from lifelong.storage import write_text

        with _listener(progress) as listener:
            result = measure_distances(config.stream, config.seed, config.settings, place, listener)
            write_text(out / "distances.json", json.dumps(result, indent=1) + "\n")
            distance_heatmap(result, out / "distances.png")
    return result


def _listener(progress: Any) -> Any:
    """The listener that was asked for."""
    from lifelong.experiment.observer import Observer
    from lifelong.experiment.progress import ConsoleProgress

    if isinstance(progress, Observer):
        return progress
    if not isinstance(progress, bool):
        raise LifelongError(f"progress = {progress!r}: expected true or false, or a lifelong.Observer")
    return ConsoleProgress() if progress else Observer()
