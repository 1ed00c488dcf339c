"""The report of a run as one page."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lifelong.opening import refuse_links
from lifelong.records.run import RunRecord, TuningCost
from lifelong.records.task import Judged, TaskRecord
from lifelong.report import figures
from lifelong.report.canvas import FEW
from lifelong.report.curves import read_curves
from lifelong.report.folding import folded
from lifelong.report.gallery import draw_figures
from lifelong.report.groups import MEANINGS, cells, members
from lifelong.report.mistakes import Mistake, tiles_of
from lifelong.report.page import Grid, Picture, in_words, write_page
from lifelong.report.thinning import MOST_CELLS, MOST_DRAWN, MOST_TOLD, note_of, thinned, thinned_curves
from lifelong.report.tuning import candidate_rows, chosen_rows, tuned
from lifelong.report.wording import (
    ABSENT,
    accuracy,
    clean,
    decision,
    duration,
    finite,
    learned_and_now,
    nearest,
    parameters,
    peak_memory,
    sentence,
    short,
    size,
    three_digits,
    without_names,
)
from lifelong.words import counted

NAME = 40
"""The longest name of a task that stands whole in the overview."""

FEW_CLASSES, LETTERS = 12, 14
"""Of a task with as many classes at most it is shown what each is taken for, with so many letters of their names."""

NEAR = 10
"""The most distances to earlier tasks that are listed for one task."""


def write_report(out: Path, summary: RunRecord, mistakes: Sequence[Sequence[Mistake] | None] = ()) -> Path:
    """Write `out/report.html` and the figures in `out/figures`.

    Args:
        out: the run directory.
        summary: of a finished or unfinished run, as in its summary.json.
        mistakes: the worst ones on each task, the worst first; None where the images cannot be read.

    Returns:
        The page.

    Raises:
        LifelongError: the files cannot be written.
    """
    folder = Path(out) / "figures"
    refuse_links(Path(out), ("report.html", "figures"))
    tasks = summary.tasks
    first = 0 if len(tasks) <= MOST_DRAWN else len(tasks) - MOST_TOLD
    told = []
    for index in range(first, len(tasks)):
        mistaken = tiles_of(index, mistakes, tasks[index].classes)
        told.append(_task(index, tasks[index], tasks) | {"number": index + 1, "mistakes": mistaken})
    return write_page(
        Path(out) / "report.html",
        "report.html.j2",
        title=f"{clean(summary.stream)}, learned with {clean(summary.method)}",
        subtitle=f"preset {clean(summary.preset)}, seed {summary.seed}, {len(tasks)} tasks",
        complete=summary.complete,
        sentence=sentence(summary),
        numbers=_numbers(summary),
        memory=", ".join(f"{clean(kind)} {size(amount)}" for kind, amount in (summary.memory or {}).items()),
        without_names=without_names(summary),
        notes=[clean(note) for note in [*(summary.notes or []), *note_of(len(tasks))]],
        overview=_overview(summary),
        tasks=told,
        count=len(tasks),
        pictures=draw_figures(folder, thinned(summary), thinned_curves(read_curves(out), len(tasks))),
        experts="; ".join(f"{expert}: {', '.join(str(index + 1) for index in group)}" for expert, group in members(tasks).items()),
        few=len(tasks) <= FEW,
        cells=_cells(folder, tasks),
        tuning=Grid(*chosen_rows(summary)) if tuned(summary) else None,
        tuning_cost=_tuning_cost(summary),
        phases=_phases(summary),
        pictured=any(found is not None for found in mistakes),
        pictures_command=f"lifelong report {shlex.quote(str(out))}",
        settings=folded(clean(summary.method), summary.settings or {}),
        command=f"lifelong run --config {shlex.quote(str(Path(out) / 'config.toml'))} --out {shlex.quote(f'{out}-again')}",
        environment=_environment(summary),
    )


def _numbers(summary: RunRecord) -> list[tuple[str, str]]:
    return [
        ("AP", accuracy(summary.ap)),
        ("AF", accuracy(summary.af)),
        ("BWT", accuracy(summary.bwt)),
        ("Forgetting", accuracy(summary.forgetting)),
        ("By images", accuracy(summary.weighted_accuracy)),
        ("Parameters", parameters(summary.parameters)),
        ("Time", duration(summary.seconds)),
        ("Memory", size(sum((summary.memory or {}).values()))),
    ]


def _overview(summary: RunRecord) -> Grid:
    learned, now = learned_and_now(summary.accuracy)
    decides, reasons = (any(getattr(task, key) for task in summary.tasks) for key in ("decision", "reason"))
    rows = [
        [
            f"{index + 1} · {short(task.name, NAME)}",
            *([decision(task).replace("→ expert", "→")] if decides else []),
            *([clean(task.reason or ABSENT)] if reasons else []),
            duration(task.seconds),
            parameters(task.parameters_added),
            accuracy(learned[index]),
            accuracy(now[index]),
        ]
        for index, task in enumerate(summary.tasks)
    ]
    words = [*(["decision → expert"] if decides else []), *(["why"] if reasons else [])]
    return Grid(["task", *words, "time", "added", "learned", "now"], rows, tuple(words))


def _task(index: int, task: TaskRecord, tasks: list[TaskRecord]) -> dict[str, Any]:
    known = sorted((value, other) for other, item in enumerate(task.divergences or []) if (value := finite(item)) is not None)
    chosen = ", ".join(f"{clean(key)} {in_words(value)}" for key, value in (task.hyperparameters or {}).items())
    phases = ", ".join(f"{clean(name)} {duration(seconds)}" for name, seconds in (task.seconds_by_phase or {}).items() if seconds)
    parts = [
        f"{task.train} / {task.valid} / {task.test} images (train / valid / test)",
        counted(task.epochs, "epoch") if task.epochs is not None else f"{ABSENT} epochs",
        duration(task.seconds) + (f" ({phases})" if phases else ""),
        f"{parameters(task.parameters_added)} parameters added",
        *([f"chosen: {chosen}"] if chosen else []),
    ]
    kind = task.decision
    return {
        "name": clean(task.name),
        "kind": kind if kind in MEANINGS else "undecided",
        "decision": decision(task) if kind else "trained",
        "reason": clean(task.reason or ""),
        "groups": ", ".join(three_digits(value) for value in task.group_distances or []),
        "scale": _scale(task),
        "cost": "; ".join(parts) + ".",
        "candidates": Grid(*candidate_rows(task.tuning)) if task.tuning is not None else None,
        "majority": accuracy(None if task.judged is None else task.judged.majority),
        "answers": _answers(task),
        "classes": [clean(name) for name in task.classes],
        "divergences": Grid(
            ["from task, nearest first", "divergence"],
            [[f"{other + 1} · {clean(tasks[other].name)}", three_digits(value)] for value, other in known[:NEAR]],
        )
        if known
        else None,
    }


def _answers(task: TaskRecord) -> Grid | None:
    """Describe how a task's test images are classified now: recall per class, and the confusion matrix if there are few classes."""
    found, names = task.judged or Judged(), [clean(name) for name in task.classes]
    recall, counts = found.recall, found.confusion
    if not recall or len(recall) != len(names):
        return None
    taken = counts if counts and len(names) <= FEW_CLASSES else [[]] * len(names)
    columns = [f"as {short(name, LETTERS)}" for name in names] if taken[0] else []
    rows = [[name, accuracy(share), *map(str, row)] for name, share, row in zip(names, recall, taken, strict=True)]
    return Grid(["class", "recall", *columns], rows)


