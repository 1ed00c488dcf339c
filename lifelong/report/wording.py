"""Numbers and names, formatted for readers; an absent number is a dash."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lifelong.records.distances import Decided, DistancesRecord
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.words import counted
from lifelong.words import duration as in_words

ABSENT = "–"

LEAST = 0.0005
"""The smallest change of an accuracy that shows where it is printed."""


def finite(value: Any) -> float | None:
    """Return the number, or None if it is absent, NaN or infinite."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def accuracy(value: Any) -> str:
    """Write a share in [0, 1] (or a difference of two) with three digits."""
    number = finite(value)
    return ABSENT if number is None else f"{number + 0.0:.3f}".replace("-0.000", "0.000")


def percent(value: Any) -> str:
    """Write a share in [0, 1] as a whole percentage: ``49 %``."""
    number = finite(value)
    return ABSENT if number is None else f"{100 * number:.0f} %"


def parameters(value: Any) -> str:
    """Write a number of parameters: ``512``, ``17.7 k``, ``1.400 M``."""
    number = finite(value)
    if number is None:
        return ABSENT
    if number < 1000:
        return f"{number:.0f}"
    return f"{number / 1e3:.1f} k" if number < 999_950 else f"{number / 1e6:.3f} M"


def peak_memory(summary: RunRecord) -> str:
    """Write the peak memory of a run's process, and on a GPU if it was measured: ``1.20 GB; 310.0 MB on the GPU``."""
    device = summary.peak_device_memory_bytes
    return size(summary.peak_memory_bytes) + ("" if device is None else f"; {size(device)} on the GPU")


