"""What tasks gain from one another, as a page, as a table for programs, and as tables for a terminal."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lifelong.opening import refuse_links
from lifelong.records.transfer import PairRecord, RuleRecord, TransferRecord
from lifelong.report.exports import comma_separated
from lifelong.report.folding import folded
from lifelong.report.matrices import Rows, pair_heatmaps
from lifelong.report.page import Grid, Picture, in_words, write_page
from lifelong.report.wording import ABSENT, accuracy, clean, duration, finite, parameters
from lifelong.storage import write_text

RULES = {
    "oracle": "oracle: the best choice for each task, in hindsight",
    "validation of both": "try everything, keep the best on validation images of both tasks",
    "validation": "try everything, keep the best on the new task's validation images",
    "alone": "always alone",
    "thresholds": "PAR's thresholds",
    "best threshold": "best threshold in hindsight",
    "nearest": "always with the nearest",
    "two nearest": "alone and with the two nearest, keep the best on validation images",
}
"""The rules in words."""

HEADINGS = {"thresholds": "thresholds", "best threshold": "best threshold", "nearest": "nearest", "two nearest": "best of 2"}
"""The rules that read a distance, as headings; there are PAR's thresholds for the first strategy only."""


@dataclass(frozen=True)
class Part:
    """What is gained by one strategy, beside the distances of one measure.

    Attributes:
        title: of the measure.
        words: the same, for screen readers.
        picture: the two heat maps.
    """

    title: str
    words: str
    picture: Picture


def write_transfer(out: Path, result: TransferRecord) -> Path:
    """Write `transfer.html`, `transfer.csv` and figures into a folder.

    Args:
        out: the folder.
        result: of `lifelong.transfer`.

    Returns:
        The page.

    Raises:
        LifelongError: the files cannot be written.
    """
    refuse_links(Path(out), ("transfer.html", "transfer.csv", "figures"))
    write_text(Path(out) / "transfer.csv", as_csv(result))
    seeds = in_words([one.seed for one in result.seeds])
    return write_page(
        Path(out) / "transfer.html",
        "transfer.html.j2",
        title=f"Transfer between the tasks of {clean(result.stream)}",
        subtitle=f"{len(result.tasks)} tasks; seeds: {seeds}; {duration(result.seconds)} of training",
        sentence=sentence(result),
        gains=gains_grid(result),
        agreement=agreement_grid(result),
        within=agreement_grid(result, within_targets=True),
        repeated=bool(result.repeatability),
        targets=targets_grid(result),
        rules=rules_grid(result),
        regrets=regret_grids(result),
        alone=_alone(result),
        parts=_parts(Path(out) / "figures", result),
        left_out=[f"{clean(name)}: {clean(reason)}" for name, reason in result.left_out.items()],
        notes=[clean(note) for note in result.notes or []],
        settings=folded("par", result.settings or {}),
        environment=f"lifelong {in_words(result.version)}, PyTorch {in_words(result.torch)}, {in_words(result.machine)}, "
        f"{in_words(result.device)}, threads: {in_words(result.threads)}",
    )


def sentence(result: TransferRecord) -> str:
    """Say what is gained on average, and which measure predicts it best."""
    by = result.strategies[0]
    gains = [pair.gain for one in result.seeds for pair in one.pairs if pair.strategy == by and pair.gain is not None]
    helped = sum(gain > 0 for gain in gains) / len(gains)
    words = f"By '{by}' a target gains {statistics.fmean(gains):+.3f} on average, and {helped:.0%} of the sources help."
    known = [(one.tau, one.measure) for one in result.agreement if one.strategy == by and not one.both and one.tau is not None]
    if known:
        tau, measure = max(known)
        best = f"of {len(known)} measures {clean(measure)} ranks these gains best" if len(known) > 1 else f"{clean(measure)} ranks them"
        words += f" By distances, {best}: Kendall's tau {tau:.2f}."
    return words


def gains_grid(result: TransferRecord) -> Grid:
    """Make a table of what each strategy gains, over all pairs."""
    rows = []
    for strategy in result.strategies:
        pairs = [pair for one in result.seeds for pair in one.pairs if pair.strategy == strategy]
        gains = [pair.gain or 0.0 for pair in pairs]
        changes = [pair.change or 0.0 for pair in pairs]
        rows.append(
            [
                strategy,
                f"{statistics.fmean(gains):+.3f}",
                f"{min(gains):+.3f} to {max(gains):+.3f}",
                f"{sum(gain > 0 for gain in gains) / len(gains):.0%}",
                f"{statistics.fmean(changes):+.3f}",
                parameters(statistics.fmean(pair.parameters for pair in pairs)),
                duration(statistics.fmean(pair.seconds or 0.0 for pair in pairs)),
            ]
        )
    return Grid(["strategy", "gain", "from, to", "helped", "source", "parameters", "time"], rows)


