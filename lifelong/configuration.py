"""Resolve what a function or a command was given into configurations and folders; nothing heavy is imported here."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lifelong.data.address import PYTHON, parse_address
from lifelong.data.stream_like import StreamObjects
from lifelong.errors import LifelongError, near_miss
from lifelong.methods.registry import known_methods, method_entry
from lifelong.opening import read_toml
from lifelong.settings.arguments import Place, Seed, checked
from lifelong.settings.resolve import resolve
from lifelong.settings.run import Preset, RunConfig
from lifelong.settings.sockets import MEASURES
from lifelong.settings.transfer import STRATEGIES
from lifelong.words import file_name

DEFAULT_METHODS = ("par", "finetune", "independent")
"""The methods that `compare` compares by default: PAR, and the lower and upper bounds."""


def _like(stream: StreamObjects) -> str:
    """Return the name by which presets know a stream of objects: that of a named stream, else an address, as of images of one's own."""
    from lifelong.streams.named_streams import stream_names

    name = str(getattr(stream, "name", ""))
    return name if name.partition("?")[0] in stream_names() else f"{PYTHON}:"


@checked
def configure(
    stream: Place | StreamObjects | None = None,
    method: str | None = None,
    seed: Seed | None = None,
    *,
    preset: Preset | None = None,
    config: Place | None = None,
    compared: Sequence[str] = (),
    **hyper_parameters: object,
) -> RunConfig:
    """Resolve the configuration of a run: defaults, then the preset, then the file `config`, then the arguments.

    Args:
        stream: name or address of a stream, path of its TOML file, a `lifelong.Stream`, or a list of tasks (`lifelong.Task.from_arrays`,
            `from_dataset`), whose images are then kept in the cache.
        method: name of a registered method; by default "par".
        seed: random seed; by default 0.
        preset: "paper" (default), "authors-code", "quick" or "practical".
        config: a flat TOML file with any of these and of the hyper-parameters.
        compared: methods that run with the same hyper-parameters; those that only they have are ignored.
        hyper_parameters: settings of the method and of training by name, such as ``epochs=10``; also those of tuning (see `tune`).

    Raises:
        LifelongError: a setting, a name or a value is not valid.
    """
    return configured(stream, method, seed, preset=preset, config=config, compared=compared, **hyper_parameters)


def configured(
    stream: Place | StreamObjects | None = None,
    method: str | None = None,
    seed: int | None = None,
    *,
    preset: str | None = None,
    config: Place | None = None,
    compared: Sequence[str] = (),
    **hyper_parameters: object,
) -> RunConfig:
    """Do the same as `configure` for command-line flags: error messages name the flag."""
    return kept(stream, [_resolved(stream, method, seed, preset=preset, config=config, compared=compared, **hyper_parameters)])[0]