def size(value: Any) -> str:
    """Write bytes in decimal units: ``0 B``, ``12.3 kB``, ``1.20 GB``."""
    number = finite(value)
    if number is None:
        return ABSENT
    for unit, scale, digits in (("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 1)):
        if number >= scale:
            return f"{number / scale:.{digits}f} {unit}"
    return f"{number:.0f} B"


def duration(value: Any) -> str:
    """Seconds: ``0.84 s``, ``12.3 s``, ``3 min 05 s``, ``2 h 04 min``."""
    number = finite(value)
    if number is None:
        return ABSENT
    if number < 59.95:
        return f"{number:.2f} s" if number < 9.995 else f"{number:.1f} s"
    return in_words(number)


def three_digits(value: Any) -> str:
    """Write a divergence or a distance with about three digits, so that 0.312 and 48.1 are equally readable."""
    number = finite(value)
    if number is None:
        return ABSENT
    size = abs(number)
    return f"{number:.3f}" if size < 9.9995 else f"{number:.1f}" if size < 999.95 else f"{number:.0f}"


def spread(values: Iterable[Any], form: Callable[[Any], str]) -> str:
    """Write mean ± sample standard deviation over seeds, or a single value alone."""
    numbers = [number for value in values if (number := finite(value)) is not None]
    if len(numbers) < 2:
        return form(numbers[0] if numbers else None)
    return f"{form(statistics.fmean(numbers))} ± {form(statistics.stdev(numbers))}"


def clean(text: Any) -> str:
    """Clean text from data: one line, with control characters replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in " ".join(str(text).split()))


def short(text: Any, length: int) -> str:
    """Clean text of at most `length` characters."""
    line = clean(text)
    return line if len(line) <= length else f"{line[: length - 1]}…"


def by_measure(result: DistancesRecord | RunRecord) -> str:
    """Say what divergences are: ``Eq. 4``, or ``by mmd``, where the measure is not the paper's."""
    measure = (result.settings or {}).get("measure") if isinstance(result, RunRecord) else result.measure
    return "Eq. 4" if measure in (None, "prototype-kl") else f"by {clean(measure)}"


def nearest(task: Decided) -> float | None:
    """Return the distance to the nearest group of a task's record; None if none was measured."""
    return min((number for value in task.group_distances or [] if (number := finite(value)) is not None), default=None)


def against_thresholds(task: Decided, *, values: bool = True) -> str:
    """Write the distance to the nearest group next to its threshold.

    Args:
        task: a task's record, or a decision.
        values: ``0.312 ≤ α 0.5``; without, ``0.312 ≤ α``.
    """
    value, alpha, beta = nearest(task), finite(task.alpha), finite(task.beta)
    if value is None:
        return ABSENT
    if alpha is not None and value <= alpha:
        return f"{three_digits(value)} ≤ α" + (f" {alpha:g}" if values else "")
    if beta is not None:
        return f"{three_digits(value)} {'≤' if value <= beta else '>'} β" + (f" {beta:g}" if values else "")
    return three_digits(value) + ("" if alpha is None else " > α" + (f" {alpha:g}" if values else ""))


def threshold_words(values: Iterable[float]) -> str:
    """Write the threshold of all tasks, or the range if tasks differ: ``0.5``, ``0.3 to 0.5``."""
    found = sorted(set(values))
    return f"{found[0]:g}" + (f" to {found[-1]:g}" if len(found) > 1 else "")


def kind(record: Decided) -> str | None:
    """Return which of `DECISION_KINDS` a task's record, or a decision without a run, has; None: nothing was decided."""
    return record.decision


def decision(record: Decided) -> str:
    """Describe the decision for a task and its expert (without a run: its group); a dash without a decision."""
    decided = kind(record)
    if decided is None:
        return ABSENT
    # A head is always fitted to frozen features.
    words = clean(decided) + (", frozen" if record.frozen and decided != "head" else "")
    if isinstance(record, TaskRecord):
        return words if record.expert is None else f"{words} → expert {record.expert}"
    return words if decided == "search" or record.group is None else f"{words} of group {record.group}"


def learned_and_now(rows: Sequence[Sequence[float | None]]) -> tuple[list[float | None], list[float | None]]:
    """Extract each task's accuracy when just learned, and at the end, from the accuracies after each task."""
    learned = [finite(row[index]) for index, row in enumerate(rows)]
    return learned, [finite(value) for value in rows[-1]] if rows else []


def sentence(summary: RunRecord) -> str:
    """Summarize in one sentence what a run has learned.

    Args:
        summary: of any method; finished, unfinished, or before its first task.
    """
    tasks = summary.tasks
    if not tasks:
        return "Nothing has been learned yet."
    experts = {task.expert for task in tasks if task.expert is not None}
    by = [*([counted(len(experts), "expert")] if experts else []), f"{parameters(summary.parameters)} parameters"]
    begin = f"{counted(len(tasks), 'task')} learned {'' if summary.get('complete', True) else 'so far '}with {' and '.join(by)}"
    decided, known = _decided(tasks), _known(summary)
    return begin + (f": {decided}" if decided else "") + (f"; {known}" if known else "") + "."


HEADS = {"head": "on frozen features", "adapter": "with adapters", "side": "with a side network"}
"""What a task has on a frozen network, in words, by its decision."""


def _decided(tasks: list[TaskRecord]) -> str:
    """Count the tasks of each kind of decision; empty without decisions."""
    number = Counter(map(kind, tasks))
    cells = [(number[decided], word) for decided, word in (("search", "searched"), ("reuse-cell", "reused")) if number[decided]]
    parts = [f"{count if index else counted(count, 'cell')} {word}" for index, (count, word) in enumerate(cells)]
    edges, undecided = (sum(task.get(key, 0) for task in tasks) for key in ("edges", "undecided_edges"))
    if undecided and number["search"]:
        parts[0] += f" ({undecided} of {edges} edges undecided)"
    if allocated := number["allocate"]:
        parts.append(f"{counted(allocated, 'expert')} allocated")
    heads = [(number[decided], words) for decided, words in HEADS.items() if number[decided]]
    parts += [f"{count if index else counted(count, 'head')} {words}" for index, (count, words) in enumerate(heads)]
    if shared := number["reuse-expert"]:
        parts.append(f"{counted(shared, 'task')} {'shares' if shared == 1 else 'share'} an earlier expert")
    return ", ".join(parts)


def _known(summary: RunRecord) -> str:
    """Describe the final accuracy and forgetting; empty if nothing was evaluated."""
    right, change = finite(summary.ap), finite(summary.af)
    if right is None:
        return ""
    known = f"{100 * right:.1f} % correct on average"
    pairs = zip(*learned_and_now(summary.accuracy), strict=True)
    changes = [now - first for first, now in pairs if first is not None and now is not None]
    if len(changes) < 2 or change is None:
        return known
    worst = min(changes)
    if worst > -LEAST:
        return f"{known}, nothing forgotten"
    if change > -LEAST:
        return f"{known}, nothing forgotten on average (the worst task lost {-100 * worst:.1f} points)"
    return f"{known}, {-100 * change:.1f} points forgotten on average"


def without_names(summary: RunRecord) -> str:
    """Describe the accuracy without task names; empty for an unfinished run."""
    found = summary.task_agnostic
    if found is None:
        return ""
    share, routed = accuracy(found.mean_accuracy), percent(found.mean_routing)
    way = " (by head confidence; this method has no task inference of its own)" if found.by == "confidence" else ""
    strange = "" if found.mean_strange is None else f"; {percent(found.mean_strange)} are flagged as unlike anything learned"
    found_task = f"the task is identified correctly for {routed} of the test images{way}"
    return f"Without task names: accuracy {share}, mean over tasks; {found_task}{strange}."


def curve(rows: Sequence[Sequence[float | None]]) -> list[float]:
    """Return the mean accuracy over the tasks so far, after each task; NaN if that of a task is unknown."""
    return [statistics.fmean(math.nan if (known := finite(value)) is None else known for value in row) for row in rows]