def agreement_grid(result: TransferRecord, *, within_targets: bool = False) -> Grid:
    """Make a table of Kendall's tau, with a row for each measure; the best of each column stands out.

    The last row has the agreement of the gains with those of the other seeds, if there are several.

    Args:
        result: of `lifelong.transfer`.
        within_targets: the mean over targets of tau over their sources, rather than tau over all pairs.
    """
    kinds = list(dict.fromkeys((one.strategy, one.both) for one in result.agreement))
    found = {(one.measure, one.strategy, one.both): one.tau_of_targets if within_targets else one.tau for one in result.agreement}
    columns = [[found[measure, *kind] for measure in result.measures] for kind in kinds]
    rows = [[clean(name), *(_tau(column[index]) for column in columns)] for index, name in enumerate(result.measures)]
    again = {(one.strategy, one.both): one.tau_of_targets if within_targets else one.tau for one in result.repeatability or ()}
    if again and rows:
        rows.append(["gains with other seeds", *(_tau(again.get(kind)) for kind in kinds)])
    best = set()
    for position, column in enumerate(columns, 1):
        known = [value for value in column if value is not None]
        if len(known) > 1:
            best |= {(index, position) for index, value in enumerate(column) if value == max(known)}
    headings = [f"{strategy}, both tasks" if both else strategy for strategy, both in kinds]
    return Grid(["measure", *headings], rows, best=frozenset(best))


def targets_grid(result: TransferRecord) -> Grid:
    """Make a table of Kendall's tau over the sources of each target, with a column for each measure, for the first strategy."""
    records = [one for one in result.agreement if one.strategy == result.strategies[0] and not one.both]
    rows = [[f"{index + 1} · {clean(name)}", *(_tau(one.by_target[index]) for one in records)] for index, name in enumerate(result.tasks)]
    return Grid(["target", *(clean(one.measure) for one in records)], rows)


def rules_grid(result: TransferRecord) -> Grid:
    """Make a table of all rules, with what they cost."""
    rows = [
        [
            RULES.get(one.rule, clean(one.rule)) + "".join(f", {clean(name)}" for name in (one.measure, one.strategy) if name),
            _threshold(one),
            f"{finite(one.value) or 0.0:+.3f}",
            accuracy(one.regret),
            accuracy(one.regret_on_validation),
            _signed(one.more_parameters, parameters),
            _signed(one.more_seconds, duration),
            f"{one.shared or 0.0:.0%}",
        ]
        for one in result.rules
    ]
    return Grid(["rule", "threshold", "value", "regret", "on validation", "parameters", "time", "shared"], rows)


def regret_grids(result: TransferRecord) -> list[tuple[str, Grid]]:
    """Make tables of regrets alone, each with a title: of the rules that read no distance, and for each strategy of those that do.

    The least regret of each column stands out.
    """
    first = result.strategies[0]
    # Records from before there were rules for each strategy name none.
    found = {(one.rule, one.measure, one.strategy or (first if one.measure else None)): one for one in result.rules}
    plain = [found[name, None, None] for name in RULES if name != "oracle" and (name, None, None) in found]
    rows = [[RULES[one.rule], accuracy(one.regret), accuracy(one.regret_on_validation)] for one in plain]
    grids = [("rules without distances", Grid(["rule", "regret", "on validation"], rows))]
    for strategy in result.strategies if result.measures else ():
        kinds = {name: words for name, words in HEADINGS.items() if (name, result.measures[0], strategy) in found}
        columns = [[found[name, measure, strategy].regret for measure in result.measures] for name in kinds]
        rows = [[clean(name), *(accuracy(column[index]) for column in columns)] for index, name in enumerate(result.measures)]
        marks = set()
        for place, column in enumerate(columns, 1):
            known = [value for value in map(finite, column) if value is not None]
            marks |= {(index, place) for index, value in enumerate(column) if len(known) > 1 and value == min(known)}
        grids.append((f"by '{strategy}'", Grid(["measure", *kinds.values()], rows, best=frozenset(marks))))
    return grids


