"""The tables that the commands print."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lifelong.errors import one_line
from lifelong.records.descriptions import (
    Exported,
    ExportedAll,
    ExportedBundle,
    MethodDescription,
    MethodListed,
    Named,
    Pushed,
    StreamDescription,
)
from lifelong.settings.fields import show_default
from lifelong.words import counted

if TYPE_CHECKING:
    from lifelong.records.distances import DistancesRecord
    from lifelong.records.estimate import EstimateRecord
    from lifelong.records.run import RunRecord
    from lifelong.records.transfer import TransferRecord
    from lifelong.sweeps.status import SweepStatus


MOST_TOLD = 5
"""Changed tasks of a version that are named."""


def print_run(console: Console, summary: "RunRecord", report: Path) -> None:
    """Print the result of a run: divergences, if any, tasks, and totals."""
    from lifelong.report.tables import result_table, tuning_table
    from lifelong.report.tuning import tuned
    from lifelong.report.wording import without_names

    _print_tasks(console, summary)
    if tuned(summary):
        console.print(tuning_table(summary))
    console.print(result_table(summary))
    if words := without_names(summary):
        _say(console, words)
    _print_place(console, "report", report)


def print_comparison(console: Console, summaries: "Sequence[RunRecord]", report: Path | None) -> None:
    """Print the tasks of each run that makes decisions, then one table per stream with one row per method."""
    from lifelong.report.runs import by_stream
    from lifelong.report.tables import comparison_table

    streams = by_stream(list(summaries))
    labels = {id(summary): one.label for runs in streams.values() for one in runs for summary in one.summaries}
    for summary in summaries:
        if any(task.decision for task in summary.tasks):
            _print_tasks(console, summary, labels[id(summary)])
    for stream, runs in streams.items():
        console.print(comparison_table([summary for one in runs for summary in one.summaries], title=stream if len(streams) > 1 else None))
    if report is not None:
        _print_place(console, "report", report)


def print_predictions(console: Console, found: Sequence[dict[str, Any]]) -> None:
    """Print one row per image: task and class with probabilities, runner-up, and whether it is unlike anything learned."""
    from lifelong.report.wording import clean

    table = Table(box=box.SIMPLE_HEAD)
    inferred = any(row["tasks"] is not None for row in found)
    for heading in ("image", "task", *(["probability"] if inferred else []), "class", "probability", "next", *([""] if inferred else [])):
        table.add_column(heading, justify="right" if heading == "probability" else "left", overflow="fold")
    for row in found:
        if row["error"] is not None:
            table.add_row(Text(clean(row["image"])), Text(clean(f"unusable ({row['error']})"), style="red"))
            continue
        ranked = list(row["classes"].items())
        following = f"{clean(ranked[1][0])} {ranked[1][1]:.3f}" if len(ranked) > 1 else ""
        of_task = [] if not inferred else [f"{row['tasks'][row['task']]:.3f}"]
        strange = [] if not inferred else ["unlike anything learned" if row["strange"] else ""]
        words = [clean(row["image"]), clean(row["task"]), *of_task, clean(row["label"]), f"{row['probability']:.3f}", following, *strange]
        table.add_row(*map(Text, words))
    console.print(table)


def print_export(console: Console, made: Exported) -> None:
    """Print what was exported and how to use it."""
    size = made["image_size"]
    _say(console, f"input: uint8 RGB images of shape (N, 3, {size}, {size}); output: logits of {', '.join(made['classes'])}")
    for note in made["notes"]:
        _say(console, f"note: {note}")
    _say(console, f"checked against the run: largest difference {made['largest_difference']:.2g}")
    _print_place(console, "model", Path(made["file"]))


def print_export_all(console: Console, made: ExportedAll) -> None:
    """Print what was exported and how to use it."""
    from lifelong.report.wording import clean

    size = made["image_size"]
    _say(console, f"input: uint8 RGB images of shape (N, 3, {size}, {size}); outputs:")
    for name, output in made["outputs"].items():
        _say(console, f"  {name}: logits of {', '.join(map(clean, output['classes']))}")
    if made["tells_tasks"]:
        _say(console, "  tasks: the probability of each task")
    for note in made["notes"]:
        _say(console, f"note: {note}")
    _say(console, f"checked against the run: largest difference {made['largest_difference']:.2g}")
    _print_place(console, "model", Path(made["file"]))


def print_pushed(console: Console, made: Pushed) -> None:
    """Print what was uploaded, and how to use it."""
    _say(console, f"{counted(len(made['files']), 'file')}, {made['bytes'] / 2**20:.1f} MB: {', '.join(made['files'])}")
    _say(console, f"everybody can see it: {made['url']}" if made["public"] else f"only its owner can see it: {made['url']}")
    _say(console, f"use it: lifelong predict hub:{made['id']} IMAGE ... --download")


def print_export_bundle(console: Console, made: ExportedBundle) -> None:
    """Print what was exported and how to use it."""
    from lifelong.report.wording import clean

    for name, classes in made["tasks"].items():
        _say(console, f"task {clean(name)}: {', '.join(map(clean, classes))}")
    told = "by the method's own way" if "tasks" in made["recognizes"] else "by the confidence of the heads"
    flagged = "flags what is unlike anything learned" if "strangeness" in made["recognizes"] else "does not flag unknown images"
    _say(console, f"finds an image's task {told}; {flagged}; {counted(made['models'], 'ONNX file')}, {made['bytes'] / 1e6:.1f} MB in all")
    for note in made["notes"]:
        _say(console, f"note: {note}")
    of_tests = f"{made['test_images']} of them test images" if made["test_images"] < made["images"] else "all of them test images"
    _say(console, f"checked against the run on {made['images']} images, {of_tests}: largest difference {made['largest_difference']:.2g}")
    _say(console, f"use it: python -m lifelong.runtime {made['folder']} IMAGE ...")
    _print_place(console, "bundle", Path(made["folder"]))


def print_report(console: Console, made: dict[str, Any]) -> None:
    """Print where the report is, and for which tasks it has no pictures of mistakes."""
    from lifelong.report.wording import clean

    absent = [clean(name) for name, count in zip(made["tasks"], made["mistakes"], strict=True) if count is None]
    if absent:
        _say(console, f"no pictures of mistakes for {', '.join(absent)}: the images cannot be read (see --data)")
    _print_place(console, "report", Path(made["report"]))


def print_verification(console: Console, found: dict[str, Any], repair: bool) -> None:
    """Print the condition of each file, what was evaluated again, what was repaired, and the verdict: another one after a repair."""
    from lifelong.experiment.run_folder import LOST
    from lifelong.report.wording import clean

    _print_rows(console, ("file", "condition", ""), ([each["file"], each["condition"], clean(each["about"])] for each in found["files"]))
    for each in found["judged"]:
        away = f"its images are not here{f' ({about})' if (about := each.get('about')) else ''}"
        now = away if each["found"] is None else f"evaluated again {each['found']:.4f}"
        before = "not known" if each["recorded"] is None else f"{each['recorded']:.4f}"
        _say(console, f"task {clean(each['task'])}: recorded {before}, {now}{'; NOT what was recorded' if each['right'] is False else ''}")
    for line in found["repaired"]:
        _say(console, f"repaired: {clean(line)}")
    advice = f", and --repair could not repair it; {LOST}" if repair else f"; to repair it: lifelong verify {found['run']} --repair"
    _say(console, f"sound: {counted(found['tasks'], 'task')} learned" if found["sound"] else f"DAMAGED{advice}")


def print_history(console: Console, versions: list[dict[str, Any]]) -> None:
    """Print the versions of a run, and what each did to earlier tasks."""
    from lifelong.report.wording import clean

    rows = []
    for each in versions:
        changed = [one for one in each["certificates"] if one["changed"]]
        told = ", ".join(f"{clean(one['task'])} {_share(one['before'])} -> {_share(one['after'])}" for one in changed[:MOST_TOLD])
        more = f" and {len(changed) - MOST_TOLD} more" if len(changed) > MOST_TOLD else ""
        same = len(each["certificates"]) - len(changed)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each["when"]))
        number = f"{each['number']}{' *' if each['current'] else ''}"
        rows.append([number, when, str(each["tasks"]), clean(each["task"]), str(same), f"{told}{more}"])
    _print_rows(console, ("version", "saved", "tasks", "newest", "unchanged", "changed (accuracy before -> after)"), rows)


def _share(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"


def print_compacted(console: Console, found: dict[str, Any]) -> None:
    """Print what was saved."""
    versions = counted(found["versions"], "version")
    _say(console, f"{versions} can be put back; {found['before'] / 1e6:.1f} MB before, {found['after'] / 1e6:.1f} MB now")


def print_forgotten(console: Console, found: dict[str, Any], done: bool) -> None:
    """Print what was removed, or would be, and what is left."""
    from lifelong.report.wording import clean

    _say(console, clean(f"{'forgotten' if done else 'can be forgotten'}: {found['task']}; left: {', '.join(found['tasks'])}"))
    for line in found["removed"]:
        _say(console, clean(f"{'removed' if done else 'would be removed'}: {line}"))
    for line in found["left"]:
        _say(console, clean(f"out of reach: {line}"))


def print_distances(console: Console, result: "DistancesRecord", figure: Path) -> None:
    """Print the divergences and the decisions."""
    from lifelong.report.tables import decision_table, divergence_table

    console.print(divergence_table(result))
    console.print(decision_table(result))
    for note in result.notes or ():
        _say(console, one_line(f"note: {note}"))
    _print_place(console, "heat map", figure)


def print_estimate(console: Console, found: "EstimateRecord") -> None:
    """Print what a run would learn, how long it would take, and what was checked."""
    from lifelong.report.wording import clean, duration

    rows = [
        (
            clean(task.name),
            str(task.classes),
            f"{task.train} / {task.valid} / {task.test}",
            f"{task.image_size} px",
            task.decision or "",
            f"{duration(task.seconds)}{'' if task.measured else ' (by its images)'}",
            ", ".join(f"{phase.phase} {duration(phase.seconds)}" for phase in task.phases if phase.seconds >= task.seconds / 20),
        )
        for task in found.tasks
    ]
    _print_rows(console, ("task", "classes", "train / valid / test", "image", "decision", "time", "of it"), rows)
    _say(console, f"{found.method} on {clean(found.stream)}, {found.device}: {_span(found)}")
    beside = f"images read in {duration(found.reading_seconds)}" if found.reading_seconds >= 0.5 else "reading images"
    _say(
        console,
        f"on top: {beside}, and about {duration(found.ending_seconds or 0.0)} for storing, judging without task names, and the report",
    )
    _say(console, f"model: about {found.parameters:,} parameters, {found.bytes / 2**20:.1f} MB with all that is kept")
    if found.peak_memory_bytes is not None:
        _say(console, f"memory: {found.peak_memory_bytes / 2**20:.0f} MB at least")
    if found.peak_device_memory_bytes is not None:
        _say(console, f"memory of the device: {found.peak_device_memory_bytes / 2**20:.0f} MB at least")
    for line in found.checks:
        _say(console, clean(line))
    for line in found.stops:
        _say(console, f"WOULD STOP: {clean(line)}")
    _say(console, f"nothing was run; measured in {duration(found.rehearsal_seconds or 0.0)}")


def print_estimates(console: Console, found: "Sequence[EstimateRecord]", seeds: int, workers: int) -> None:
    """Print how long each method would take, and all together."""
    from lifelong.report.wording import clean, duration

    rows = [(each.method, str(seeds), _span(each), f"{each.parameters:,}", f"{each.bytes / 2**20:.1f} MB") for each in found]
    _print_rows(console, ("method", "runs", "each", "parameters", "kept"), rows)
    total = seeds * sum(each.seconds + (each.ending_seconds or 0.0) for each in found)
    _say(console, f"in all {duration(total)}" + (f" of computing, by {workers} workers" if workers > 1 else ""))
    for line in dict.fromkeys(line for each in found for line in each.checks):
        _say(console, clean(line))
    for line in dict.fromkeys(line for each in found for line in each.stops):
        _say(console, f"WOULD STOP: {clean(line)}")
    _say(console, "nothing was run")


def _span(found: "EstimateRecord") -> str:
    from lifelong.report.wording import duration

    about = f"about {duration(found.seconds)}"
    return (
        about if found.highest - found.lowest < 0.1 * found.seconds else f"{about} ({duration(found.lowest)} to {duration(found.highest)})"
    )


def print_plan(console: Console, found: dict[str, Any]) -> None:
    """Print the runs of a sweep that can start."""
    runs = found["runs"]
    rows = ([run["run"], run["method"], run["stream"], str(run["seed"]), _settings(run["varied"])] for run in runs)
    _print_rows(console, ("run", "method", "stream", "seed", "varied"), rows)
    _say(console, f"{counted(len(runs), 'run')}: all can start, into {found['out']}")


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {show_default(value)}" for key, value in values.items())


def print_sweep_status(console: Console, found: "SweepStatus") -> None:
    """Print how far each run of a sweep is."""
    rows = (
        [
            run.run,
            run.state,
            f"{run.done} of {run.tasks}" if run.tasks else "",
            "" if run.ap is None else f"{run.ap:.3f}",
            str(run.starts or ""),
            f"{run.host}, {run.process}" if run.host else "",
            run.failure,
        ]
        for run in found.runs
    )
    _print_rows(console, ("run", "state", "tasks", "AP", "starts", "where", "failure"), rows)
    counts = ", ".join(f"{number} {state}" for state, number in found.counts.items())
    _say(console, f"{counted(len(found.runs), 'run')} in {found.out}: {counts}")


def print_transfer(console: Console, result: "TransferRecord", page: Path) -> None:
    """Print what is gained, how well each measure predicts it, and what each rule makes of it."""
    from lifelong.report.tables import grid_table
    from lifelong.report.transfer import agreement_grid, gains_grid, regret_grids

    for title, grid in (
        (f"{result.stream}: mean gains", gains_grid(result)),
        ("agreement with the gains: Kendall's tau over all pairs", agreement_grid(result)),
        ("the same over the sources of one target, mean over targets", agreement_grid(result, within_targets=True)),
        *((f"regret against the oracle, mean over tasks: {title}", grid) for title, grid in regret_grids(result)),
    ):
        if grid.rows:
            console.print(grid_table(title, grid))
    for name, reason in result.left_out.items():
        _say(console, one_line(f"left out: measure '{name}': {reason}"))
    for note in result.notes or ():
        _say(console, one_line(f"note: {note}"))
    _print_place(console, "page", page)


def _print_tasks(console: Console, summary: "RunRecord", label: str | None = None) -> None:
    from lifelong.report.tables import divergence_table, task_table

    if any(task.divergences for task in summary.tasks):
        console.print(divergence_table(summary, label))
    console.print(task_table(summary, label))


def print_streams(console: Console, streams: Iterable[Named]) -> None:
    """Print the known streams."""
    _print_rows(console, ("stream", "what it is"), ((item["name"], item.get("text", "")) for item in streams))
    _say(console, "Describe one: lifelong streams NAME. Your own: lifelong streams FILE.toml")


def print_stream(console: Console, stream: StreamDescription, preview: Path | None = None) -> None:
    """Print a stream: totals, tasks, notes, data check, licences and fingerprint."""
    from lifelong.report.streams import headline, licences, notes, stream_table
    from lifelong.report.wording import clean

    _say(console, clean(stream["name"]))
    _say(console, headline(stream))
    console.print(stream_table(stream))
    for note in notes(stream):
        _say(console, note)
    for line in stream["check"] or ["nothing found"]:
        _say(console, f"data check: {clean(line)}")
    for licence in licences(stream):
        _say(console, licence)
    checksum = stream["checksum"]
    verdict = {
        "recorded": "recorded: the same draws as everyone gets from these data",
        "different": "NOT the draws recorded for these data",
        "not recorded": "not recorded for these data",
    }[checksum["verdict"]]
    _say(console, f"draws {checksum['draws']} from labels {checksum['labels']} ({verdict})")
    _say(console, f"fingerprint {stream['fingerprint']}")
    if preview is not None:
        _print_place(console, "contact sheet", preview)


def print_methods(console: Console, methods: Iterable[MethodListed]) -> None:
    """Print the registered methods."""
    _print_rows(console, ("method", "what it does", "source"), ((item["name"], item["summary"], item["source"]) for item in methods))
    _say(console, "Settings of one: lifelong methods NAME")


def print_method(console: Console, method: MethodDescription) -> None:
    """Print a method and all its settings."""
    _say(console, f"{method['name']}: {method['summary']}")
    _say(console, f"source: {method['source']}")
    for title, group in (("Hyper-parameters", method["settings"]), ("Training, the same for every method", method["training"])):
        _say(console, f"\n{title}")
        rows = ((item["flag"], item["accepts"], show_default(item["default"]), item["help"]) for item in group)
        _print_rows(console, ("flag", "accepts", "default", "what it does"), rows)


def _print_rows(console: Console, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose cells are plain text, never markup."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _print_place(console: Console, what: str, path: Path) -> None:
    _say(console, one_line(f"{what}: {path}"))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
