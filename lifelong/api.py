"""The Python interface: the same commands as on the command line, as functions.

Nothing heavy is imported before a configuration has been checked, so that a misspelt setting is answered at once.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from lifelong.errors import LifelongError
from lifelong.methods.registry import METHODS, method_entry
from lifelong.settings.fields import Setting, expected, flag, plain, settings_of
from lifelong.settings.resolve import resolve
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.training import TrainingSettings

Device = Literal["auto", "cpu", "cuda"]
DEFAULT_METHODS = ("par", "finetune", "independent")
"""What `compare` compares unless told otherwise: PAR, and the lower and upper bounds."""

Place = str | os.PathLike[str]


def configure(
    stream: Place | None = None,
    method: str | None = None,
    seed: int | None = None,
    *,
    preset: str | None = None,
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
        hyper_parameters: settings of the method and of training by name, such as ``epochs=10``.

    Raises:
        LifelongError: a setting, a name or a value is not accepted.
    """
    return resolve(
        None if stream is None else str(stream),
        method,
        seed,
        preset,
        None if config is None else Path(config),
        hyper_parameters,
        methods={name: entry.settings for name, entry in METHODS.items()},
        compared=compared,
    )


def environment(
    data: Place | None = None,
    weights: Place | None = None,
    device: Device = "auto",
    download: bool = False,
    threads: int = 0,
    save_every: float = 5.0,
    skip_broken: bool = False,
) -> Environment:
    """Where things are; `data` and `weights` default to the variables LIFELONG_DATA and LIFELONG_WEIGHTS.

    Raises:
        LifelongError: a number is negative.
    """
    for name, value in (("threads", threads), ("save_every", save_every)):
        if not value >= 0:
            raise LifelongError(f"{flag(name)} {value}: expected a number >= 0")
    return Environment(
        data=_path(data, "LIFELONG_DATA"),
        weights=_path(weights, "LIFELONG_WEIGHTS"),
        device=device,
        download=download,
        threads=threads,
        save_every=save_every,
        skip_broken=skip_broken,
    )


def _path(given: Place | None, variable: str) -> Path | None:
    place = given if given is not None else os.environ.get(variable) or None
    return None if place is None else Path(place)


def default_out(config: RunConfig, kind: str | None = None) -> Path:
    """The folder for what names none: ``runs/<stream>-<method>-seed<seed>``; of a comparison ``runs/<stream>-compare``.

    Args:
        config: of the run.
        kind: "compare" or "distances", for what is no run of one method.
    """
    place = config.stream.partition(":")[2].partition("?")[0] or config.stream
    # What a person typed is no path of ours before it is made one.
    stream = re.sub(r"[^\w.-]+", "-", place if config.stream.startswith("hub:") else Path(place).stem).strip(".-") or "stream"
    seed = "" if kind == "compare" else f"-seed{config.seed}"
    return Path("runs") / f"{stream}-{kind or config.method}{seed}"


def run(
    stream: Place | None = None,
    method: str | None = None,
    seed: int | None = None,
    *,
    out: Place | None = None,
    preset: str | None = None,
    config: Place | None = None,
    data: Place | None = None,
    weights: Place | None = None,
    device: Device = "auto",
    download: bool = False,
    threads: int = 0,
    save_every: float = 5.0,
    skip_broken: bool = False,
    progress: Any = True,
    **hyper_parameters: Any,
) -> dict[str, Any]:
    """Learn a stream with a method, or go on where the same call stopped, and write its report.

    Args:
        stream, method, seed, preset, config, hyper_parameters: see `configure`.
        out: the run directory; by default see `default_out`.
        data: folder with one folder per image source.
        weights: file with the weights of the feature extractor.
        device: where to compute; "auto" takes CUDA where there is one.
        download: fetch missing images and weights from the hub.
        threads: of the processor; 0 lets the library choose.
        save_every: seconds between two saves of the computation under way.
        skip_broken: leave out images that cannot be used, instead of failing.
        progress: True prints it, False is silent; or a `lifelong.experiment.progress.Progress`.

    Returns:
        The content of ``summary.json``: "ap", "af", "parameters", "accuracy", "tasks", ...

    Raises:
        LifelongError: something given cannot be used; the message says what and how to mend it.
    """
    resolved = configure(stream, method, seed, preset=preset, config=config, **hyper_parameters)
    folder = Path(out) if out is not None else default_out(resolved)
    return start(resolved, folder, environment(data, weights, device, download, threads, save_every, skip_broken), progress)


