"""The page of a comparison: methods side by side, mean and deviation over seeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lifelong.report import figures
from lifelong.report.charts import per_task
from lifelong.report.page import Grid, Picture, in_words, write_page
from lifelong.report.runs import Runs, group
from lifelong.report.wording import ABSENT, accuracy, clean, duration, parameters, size, spread


def write_comparison(out: Path, summaries: list[dict[str, Any]]) -> Path:
    """Write `out/report.html` and its figures in `out/figures`: methods side by side, mean and deviation over seeds.

    Args:
        out: a folder.
        summaries: of any number of runs; those that differ in nothing but their seed are put together.

    Returns:
        The page.

    Raises:
        LifelongError: the files cannot be written.
    """
    folder, runs = Path(out) / "figures", group(summaries)
    streams = sorted({clean(summary["stream"]) for summary in summaries})
    begun = [one for one in runs if all(summary["accuracy"] for summary in one.summaries)]
    pictures: dict[str, Picture | None] = dict.fromkeys(("stream", "tasks", "forgetting"))
    if begun:
        pictures = {
            "stream": Picture.draw(folder / "comparison-stream.png", lambda path, theme: figures.compare_curves(begun, path, theme=theme)),
            "tasks": Picture.draw(folder / "comparison-tasks.png", lambda path, theme: figures.compare_tasks(begun, path, theme=theme)),
            "forgetting": Picture.draw(
                folder / "comparison-forgetting.png", lambda path, theme: figures.compare_forgetting(begun, path, theme=theme)
            ),
        }
    warnings = [f"{one.label}: unfinished; its numbers hold for the tasks learned so far." for one in runs if not one.complete]
    if len(streams) > 1:
        warnings.append("The runs are of different streams: their numbers cannot be compared directly.")
    return write_page(
        Path(out) / "report.html",
        "comparison.html.j2",
        title=f"Methods on {', '.join(streams) or ABSENT}",
        subtitle=f"{len(runs)} configurations, {len(summaries)} runs",
        warnings=warnings,
        overview=_compared(runs),
        final=_by_task(begun, lambda learned, now: now),
        forgotten=_by_task(begun, lambda learned, now: now - learned),
        phases=_compared_phases(runs),
        runs=_listed(runs),
        pictures=pictures,
    )


def _compared(runs: list[Runs]) -> Grid:
    rows = [
        [
            one.label,
            str(len(one.summaries)),
            spread(one.values("ap"), accuracy),
            spread(one.values("af"), accuracy),
            spread(one.values("parameters"), parameters),
            spread(one.values("seconds"), duration),
            spread(one.memory(), size),
        ]
        for one in runs
    ]
    return Grid(["method", "seeds", "AP", "AF", "parameters", "time", "memory"], rows)


def _by_task(runs: list[Runs], of: Callable[[float, float], float]) -> Grid:
    columns = [per_task(one, of) for one in runs]
    tasks = max((summary["tasks"] for one in runs for summary in one.summaries), key=len, default=[])
    rows = [
        [f"{index + 1} · {clean(task['name'])}", *(accuracy(column[index]) if index < len(column) else ABSENT for column in columns)]
        for index, task in enumerate(tasks)
    ]
    return Grid(["task", *(one.label for one in runs)], rows)


def _compared_phases(runs: list[Runs]) -> Grid:
    names = list(dict.fromkeys(name for one in runs for summary in one.summaries for name in summary.get("seconds_by_phase") or {}))
    rows = [
        [one.label, *(spread([(summary.get("seconds_by_phase") or {}).get(name) for summary in one.summaries], duration) for name in names)]
        for one in runs
    ]
    return Grid(["method", *map(clean, names)], rows)


def _listed(runs: list[Runs]) -> Grid:
    rows = [
        [
            one.label,
            in_words(summary.get("seed")),
            accuracy(summary.get("ap")),
            accuracy(summary.get("af")),
            parameters(summary.get("parameters")),
            duration(summary.get("seconds")),
            size(summary.get("peak_memory_bytes")),
            in_words(summary.get("device")),
        ]
        for one in runs
        for summary in one.summaries
    ]
    return Grid(["method", "seed", "AP", "AF", "parameters", "time", "peak memory", "device"], rows)