def _scale(task: TaskRecord) -> dict[str, Any] | None:
    """Return the positions of groups and thresholds between 0 and 1, in percent."""
    alpha, beta = finite(task.alpha), finite(task.beta)
    if nearest(task) is None or alpha is None:
        return None
    # Without cells there is no beta.
    further = [] if beta is None else [(max(_percent(alpha), _percent(beta)), f"β {beta:g}")]
    marks: list[tuple[float, str]] = [(0.0, "0"), (_percent(alpha), f"α {alpha:g}"), *further, (100.0, "1")]
    edges = [place for place, _ in marks]
    colours = ("expert", "cell", "search")
    # Marks that would run into one another: the first one stays.
    apart = [mark for index, mark in enumerate(marks) if all(abs(mark[0] - other[0]) > 9 for other in marks[:index])]
    return {
        "bands": [
            {"left": low, "width": round(high - low, 2), "colour": colour}
            for low, high, colour in zip(edges, edges[1:], colours, strict=False)
        ],
        "groups": [_percent(value) for item in task.group_distances or () if (value := finite(item)) is not None],
        "marks": [{"place": place, "words": words} for place, words in apart],
    }


def _percent(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 2)


def _cells(folder: Path, tasks: list[TaskRecord]) -> list[dict[str, Any]]:
    """Return the distinct cells in order of appearance, with the tasks whose experts have them."""
    found, distinct = [], list(cells(tasks).items())
    if len(tasks) > MOST_DRAWN:
        distinct = sorted(distinct, key=lambda pair: -len(pair[1]))[:MOST_CELLS]
    for number, (text, users) in enumerate(distinct, 1):
        path = folder / f"cell-{number:02d}.png"
        picture = Picture.draw(path, lambda path, theme, text=text: figures.cell_diagram(text, path, theme=theme))
        names = ", ".join(f"{user + 1} · {clean(tasks[user].name)}" for user in users)
        found.append({"title": f"Cell {number}", "users": names, "text": text, "picture": picture})
    return found


def _phases(summary: RunRecord) -> Grid:
    phases = {name: finite(seconds) or 0.0 for name, seconds in (summary.seconds_by_phase or {}).items()}
    total = sum(phases.values())
    rows = [[clean(name), duration(seconds), f"{seconds / total:.0%}" if total else ABSENT] for name, seconds in phases.items()]
    return Grid(["phase", "time", "share"], rows)


def _tuning_cost(summary: RunRecord) -> str:
    cost = summary.tuning or TuningCost()
    return f"{cost.candidates} candidates, {cost.epochs} epochs, {duration(cost.seconds)}"


def _environment(summary: RunRecord) -> list[tuple[str, str]]:
    return [
        ("lifelong", in_words(summary.version)),
        ("PyTorch", in_words(summary.torch)),
        ("device", in_words(summary.device)),
        ("machine", in_words(summary.machine)),
        ("threads", in_words(summary.threads)),
        ("peak memory", peak_memory(summary)),
        ("feature extractor", in_words(summary.extractor)),
        ("images of the stream (checksum)", in_words(summary.stream_fingerprint)),
    ]
