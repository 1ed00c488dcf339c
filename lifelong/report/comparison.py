"""A comparison: methods side by side, mean and deviation over seeds, as a page and as tables for papers and programs."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lifelong.opening import refuse_links
from lifelong.records.run import RunRecord
from lifelong.report import figures
from lifelong.report.charts import per_task
from lifelong.report.exports import comma_separated, escape_markdown, latex, markdown
from lifelong.report.page import Grid, Picture, in_words, write_page
from lifelong.report.runs import Runs, by_stream, on_pretrained
from lifelong.report.tradeoff import tradeoff
from lifelong.report.wording import ABSENT, accuracy, clean, duration, finite, parameters, peak_memory, size, spread
from lifelong.storage import write_text

EXPORTED = ("ap", "af", "parameters", "minutes", "memory_bytes", "trained", "bytes")
"""The quantities of comparison.csv, each with its mean and its standard deviation."""


@dataclass(frozen=True)
class Section:
    """The runs of one stream on the page.

    Attributes:
        stream: its name.
        sentence: who is the most accurate.
        overview, final, forgotten, phases, runs: tables.
        pictures: "tradeoff", "stream", "tasks" and "forgetting"; None where there is nothing to draw.
    """

    stream: str
    sentence: str
    overview: Grid
    final: Grid
    forgotten: Grid
    phases: Grid
    runs: Grid
    pictures: dict[str, Picture | None]


def write_comparison(out: Path, summaries: list[RunRecord]) -> Path:
    """Write `report.html`, `comparison.csv`, `comparison.md`, `comparison.tex` and figures into a folder.

    Methods stand side by side, mean and deviation over seeds; each stream has tables and figures of its own.

    Args:
        out: a folder.
        summaries: of any number of runs; those that differ in nothing but their seed are put together.

    Returns:
        The page.

    Raises:
        LifelongError: the files cannot be written.
    """
    streams = by_stream(summaries)
    folder = Path(out) / "figures"
    refuse_links(Path(out), ("report.html", "figures", *(f"comparison.{ending}" for ending in ("csv", "md", "tex"))))
    sections = [
        _section(stream, runs, folder, "" if len(streams) == 1 else f"-{number}")
        for number, (stream, runs) in enumerate(streams.items(), 1)
    ]
    runs = [one for members in streams.values() for one in members]
    warnings = [f"{one.label}: unfinished; its numbers hold for the tasks learned so far." for one in runs if not one.complete]
    if len(streams) > 1:
        warnings.append(
            "The runs are of different streams: their numbers cannot be compared directly, so that each stream stands for itself."
        )
    write_text(Path(out) / "comparison.csv", _as_csv(streams))
    write_text(
        Path(out) / "comparison.md", "\n".join(f"## {escape_markdown(part.stream)}\n\n{markdown(part.overview)}" for part in sections)
    )
    write_text(Path(out) / "comparison.tex", "".join(f"% {clean(part.stream)}\n{latex(part.overview)}" for part in sections))
    return write_page(
        Path(out) / "report.html",
        "comparison.html.j2",
        title=f"Methods on {', '.join(streams) or ABSENT}",
        subtitle=f"{len(runs)} configurations, {len(summaries)} runs",
        warnings=warnings,
        sections=sections,
    )


def _section(stream: str, runs: list[Runs], folder: Path, suffix: str) -> Section:
    """Tables and figures of one stream; the suffix tells its files from those of other streams."""
    begun = [one for one in runs if all(summary.accuracy for summary in one.summaries)]
    drawn: dict[str, tuple[Callable[..., bytes], list[Runs]]] = {
        "tradeoff": (tradeoff, [one for one in begun if one.complete]),
        "stream": (figures.compare_curves, begun),
        "tasks": (figures.compare_tasks, begun),
        "forgetting": (figures.compare_forgetting, begun),
    }

    def picture(name: str) -> Picture | None:
        draw, shown = drawn[name]
        file = folder / f"comparison-{name}{suffix}.png"
        return Picture.draw(file, lambda path, theme: draw(shown, path, theme=theme)) if shown else None

    return Section(
        stream,
        sentence=_sentence(runs),
        overview=_compared(runs),
        final=_by_task(begun, lambda learned, now: now),
        forgotten=_by_task(begun, lambda learned, now: now - learned),
        phases=_compared_phases(runs),
        runs=_listed(runs),
        pictures={name: picture(name) for name in drawn},
    )


def _as_csv(streams: dict[str, list[Runs]]) -> str:
    """Make one row per method and stream; an empty field is an absent number."""
    headings = ["stream", "method", "complete", "n", "seeds", *(f"{name}_{part}" for name in EXPORTED for part in ("mean", "sd"))]
    rows = [
        [
            stream,
            one.label,
            one.complete,
            len(one.summaries),
            " ".join(str(summary.seed) for summary in one.summaries),
            *_means_and_sds(one),
        ]
        for stream, runs in streams.items()
        for one in runs
    ]
    return comma_separated(headings, rows)


def _means_and_sds(one: Runs) -> list[float | None]:
    minutes = [None if (seconds := finite(value)) is None else seconds / 60 for value in one.values(lambda summary: summary.seconds)]
    columns = {
        "ap": one.values(lambda summary: summary.ap),
        "af": one.values(lambda summary: summary.af),
        "parameters": one.values(lambda summary: summary.parameters),
        "minutes": minutes,
        "memory_bytes": one.memory(),
        "trained": one.trained(),
        "bytes": one.values(lambda summary: summary.bytes),
    }
    numbers: list[float | None] = []
    for name in EXPORTED:
        known = [number for value in columns[name] if (number := finite(value)) is not None]
        numbers += [statistics.fmean(known) if known else None, statistics.stdev(known) if len(known) > 1 else None]
    return numbers


def _compared(runs: list[Runs]) -> Grid:
    pretrained = on_pretrained(runs)
    rows = [
        [
            one.label,
            str(len(one.summaries)),
            spread(one.values(lambda summary: summary.ap), accuracy),
            spread(one.values(lambda summary: summary.af), accuracy),
            spread(one.values(lambda summary: summary.parameters), parameters),
            spread(one.values(lambda summary: summary.seconds), duration),
            spread(one.memory(), size),
            *([spread(one.trained(), parameters), spread(one.values(lambda summary: summary.bytes), size)] if pretrained else []),
        ]
        for one in runs
    ]
    columns: dict[int, Callable[[RunRecord], float | None]] = {
        2: lambda summary: summary.ap,
        3: lambda summary: summary.af,
        4: lambda summary: summary.parameters,
        5: lambda summary: summary.seconds,
    }
    best = {(row, column) for column, of in columns.items() for row in _best(runs, of, most=column < 4)}
    more = ["trained", "bytes"] if pretrained else []
    return Grid(["method", "seeds", "AP", "AF", "parameters", "time", "memory", *more], rows, best=frozenset(best))


def _mean(one: Runs, of: Callable[[RunRecord], float | None]) -> float | None:
    """Return the mean over seeds; None if one of them has no such number."""
    values = [finite(value) for value in one.values(of)]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _best(runs: list[Runs], of: Callable[[RunRecord], float | None], *, most: bool) -> list[int]:
    """Return the finished methods with the best mean, several if equal to three digits; none if there is nothing to compare."""
    means = {index: mean for index, one in enumerate(runs) if one.complete and (mean := _mean(one, of)) is not None}
    if len(means) < 2:
        return []
    best = (max if most else min)(means.values())
    return [index for index, mean in means.items() if f"{mean:.3g}" == f"{best:.3g}"]


def _sentence(runs: list[Runs]) -> str:
    """Who is the most accurate, by how much, and for how many parameters; empty where there is nothing to compare."""
    means = sorted(
        ((mean, one) for one in runs if one.complete and (mean := _mean(one, lambda summary: summary.ap)) is not None),
        key=lambda pair: -pair[0],
    )
    if len(means) < 2:
        return ""
    (first, best), (second, next_best) = means[:2]
    held = _mean(best, lambda summary: summary.parameters)
    words = f"{best.label} has the highest AP, {first:.3f}, {first - second:.3f} above {next_best.label}"
    return words + (f", with {parameters(held)} parameters." if held is not None else ".")


def _by_task(runs: list[Runs], of: Callable[[float, float], float]) -> Grid:
    columns = [per_task(one, of) for one in runs]
    tasks = max((summary.tasks for one in runs for summary in one.summaries), key=len, default=[])
    rows = [
        [f"{index + 1} · {clean(task.name)}", *(accuracy(column[index]) if index < len(column) else ABSENT for column in columns)]
        for index, task in enumerate(tasks)
    ]
    return Grid(["task", *(one.label for one in runs)], rows)


def _compared_phases(runs: list[Runs]) -> Grid:
    names = list(dict.fromkeys(name for one in runs for summary in one.summaries for name in summary.seconds_by_phase or {}))
    rows = [
        [one.label, *(spread([(summary.seconds_by_phase or {}).get(name) for summary in one.summaries], duration) for name in names)]
        for one in runs
    ]
    return Grid(["method", *map(clean, names)], rows)


def _listed(runs: list[Runs]) -> Grid:
    rows = [
        [
            one.label,
            in_words(summary.seed),
            accuracy(summary.ap),
            accuracy(summary.af),
            parameters(summary.parameters),
            duration(summary.seconds),
            peak_memory(summary),
            in_words(summary.device),
        ]
        for one in runs
        for summary in one.summaries
    ]
    return Grid(["method", "seed", "AP", "AF", "parameters", "time", "peak memory", "device"], rows)