def kept(stream: Place | StreamObjects | None, configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Keep the images of a stream of objects in the cache, and name it by its address; any other stays as it is.

    Args:
        stream: as it was given.
        configs: configurations that are checked already.

    Raises:
        LifelongError: its images cannot be used, or the cache not be written.
    """
    if stream is None or isinstance(stream, (str, os.PathLike)):
        return list(configs)
    address = kept_address(stream)
    return [replace(config, stream=address) for config in configs]


def kept_address(stream: StreamObjects) -> str:
    """Keep the images of a stream of objects in the cache, and return its address.

    Raises:
        LifelongError: its images cannot be used, or the cache not be written.
    """
    from lifelong.data.sources import Sources
    from lifelong.streams.objects import keep_stream
    from lifelong.training.process import as_found

    with as_found():  # imports draw random numbers
        return keep_stream(stream, Sources().cache)


def _resolved(
    stream: Place | StreamObjects | None,
    method: str | None,
    seed: int | None,
    *,
    preset: str | None = None,
    config: Place | None = None,
    compared: Sequence[str] = (),
    **hyper_parameters: object,
) -> RunConfig:
    return resolve(
        None if stream is None else str(stream) if isinstance(stream, (str, os.PathLike)) else _like(stream),
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
        kind: "compare", "distances" or "transfer" for these commands; None for a run of one method.
    """
    if config.stream.startswith(f"{PYTHON}:"):
        return _folder(parse_address(config.stream).where.rpartition("@")[0], config, kind)
    where, mark, options = config.stream.partition("?")
    place = where.partition(":")[2] or where
    last = place if where.startswith("hub:") else Path(place).name
    stream = last.removesuffix(".toml").removesuffix(".csv") + (mark + options if where == place else "")
    # Earlier versions dropped a file's options, and everything after the last dot of a folder's name.
    whole = config.stream if where == place else place
    earlier = whole if where.startswith("hub:") else Path(whole).stem
    folder, before = (_folder(name, config, kind) for name in (stream, earlier))
    return before if not folder.exists() and _holds(before, config.stream) else folder


def _folder(stream: str, config: RunConfig, kind: str | None) -> Path:
    """Return the default folder for a name of the stream."""
    seed = "" if kind in ("compare", "transfer") else f"-seed{config.seed}"
    method = config.method if config.tuning is None else f"{config.method}-tuned"
    return Path("runs") / f"{file_name(stream, 'stream')}-{kind or method}{seed}"


def _holds(folder: Path, stream: str) -> bool:
    """Tell whether a folder holds a run of a stream, or a comparison on it."""
    for file in [folder / "config.toml", *sorted(folder.glob("*/config.toml"))]:
        try:
            return read_toml(file).get("stream") == stream
        except (OSError, ValueError):
            continue
    return False


# `Any`: among the settings may be `preset` and `config`, which have their own types in `configured`.
def comparison(stream: Place | StreamObjects | None, methods: Sequence[str], seeds: Sequence[int], **settings: Any) -> list[RunConfig]:
    """Resolve the configurations of a comparison, method by method; all are checked before anything runs.

    Raises:
        LifelongError: a method or a seed is missing or repeated, or a setting is not valid.
    """
    for name, values in (("methods", methods), ("seeds", seeds)):
        if not values or len(set(values)) != len(values):
            raise LifelongError(f"--{name} {','.join(map(str, values))}: give at least one, and none twice")
    for method in methods:
        method_entry(method)
    return kept(stream, [_resolved(stream, method, seed, compared=methods, **settings) for method in methods for seed in seeds])


def transfers(
    stream: Place | StreamObjects | None, seeds: Sequence[int], strategies: Sequence[str], measures: Sequence[str] | None, **settings: Any
) -> list[RunConfig]:
    """Resolve the configurations of PAR by which transfer is measured, one for each seed.

    Raises:
        LifelongError: a seed, a strategy or a measure is missing, unknown or repeated, or a setting is not valid.
    """
    for name, values in (("seeds", seeds), ("strategies", strategies), ("measures", (None,) if measures is None else measures)):
        if not values or len(set(values)) != len(values):
            raise LifelongError(f"--{name} {','.join(map(str, values))}: give at least one, and none twice")
    for strategy in strategies:
        if strategy not in STRATEGIES:
            raise LifelongError(f"--strategies {strategy}: give some of {', '.join(STRATEGIES)}{near_miss(strategy, STRATEGIES)}")
    for measure in measures or ():
        MEASURES.entry(measure)
    configs = [_resolved(stream, "par", seed, **settings) for seed in seeds]
    if configs[0].tuning is not None:
        raise LifelongError("transfer tunes nothing; leave out --grid, --tolerance and --trials")
    return kept(stream, configs)


def to_tune(config: RunConfig) -> RunConfig:
    """Return the configuration if it tunes something.

    Raises:
        LifelongError: there is nothing to tune.
    """
    if config.tuning is None:
        raise LifelongError('nothing to tune: give --grid "KEY=VALUE,VALUE,...", such as --grid "lr=0.01,0.1"')
    return config
