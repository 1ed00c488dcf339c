"""The specification of a sweep: methods × streams × seeds × settings, as a TOML file or a dict.

streams = ["digits?tasks=3"]
methods = ["par", "finetune"]
seeds = [0, 1, 2]               # by default 0
preset = "quick"                # by default "paper"
out = "runs/mine"               # by default runs/NAME-OF-THE-FILE

[settings]                      # of every run that has them
epochs = 5

[method.par]                    # of one method
alpha = 0.3

[stream."digits?tasks=3"]       # on one stream
batch_size = 32

[vary]                          # each combination is a run
lr = [0.01, 0.1]
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Lt

from lifelong.configuration import configured, kept_address
from lifelong.data.address import PYTHON, parse_address
from lifelong.data.stream_like import is_stream
from lifelong.errors import LifelongError, near_miss
from lifelong.methods.registry import known_methods, method_entry
from lifelong.opening import read_toml
from lifelong.settings.arguments import hold
from lifelong.settings.fields import settings_of, show_default
from lifelong.settings.run import Preset, RunConfig
from lifelong.settings.training import TrainingSettings
from lifelong.settings.tuning import TUNING_KEYS
from lifelong.words import file_name

LISTS: dict[str, Any] = {"streams": Sequence[str], "methods": Sequence[str], "seeds": Sequence[Annotated[int, Ge(0), Lt(2**32)]]}
ONES: dict[str, Any] = {"preset": Preset, "out": str}
SECTIONS = ("settings", "method", "stream", "vary")
KEYS = (*LISTS, *ONES, *SECTIONS)

ELSEWHERE = {
    "stream": "name streams at the top, as `streams`",
    "method": "name methods at the top, as `methods`",
    "seed": "give seeds at the top, as `seeds`",
    "preset": "give it at the top",
    "config": "write its settings here",
    "compared": "name methods at the top, as `methods`",
}
"""What a section of settings does not have, and where it belongs."""

MOST_RUNS = 100_000
"""Largest number of runs in a sweep: more are a slip of the pen."""


@dataclass(frozen=True)
class Planned:
    """One run of a sweep.

    Attributes:
        name: of its folder below the sweep's, such as "digits/par-seed0"; also what it is called.
        config: its configuration.
        varied: the settings of `[vary]` that the run has, by key.
    """

    name: str
    config: RunConfig
    varied: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        config = self.config
        return {"run": self.name, "stream": config.stream, "method": config.method, "seed": config.seed, "varied": dict(self.varied)}


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep, in the order in which they begin.

    Attributes:
        out: its folder.
        runs: its runs.
    """

    out: Path
    runs: tuple[Planned, ...]

    def journal(self, run: Planned) -> Path:
        """Return the file of a run's journal."""
        return self.out / "journal" / f"{run.name}.jsonl"


def plan(spec: str | PathLike[str] | Mapping[str, Any], out: str | PathLike[str] | None = None) -> Plan:
    """Resolve all runs of a sweep.

    Args:
        spec: the TOML file, or its content.
        out: the folder of the sweep; None: as the specification says.

    Raises:
        LifelongError: something in it is not valid; the message says what, and where.
    """
    if isinstance(spec, Mapping):
        content, where, name = _with_addresses(spec), "the sweep", "sweep"
    else:
        content, where, name = _read(Path(spec)), str(spec), file_name(Path(spec).stem, "sweep")
    found = _checked(content, where)
    runs = tuple(_runs(found, where))
    _check_names(runs, where)
    return Plan(Path(out) if out is not None else Path(found.get("out") or f"runs/{name}"), runs)