def as_csv(result: TransferRecord) -> str:
    """Make a row for each pair, strategy and seed; an empty field is an absent number."""
    headings = ["stream", "seed", "source", "target", "strategy", "alone", "accuracy", "valid_accuracy", "gain", "source_change"]
    headings += ["parameters", "seconds", *(f"distance:{clean(name)}" for name in result.measures)]
    rows = []
    for one in result.seeds:
        distances = {found.measure: found.distances for found in one.measured}
        for pair in one.pairs:
            names = [clean(result.tasks[index]) for index in (pair.source, pair.target)]
            alone = one.alone[pair.target].accuracy
            numbers = [alone, pair.accuracy, pair.valid_accuracy, pair.gain, pair.change, pair.parameters, pair.seconds]
            measured = [distances[name][pair.target][pair.source] for name in result.measures]
            rows.append([clean(result.stream), one.seed, *names, pair.strategy, *numbers, *measured])
    return comma_separated(headings, rows)


def _alone(result: TransferRecord) -> Grid:
    """Make a table of the tasks learned alone, and the best source of each."""
    rows = []
    for index, name in enumerate(result.tasks):
        alone = [one.alone[index].accuracy or 0.0 for one in result.seeds]
        sources = [source for source in range(len(result.tasks)) if source != index]
        gain, source, strategy = max(
            (_mean_of(result, source, index, strategy, lambda pair: pair.gain), source, strategy)
            for source in sources
            for strategy in result.strategies
        )
        train = statistics.fmean(one.train[index] for one in result.seeds)
        best = f"{source + 1} · {clean(result.tasks[source])}"
        rows.append([f"{index + 1} · {clean(name)}", f"{train:.0f}", accuracy(statistics.fmean(alone)), best, strategy, f"{gain:+.3f}"])
    return Grid(["task", "images", "alone", "best source", "by", "gain"], rows, ("best source", "by"))


def _parts(folder: Path, result: TransferRecord) -> list[Part]:
    """Draw, for each measure, the gains by the first strategy beside its distances; for the others the gains beside the first's."""
    parts = []
    count = range(len(result.tasks))
    names = [clean(name) for name in result.tasks]
    shown = [(result.strategies[0], measure) for measure in result.measures]
    shown += [(strategy, result.measures[0]) for strategy in result.strategies[1:] if result.measures]
    for number, (strategy, measure) in enumerate(shown, 1):
        gains: Rows = [[None if i == j else _mean_of(result, i, j, strategy, lambda pair: pair.gain) for i in count] for j in count]
        distances: Rows = [[None if i == j else _distance(result, measure, i, j) for i in count] for j in count]
        words = f"gain of each task by each source, by {strategy}, beside the distances by {measure}"
        titles = (f"Gain of the target by '{strategy}'", f"Distance by {measure}")
        picture = Picture.draw(
            folder / f"transfer-{number:02d}.png",
            lambda path, theme, rows=(gains, distances), titles=titles: pair_heatmaps(names, *rows, titles, path, theme=theme),
        )
        parts.append(Part(f"{clean(measure)}, and what is gained by '{strategy}'", clean(words), picture))
    return parts


def _mean_of(result: TransferRecord, source: int, target: int, strategy: str, of: Callable[[PairRecord], float | None]) -> float:
    """Return the mean of a number of a pair over seeds."""
    found = [of(pair) or 0.0 for one in result.seeds for pair in _of_pair(one.pairs, source, target) if pair.strategy == strategy]
    return statistics.fmean(found)


def _of_pair(pairs: Sequence[PairRecord], source: int, target: int) -> list[PairRecord]:
    return [pair for pair in pairs if (pair.source, pair.target) == (source, target)]


def _distance(result: TransferRecord, measure: str, source: int, target: int) -> float:
    rows = [found.distances for one in result.seeds for found in one.measured if found.measure == measure]
    return statistics.fmean(row[target][source] or 0.0 for row in rows)


def _tau(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}"


def _threshold(one: RuleRecord) -> str:
    if one.rule == "best threshold" and one.threshold is None:
        return "never"
    return ABSENT if one.threshold is None else f"{one.threshold:.3g}"


def _signed(value: float | None, form: Callable[[float], str]) -> str:
    """Write how much more or less than by the oracle."""
    number = finite(value) or 0.0
    return f"{'-' if number < 0 else '+'}{form(abs(number))}"
