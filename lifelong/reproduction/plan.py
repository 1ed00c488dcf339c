"""Which runs a table or a figure needs: rows × streams × seeds, each with its configuration and its folder."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong import api
from lifelong.data.sources import Sources
from lifelong.errors import LifelongError, near_miss
from lifelong.methods.registry import known_methods
from lifelong.reproduction.paper import PaperRow, PaperStream, PaperTable
from lifelong.reproduction.scales import Scale
from lifelong.settings.run import RunConfig
from lifelong.streams.build import SpecStream
from lifelong.streams.named_streams import open_stream

SEEDS = (0, 1, 2)
"""The paper's numbers are means of three seeds."""


@dataclass(frozen=True)
class Choice:
    """The part of a table or figure to make.

    Attributes:
        scale: at which scale.
        seeds: a run for each.
        methods: rows by the name of their method, with its variant if any ("par", "par-fixed"); none: all.
        streams: by name or by the paper's label; none: all.
        without: sources whose tasks are left out of every stream.
    """

    scale: Scale
    seeds: tuple[int, ...] = SEEDS
    methods: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def rows(self, table: PaperTable) -> tuple[PaperRow, ...]:
        """Return the rows of a table that are made.

        Raises:
            LifelongError: a method is not in the table.
        """
        check_names("methods", self.methods, [row.key for row in table.rows], table.name)
        return tuple(row for row in table.rows if not self.methods or row.key in self.methods)

    def columns(self, table: PaperTable) -> tuple[PaperStream, ...]:
        """Return the streams of a table that are made.

        Raises:
            LifelongError: a stream is not in the table.
        """
        check_names("streams", self.streams, {name for stream in table.streams for name in (stream.name, stream.label)}, table.name)
        return tuple(stream for stream in table.streams if not self.streams or {stream.name, stream.label} & set(self.streams))


def check_names(flag: str, names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Check that a filter contains only known names.

    Raises:
        LifelongError: it contains another name.
    """
    known = set(known)
    for name in names:
        if name not in known:
            raise LifelongError(f"--{flag} {name}: not in {where}{near_miss(name, known)}")


@dataclass(frozen=True)
class Job:
    """A run.

    Attributes:
        row: the row's key, such as "par-fixed".
        label: the paper's name of the row.
        stream: the stream's name, whole.
        seed: random seed.
        config: everything else.
        folder: of the run, below the reproduction's.
    """

    row: str
    label: str
    stream: str
    seed: int
    config: RunConfig
    folder: Path


def plan(table: PaperTable, choice: Choice) -> list[Job]:
    """Return the runs of a table, stream by stream; where the paper prints nothing, nothing is run.

    Raises:
        LifelongError: a filter names what the table does not have, or a setting of the scale is not accepted.
    """
    return [
        job(row.key, row.label, row.method, stream.name, seed, choice, {} if row.variant is None else {"variant": row.variant})
        for stream in choice.columns(table)
        for seed in choice.seeds
        for row in choice.rows(table)
        if row.has(stream.name)
    ]


def job(row: str, label: str, method: str, stream: str, seed: int, choice: Choice, differing: dict[str, Any]) -> Job:
    """One run.

    Args:
        row: what tells it from the other runs on this stream; part of its folder's name.
        label: what a person calls it.
        method: the method's name.
        stream: the stream's name, whole.
        seed: random seed.
        choice: the scale, and which sources are left out.
        differing: settings that tell it from the other runs.
    """
    without = tuple(source for source in choice.without if source in sources_of(stream))
    scale = choice.scale
    # The paper's PAR, whatever variant the scale's preset has.
    whole = {"variant": "par"} if method == "par" else {}
    values = {**whole, **scale.values(method, stream), **differing}
    # Settings that only other methods have are ignored, as in a comparison.
    config = api.configured(scale.stream(stream, without), method, seed, preset=scale.preset, compared=list(known_methods()), **values)
    place = "-".join([stream, *(["without", *without] if without else [])])
    return Job(row, label, stream, seed, config, Path(place) / f"{row}-seed{seed}")


def sources_of(stream: str) -> set[str]:
    """Return the sources of a named stream; no data are needed.

    Raises:
        LifelongError: there is no such stream.
    """
    opened = open_stream(stream, 0, Sources())
    assert isinstance(opened, SpecStream)
    return {task.source for task in opened.spec.tasks}


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds, each once.

    Raises:
        LifelongError: there are none, or one is repeated.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise LifelongError(f"--seeds {','.join(map(str, seeds))}: give at least one, and none twice")
    return tuple(seeds)