def start(config: RunConfig, out: Path, place: Environment, progress: Any = True) -> dict[str, Any]:
    """What `run` does once everything is decided."""
    from lifelong.experiment.run import run as run_experiment
    from lifelong.report.html import write_report

    with _listener(progress) as listener:
        summary = run_experiment(config, out, place, listener)
    write_report(out, summary)
    return summary


def compare(
    stream: Place | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    seeds: Sequence[int] = (0,),
    *,
    out: Place | None = None,
    preset: str | None = None,
    config: Place | None = None,
    data: Place | None = None,
    weights: Place | None = None,
    device: Device = "auto",
    download: bool = False,
    threads: int = 0,
    save_every: float = 5.0,
    skip_broken: bool = False,
    progress: Any = True,
    **hyper_parameters: Any,
) -> list[dict[str, Any]]:
    """Run several methods and seeds over one stream, each into its own folder below `out`, and write the comparison.

    Args:
        stream, preset, config, data, weights, device, download, threads, save_every, skip_broken, progress: see `run`.
        methods: names of methods.
        seeds: one run of every method for each.
        out: the folder of the comparison; by default ``runs/<stream>-compare``.
        hyper_parameters: see `configure`; each goes to the methods that have it.

    Returns:
        The summaries of the runs, method by method.

    Raises:
        LifelongError: something given cannot be used.
    """
    configs = comparison(stream, methods, seeds, preset=preset, config=config, **hyper_parameters)
    folder = Path(out) if out is not None else default_out(configs[0], "compare")
    return start_comparison(configs, folder, environment(data, weights, device, download, threads, save_every, skip_broken), progress)


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
    return [configure(stream, method, seed, compared=methods, **settings) for method in methods for seed in seeds]


def start_comparison(configs: list[RunConfig], out: Path, place: Environment, progress: Any = True) -> list[dict[str, Any]]:
    """What `compare` does once everything is decided."""
    from lifelong.experiment.compare import compare as compare_experiments
    from lifelong.report.html import write_comparison, write_report

    with _listener(progress) as listener:
        summaries = compare_experiments(configs, out, place, listener)
    for one, summary in zip(configs, summaries, strict=True):
        write_report(out / f"{one.method}-seed{one.seed}", summary)
    write_comparison(out, summaries)
    return summaries


def finished(runs: Sequence[Place], out: Place | None = None) -> list[dict[str, Any]]:
    """The summaries of runs that were made before, and their comparison if `out` says where.

    Args:
        runs: run directories.
        out: the folder for the comparison's report; None writes nothing.

    Raises:
        LifelongError: a folder holds no run.
    """
    from lifelong.experiment.compare import read_summaries
    from lifelong.report.html import write_comparison

    summaries = read_summaries([Path(run) for run in runs])
    if out is not None:
        write_comparison(Path(out), summaries)
    return summaries


