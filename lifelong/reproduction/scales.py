"""Scales at which a table is made: which images and which settings. A scale is one file, and every row of the results has its name.

`paper` is the scale of the paper: whole streams, with the preset `paper`. All others are reduced, for machines without a GPU; their
results are not a reproduction of the paper's numbers, and never called one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError, near_miss
from lifelong.opening import MOST_SETTINGS, parse_toml, read_text

FULL = "paper"
"""The only scale whose numbers are compared with the paper's."""

SCALES = (FULL, "small", "tiny")
_KEYS = ("about", "preset", "streams", "settings", "method", "stream", "distances")


@dataclass(frozen=True)
class Scale:
    """A scale.

    Attributes:
        name: as it stands in every row.
        about: one line of what it is.
        preset: the settings to start from.
        streams: what each stream is reduced to, such as "tasks=5&train_per_class=20"; a stream that is not named is whole.
        settings: of every run; one that a method does not have is passed over.
        methods: settings by method; they win.
        by_stream: settings of every run on a stream; they win over all.
        distances: what each stream is reduced to where only distances are measured (figures 5 and 6): they are cheap.
    """

    name: str
    about: str
    preset: str
    streams: Mapping[str, str]
    settings: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    by_stream: Mapping[str, Mapping[str, Any]]
    distances: Mapping[str, str]

    @property
    def full(self) -> bool:
        """Whether its numbers may be compared with the paper's."""
        return self.name == FULL

    def stream(self, name: str, without: tuple[str, ...] = (), *, measured: bool = False) -> str:
        """Return a stream as it is at this scale.

        Args:
            name: the stream's name, whole.
            without: sources whose tasks are left out.
            measured: only distances are measured, nothing is learned.
        """
        reductions = self.distances if measured else self.streams
        options = [reductions[name]] if name in reductions else []
        options += [f"without={'+'.join(without)}"] if without else []
        return f"{name}?{'&'.join(options)}" if options else name

    def values(self, method: str, stream: str) -> dict[str, Any]:
        """Return the settings of a method on a stream.

        Args:
            method: its name.
            stream: its name, without what it is reduced to.
        """
        return {**self.settings, **self.methods.get(method, {}), **self.by_stream.get(stream, {})}


def read_scale(name: str) -> Scale:
    """Return a scale by its name, or from a file of one's own.

    Args:
        name: one of `SCALES`, or the path of a file that ends in `.toml`; such a scale is named after its file.

    Raises:
        LifelongError: there is no such scale, or the file does not define one.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if path.stem in SCALES:
            raise LifelongError(f"--scale {path}: a scale of this name is part of the library; rename the file")
        try:
            return _scale(path.stem, read_text(path, MOST_SETTINGS), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise LifelongError(f"cannot read the scale {path}: {getattr(error, 'strerror', None) or error}") from error
    if name not in SCALES:
        raise LifelongError(f"unknown scale '{name}'{near_miss(name, SCALES)} (your own: a file that ends in .toml)")
    return _scale(name, (files("lifelong.reproduction") / "scales" / f"{name}.toml").read_text(encoding="utf-8"), f"scale '{name}'")


def _scale(name: str, text: str, where: str) -> Scale:
    try:
        content = parse_toml(text)
    except ValueError as error:
        raise LifelongError(f"{where} is not valid TOML: {' '.join(str(error).split())}") from error
    for key in content:
        if key not in _KEYS:
            raise LifelongError(f"{where}: '{key}' is not part of a scale{near_miss(key, _KEYS)}")
    for key in ("about", "preset"):
        if not isinstance(content.get(key, ""), str):
            raise LifelongError(f"{where}, {key} = {content[key]!r}: expected text")
    sections = {key: _section(content, key, where) for key in ("streams", "settings", "method", "stream", "distances")}
    for key in ("method", "stream"):
        for inner in sections[key]:
            _section(sections[key], inner, f"{where}, [{key}]")
    for key in ("streams", "distances"):
        for stream, options in sections[key].items():
            if not isinstance(options, str):
                raise LifelongError(f'{where}, [{key}], {stream} = {options!r}: expected text such as "tasks=3&train_per_class=20"')
    return Scale(
        name,
        content.get("about", "a scale of one's own"),
        content.get("preset", "paper"),
        sections["streams"],
        sections["settings"],
        sections["method"],
        sections["stream"],
        sections["distances"],
    )


def _section(content: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise LifelongError(f"{where}: '{key}' is a section of a scale, not a value")
    return value