def _with_addresses(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification from Python in which streams of objects are named by their addresses; their images are then in the cache."""
    streams = spec.get("streams")
    if not isinstance(streams, (list, tuple)):
        return dict(spec)
    return {**spec, "streams": [kept_address(each) if is_stream(each) else each for each in streams]}


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_toml(file)
    except OSError as error:
        raise LifelongError(f"cannot read the sweep {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise LifelongError(f"{file} is not valid TOML: {' '.join(str(error).split())}") from error


def _checked(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the content with all keys, each of the right form."""
    for key in content:
        if key not in KEYS:
            raise LifelongError(
                f"{where}: '{key}' is not part of a sweep{near_miss(str(key), KEYS)}; settings stand in [settings] or [vary]"
            )
    found: dict[str, Any] = {"seeds": [0], "preset": None}
    for key, hint in (LISTS | ONES).items():
        if key in content:
            try:
                found[key] = hold(hint, content[key])
            except ValueError as error:
                raise LifelongError(f"{where}: {key} = {content[key]!r}: {error}") from None
        if key in LISTS:
            values = found.get(key)
            if not values or len(set(values)) != len(values):
                raise LifelongError(f"{where}: {key} = {values or []}: give at least one, and none twice")
    for key in SECTIONS:
        found[key] = _section(content, key, where)
    for section, key in (("method", "methods"), ("stream", "streams")):
        for name in found[section]:
            found[section][name] = _section(found[section], name, f"{where}, [{section}]")
            if name not in found[key]:
                raise LifelongError(f"{where}, [{section}.{name}]: not in {key}{near_miss(name, found[key])}")
    return found


def _section(content: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, Mapping):
        raise LifelongError(f"{where}: '{key}' is a section, such as [{key}], not a value")
    return {str(inner).replace("-", "_") if key not in ("method", "stream") else str(inner): each for inner, each in value.items()}


def _runs(found: dict[str, Any], where: str) -> Iterator[Planned]:
    """Resolve all runs: stream by stream, seed by seed, so that methods are compared early."""
    methods = found["methods"]
    try:
        for method in methods:
            method_entry(method)
    except LifelongError as error:
        raise LifelongError(f"{where}: {error}") from None
    known = {name: {*settings_of(TrainingSettings), *settings_of(known_methods()[name].settings), *TUNING_KEYS} for name in methods}
    _check_sections(found, known, where)
    varied_by = {method: {key: values for key, values in found["vary"].items() if key in known[method]} for method in methods}
    number = sum(math.prod(map(len, own.values())) for own in varied_by.values()) * len(found["streams"]) * len(found["seeds"])
    if number > MOST_RUNS:
        raise LifelongError(f"{where}: {number:,} runs are more than {MOST_RUNS:,}; vary fewer settings")
    for stream, seed, method in product(found["streams"], found["seeds"], methods):
        own = varied_by[method]
        for chosen in product(*own.values()):
            varied = dict(zip(own, chosen, strict=True))
            values = {**found["settings"], **found["method"].get(method, {}), **found["stream"].get(stream, {}), **varied}
            try:
                config = configured(stream, method, seed, preset=found["preset"], compared=methods, **values)
            except LifelongError as error:
                raise LifelongError(f"{where}: {error}") from None
            words = [method, *(f"{key}-{_short(value)}" for key, value in varied.items()), f"seed{seed}"]
            yield Planned(f"{stream_name(stream)}/{'-'.join(words)}", config, varied)


def _check_sections(found: dict[str, Any], known: Mapping[str, set[str]], where: str) -> None:
    """Check that every setting is one of the method, or of any method, and is varied or given once."""
    for section, group in [("vary", found["vary"]), *_given(found)]:
        for key in group:
            if key in ELSEWHERE:
                raise LifelongError(f"{where}, [{section}]: '{key}' is not a setting; {ELSEWHERE[key]}")
    everyone = set().union(*known.values())
    for section, keys in [("method." + name, known[name]) for name in found["method"]] + [("vary", everyone)]:
        name = section.partition(".")[2]
        for key in found["method"][name] if name else found["vary"]:
            if key not in keys:
                of = name or "any of the methods"
                raise LifelongError(f"{where}, [{section}]: '{key}' is not a setting of {of}{near_miss(key, keys)}")
    for key, values in found["vary"].items():
        if not isinstance(values, list) or not values or any(value in values[:place] for place, value in enumerate(values)):
            raise LifelongError(f"{where}, [vary]: {key} = {values!r}: give a list of values, none twice")
        for section, group in _given(found):
            if key in group:
                raise LifelongError(f"{where}: {key} stands in [vary] and in [{section}]; keep one")


def _given(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the sections of settings that have one value, with their names."""
    return [
        ("settings", found["settings"]),
        *((f"{kind}.{name}", group) for kind in ("method", "stream") for name, group in found[kind].items()),
    ]


def _short(value: Any) -> str:
    """Write a value as a part of a folder's name."""
    return file_name(show_default(value), "none")[:40]


def stream_name(stream: str) -> str:
    """Write a stream as a folder's name: the last part of a path, with its options."""
    if stream.startswith(f"{PYTHON}:"):
        return file_name(parse_address(stream).where.rpartition("@")[0], "stream")
    place, mark, options = stream.partition("?")
    return file_name(Path(place).name.removesuffix(".toml").removesuffix(".csv") + mark + options, "stream")


def _check_names(runs: Sequence[Planned], where: str) -> None:
    """Check that no two runs have the same folder, as two streams in different folders might."""
    seen: dict[str, Planned] = {}
    for run in runs:
        # Some file systems do not tell capitals from small letters.
        other = seen.setdefault(run.name.lower(), run)
        if other is not run:
            both = f"{other.config.stream}, {dict(other.varied)} and {run.config.stream}, {dict(run.varied)}"
            raise LifelongError(f"{where}: two runs would have the folder {run.name} ({both}); rename a stream's file, or change a value")
