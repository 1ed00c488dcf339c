"""Resolve what a function or a command was given into configurations and folders; nothing heavy is imported here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


@checked
def configure(
    stream: Place | None = None,
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
        stream: name of a stream, or path of its TOML file.
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
    stream: Place | None = None,
    method: str | None = None,
    seed: int | None = None,
    *,
    preset: str | None = None,
    config: Place | None = None,
    compared: Sequence[str] = (),
    **hyper_parameters: object,
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
        kind: "compare", "distances" or "transfer" for these commands; None for a run of one method.
    """
    where, mark, options = config.stream.partition("?")
    place = where.partition(":")[2] or where
    last = place if where.startswith("hub:") else Path(place).name
    stream = last.removesuffix(".toml").removesuffix(".csv") + (mark + options if where == place else "")
    # Earlier versions dropped a file's options, and everything after the last dot of a folder's name.
    whole = config.stream if where == place else place
    earlier = whole if where.startswith("hub:") else Path(whole).stem
    seed = "" if kind in ("compare", "transfer") else f"-seed{config.seed}"
    method = config.method if config.tuning is None else f"{config.method}-tuned"
    folder, before = (Path("runs") / f"{file_name(name, 'stream')}-{kind or method}{seed}" for name in (stream, earlier))
    return before if not folder.exists() and _holds(before, config.stream) else folder


def _holds(folder: Path, stream: str) -> bool:
    """Tell whether a folder holds a run of a stream, or a comparison on it."""
    for file in [folder / "config.toml", *sorted(folder.glob("*/config.toml"))]:
        try:
            return read_toml(file).get("stream") == stream
        except (OSError, ValueError):
            continue
    return False


# `Any`: among the settings may be `preset` and `config`, which have their own types in `configured`.
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


def transfers(
    stream: Place | None, seeds: Sequence[int], strategies: Sequence[str], measures: Sequence[str] | None, **settings: Any
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
    configs = [configured(stream, "par", seed, **settings) for seed in seeds]
    if configs[0].tuning is not None:
        raise LifelongError("transfer tunes nothing; leave out --grid, --tolerance and --trials")
    return configs


def to_tune(config: RunConfig) -> RunConfig:
    """Return the configuration if it tunes something.

    Raises:
        LifelongError: there is nothing to tune.
    """
    if config.tuning is None:
        raise LifelongError('nothing to tune: give --grid "KEY=VALUE,VALUE,...", such as --grid "lr=0.01,0.1"')
    return config