def distances(
    stream: Place | None = None,
    seed: int | None = None,
    *,
    out: Place | None = None,
    preset: str | None = None,
    config: Place | None = None,
    data: Place | None = None,
    weights: Place | None = None,
    device: Device = "auto",
    download: bool = False,
    threads: int = 0,
    save_every: float = 5.0,
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
    resolved = configure(stream, "par", seed, preset=preset, config=config, **hyper_parameters)
    folder = Path(out) if out is not None else default_out(resolved, "distances")
    return measure(resolved, folder, environment(data, weights, device, download, threads, save_every, skip_broken), progress)


def measure(config: RunConfig, out: Path, place: Environment, progress: Any = True) -> dict[str, Any]:
    """What `distances` does once everything is decided."""
    import json

    from lifelong.experiment.distances import distances as measure_distances
    from lifelong.report.figures import distance_heatmap
    from lifelong.storage import write_text

    with _listener(progress) as listener:
        result = measure_distances(config.stream, config.seed, config.settings, place, listener)
    write_text(out / "distances.json", json.dumps(result, indent=1) + "\n")
    distance_heatmap(result, out / "distances.png")
    return result


def open_stream(name: Place, seed: int = 0, *, data: Place | None = None, download: bool = False, skip_broken: bool = False) -> Any:
    """A stream by its name or from its TOML file.

    Args:
        name: a known stream's name, or the path of a TOML file.
        seed: of the stream's draws.
        data: folder with one folder per image source; by default the variable LIFELONG_DATA.
        download: fetch missing images from the hub.
        skip_broken: leave out images that cannot be used, instead of failing.

    Raises:
        LifelongError: there is no such stream, its file is wrong, or its images are missing.
    """
    from lifelong.data.sources import Sources
    from lifelong.streams.catalog import open_stream as open_by_name

    place = environment(data, download=download)
    return open_by_name(str(name), seed, Sources(place.data, place.download, skip_broken=skip_broken))


def list_streams() -> list[dict[str, Any]]:
    """The known streams: "name" and "text"."""
    from lifelong.streams.catalog import stream_names

    return [{"name": name, "text": text} for name, text in stream_names().items()]


def describe_stream(
    name: Place, seed: int = 0, *, data: Place | None = None, download: bool = False, skip_broken: bool = False
) -> dict[str, Any]:
    """What the tasks of a stream hold; no image is decoded.

    Args:
        name, seed, data, download, skip_broken: see `open_stream`.

    Returns:
        "name", "seed", "fingerprint", "checksum" (see `lifelong.streams.checksums`) and "tasks": for each its "name", "source",
        "licence", "classes", images per split, ...
    """
    return _described(open_stream(name, seed, data=data, download=download, skip_broken=skip_broken), seed)


def preview_stream(
    name: Place,
    out: Place,
    seed: int = 0,
    *,
    data: Place | None = None,
    download: bool = False,
    skip_broken: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Draw a contact sheet of a stream: one row a task, with images of its test split as they are evaluated.

    Args:
        name, seed, data, download, skip_broken: see `open_stream`.
        out: the PNG file; its folder is made, and a file that is there is replaced.
        progress: whether a terminal shows how far it is, on stderr.

    Returns:
        What `describe_stream` returns.

    Raises:
        LifelongError: something given cannot be used, or the file cannot be written.
    """
    from lifelong.experiment.progress import along
    from lifelong.report.contact import check_path, contact_sheet, plan
    from lifelong.streams.preview import evaluation_images

    check_path(Path(out))
    stream = open_stream(name, seed, data=data, download=download, skip_broken=skip_broken)
    described = _described(stream, seed)
    chosen = plan(described)
    images = evaluation_images(stream, chosen)
    contact_sheet(described, along(images, len(chosen)) if progress else images, Path(out))
    return described


def _described(stream: Any, seed: int) -> dict[str, Any]:
    from lifelong.streams.checksums import compare as compare_checksum

    tasks = [asdict(task) for task in stream.describe()]
    checksum = stream.checksum()
    return {
        "name": stream.name,
        "seed": seed,
        "fingerprint": stream.fingerprint(),
        "checksum": asdict(checksum) | {"verdict": compare_checksum(stream.name, seed, checksum)},
        "tasks": plain(tasks),
    }


def list_methods() -> list[dict[str, Any]]:
    """The registered methods: "name", "summary" and "source" (the paper)."""
    return [{"name": entry.name, "summary": entry.summary, "source": entry.source} for entry in METHODS.values()]


def describe_method(name: str) -> dict[str, Any]:
    """A method and all its settings: for each "name", "flag", "accepts", "default" and "help".

    Raises:
        LifelongError: no method has this name.
    """
    entry = method_entry(name)
    groups = {"settings": entry.settings, "training": TrainingSettings}
    head = {"name": entry.name, "summary": entry.summary, "source": entry.source}
    return head | {group: [_describe_setting(item) for item in settings_of(cls).values()] for group, cls in groups.items()}


def _describe_setting(item: Setting) -> dict[str, Any]:
    return {"name": item.name, "flag": item.flag, "accepts": expected(item.hint), "default": plain(item.default), "help": item.help}


def _listener(progress: Any) -> Any:
    """The listener that was asked for."""
    from rich.console import Console

    from lifelong.experiment.progress import ConsoleProgress, Progress

    if isinstance(progress, Progress):
        return progress
    return ConsoleProgress(Console()) if progress else Progress()
