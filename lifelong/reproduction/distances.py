"""Make Figures 5 and 6: which tasks are similar, by distances alone; nothing is trained."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong import api
from lifelong.errors import LifelongError, MissingDataError
from lifelong.experiment.distances import distances
from lifelong.experiment.progress import Heartbeat
from lifelong.json_files import read_record, write_record
from lifelong.methods.registry import known_methods
from lifelong.report.exports import comma_separated
from lifelong.report.matrices import distance_heatmap
from lifelong.report.page import Grid, Picture
from lifelong.report.wording import ABSENT, against_thresholds, decision, distance
from lifelong.reproduction.grids import MISSING
from lifelong.reproduction.paper import PaperStream
from lifelong.reproduction.plan import Choice, check_names, sources_of
from lifelong.reproduction.write import Part
from lifelong.settings.resolve import flat
from lifelong.settings.run import Environment, RunConfig


@dataclass(frozen=True)
class Map:
    """A figure of distances.

    Attributes:
        name: "figure5" or "figure6".
        title: what it shows.
        streams: one heat map for each.
    """

    name: str
    title: str
    streams: tuple[PaperStream, ...]


MAPS = {
    "figure5": Map("figure5", "task groups on CIFAR100-coarse", (PaperStream("cifar100-coarse", "CIFAR100-coarse"),)),
    "figure6": Map(
        "figure6",
        "distances on CTrL's streams",
        tuple(PaperStream(f"ctrl-s-{name}", label) for name, label in (("minus", "S-"), ("plus", "S+"), ("in", "S_in"), ("out", "S_out"))),
    ),
}


@dataclass(frozen=True)
class Measured:
    """The distances of one stream at one seed.

    Attributes:
        stream: of the figure.
        seed: of the stream's draws.
        config: the rest.
        result: as `lifelong.distances` returns it; None: the images are not there.
        missing: why they are not.
    """

    stream: PaperStream
    seed: int
    config: RunConfig
    result: dict[str, Any] | None
    missing: str | None


def measure_all(map_: Map, choice: Choice, out: Path, environment: Environment, say: Callable[[str], None]) -> list[Measured]:
    """Measure each stream at each seed; earlier measurements are read from their files.

    Raises:
        LifelongError: a filter names what the figure does not have, a folder holds other distances, weights are missing.
    """
    check_names("methods", choice.methods, {"par"}, map_.name)
    check_names("streams", choice.streams, {name for stream in map_.streams for name in (stream.name, stream.label)}, map_.name)
    chosen = [stream for stream in map_.streams if not choice.streams or {stream.name, stream.label} & set(choice.streams)]
    return [_measure(stream, seed, choice, out, environment, say) for stream in chosen for seed in choice.seeds]


def _measure(stream: PaperStream, seed: int, choice: Choice, out: Path, environment: Environment, say: Callable[[str], None]) -> Measured:
    without = tuple(source for source in choice.without if source in sources_of(stream.name))
    scale = choice.scale
    values = scale.values("par", stream.name)
    reduced = scale.stream(stream.name, without, measured=True)
    config = api.configured(reduced, "par", seed, preset=scale.preset, compared=list(known_methods()), **values)
    place = "-".join([stream.name, *(["without", *without] if without else [])])
    file = out / place / f"distances-seed{seed}.json"
    if file.is_file():
        return Measured(stream, seed, config, _read(file, config), None)
    say(f"distances of {config.stream}, seed {seed}")
    try:
        result = distances(config.stream, seed, config.settings, environment, Heartbeat(say, "  "))
    except MissingDataError as error:
        say(f"missing: {stream.label}: {error}")
        return Measured(stream, seed, config, None, f"no images of {error.source}")
    write_record(file, {"settings": flat(config), **result})
    return Measured(stream, seed, config, result, None)


def _read(file: Path, config: RunConfig) -> dict[str, Any]:
    try:
        result, _ = read_record(file)
    except (OSError, LifelongError) as error:
        raise LifelongError(f"{error}; delete it") from error
    wanted = json.loads(json.dumps(flat(config)))
    if result.get("settings") != wanted:
        raise LifelongError(f"{file} holds the distances of other settings; choose another --out, or delete it")
    return result


def shown(map_: Map, measured: Sequence[Measured], folder: Path) -> list[Part]:
    """Return for each stream and seed its heat map, the groups, and the distance from the last task to the first."""
    return [_part(map_, one, folder) for one in measured]


def _part(map_: Map, one: Measured, folder: Path) -> Part:
    title, result = f"{one.stream.label}, seed {one.seed}", one.result
    if result is None:
        return Part(title, text=MISSING)
    file = folder / f"{map_.name}-{one.stream.name}-seed{one.seed}.png"
    picture = Picture.draw(file, lambda path, theme: distance_heatmap(result, path, theme=theme))
    text = f"{result['stream']}: the last task lies at {distance(first_to_last(result))} (Eq. 4) from the first."
    return Part(title, _groups(result), picture, f"heat map of the distances between the tasks of {one.stream.label}", text)


def _groups(result: dict[str, Any]) -> Grid:
    """Return one row per group: its tasks in the order in which they joined it, and how near the last of them was."""
    rows = []
    for number, members in enumerate(result["groups"]):
        names = ", ".join(f"{member + 1} · {result['tasks'][member]}" for member in members)
        last = result["decisions"][members[-1]]
        rows.append([str(number), names, decision(last), against_thresholds(last) if members[-1] else ABSENT])
    return Grid(["group", "tasks", "the last one", "its nearest group"], rows, words=("tasks", "the last one"))


def first_to_last(result: dict[str, Any]) -> float | None:
    """Return the distance (Eq. 4) from the last task to the first; None for a single task."""
    rows = result["raw"]
    return rows[-1][0] if len(rows) > 1 else None


def as_csv(measured: Sequence[Measured], scale: str) -> str:
    """Return one row per task: its group, and its distances to the first and to the nearest earlier task."""
    headings = (
        "stream",
        "stream_run",
        "scale",
        "seed",
        "task",
        "name",
        "group",
        "decision",
        "to_first",
        "to_nearest",
        "nearest",
        "missing",
    )
    rows: list[tuple[object, ...]] = []
    for one in measured:
        head = (one.stream.label, one.config.stream, scale, one.seed)
        if one.result is None:
            rows.append((*head, *[None] * 7, one.missing))
            continue
        groups = {member: number for number, members in enumerate(one.result["groups"]) for member in members}
        for index, name in enumerate(one.result["tasks"]):
            earlier = one.result["raw"][index][:index]
            near = min(range(index), key=earlier.__getitem__, default=None)
            nearest = (None, None) if near is None else (earlier[near], one.result["tasks"][near])
            action = one.result["decisions"][index]["action"]
            rows.append((*head, index + 1, name, groups[index], action, earlier[0] if earlier else None, *nearest, None))
    return comma_separated(headings, rows)
