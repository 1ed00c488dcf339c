"""Measure how well distances predict transfer: by rank correlation, and by the regret of rules that decide by a distance."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from jaxtyping import Float

from lifelong.records.transfer import AgreementRecord, MeasuredRecord, PairRecord, RuleRecord, TransferSeed

ALONE = "alone"
"""The strategy that uses no other task."""


def kendall_tau(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float | None:
    """Compute Kendall's tau-b of two rankings, in [-1, 1]; None if either is all ties.

    tau-b = (concordant - discordant pairs) / sqrt(pairs that a does not tie * pairs that b does not tie)

    Source: Kendall, Biometrika 33 (1945).
    """
    score = untied_a = untied_b = 0
    for index in range(len(a) - 1):
        of_a, of_b = np.sign(a[index] - a[index + 1 :]), np.sign(b[index] - b[index + 1 :])
        score += int((of_a * of_b).sum())
        untied_a, untied_b = untied_a + int(np.abs(of_a).sum()), untied_b + int(np.abs(of_b).sum())
    return score / math.sqrt(untied_a * untied_b) if untied_a and untied_b else None


OTHER_SEEDS = "other seeds"
"""In place of a measure's name: the mean gain of the same pair with the other seeds."""


def agreement(seeds: Sequence[TransferSeed], measures: Sequence[str], strategies: Sequence[str]) -> list[AgreementRecord]:
    """Correlate each measure's distances with each strategy's gains and, where sources change, with gain plus change.

    Args:
        seeds: the measurements of each seed.
        measures: names of the measures.
        strategies: names of the strategies.
    """
    # By divergences, not distances: in float64, Eq. 6 maps all very far tasks to the same value.
    divergences = [{found.measure: np.array(found.divergences, dtype=float) for found in one.measured} for one in seeds]
    return [
        _agreement(measure, *kind, [-divergences[number][measure] for number in range(len(seeds))], _gains(seeds, *kind))
        for measure in measures
        for kind in _kinds(seeds, strategies)
    ]


def repeatability(seeds: Sequence[TransferSeed], strategies: Sequence[str]) -> list[AgreementRecord]:
    """Correlate the gains of each seed with their mean over the other seeds, which says how far any measure can agree with them.

    Args:
        seeds: the measurements of each seed; with a single one there is nothing to compare.
        strategies: names of the strategies.
    """
    if len(seeds) < 2:
        return []
    found = []
    for kind in _kinds(seeds, strategies):
        gains = _gains(seeds, *kind)
        others = [np.mean([*gains[:index], *gains[index + 1 :]], axis=0) for index in range(len(gains))]
        found.append(_agreement(OTHER_SEEDS, *kind, others, gains).model_copy(update={"tau_of_means": None}))
    return found


def _kinds(seeds: Sequence[TransferSeed], strategies: Sequence[str]) -> list[tuple[str, bool]]:
    return [(strategy, both) for strategy in strategies for both in (False, True) if not both or _changes(seeds, strategy)]


def _changes(seeds: Sequence[TransferSeed], strategy: str) -> bool:
    """Tell whether a strategy changes the accuracy of any source."""
    return any(pair.change for one in seeds for pair in one.pairs if pair.strategy == strategy)


def _gains(seeds: Sequence[TransferSeed], strategy: str, both: bool) -> list[Float[np.ndarray, "t t"]]:
    """Return each seed's gains by target (rows) and source; NaN on the diagonal."""
    found = []
    for one in seeds:
        gains = np.full((len(one.alone), len(one.alone)), np.nan)
        for pair in one.pairs:
            if pair.strategy == strategy:
                gains[pair.target, pair.source] = value_of(pair) if both else pair.gain or 0.0
        found.append(gains)
    return found


def _agreement(
    measure: str, strategy: str, both: bool, near: Sequence[Float[np.ndarray, "t t"]], gains: Sequence[Float[np.ndarray, "t t"]]
) -> AgreementRecord:
    """Correlate nearness with gains, of each seed by target (rows) and source."""
    by_seed = [_tau(*one) for one in zip(near, gains, strict=True)]
    by_target = [[_tau(a[target], b[target]) for target in range(len(b))] for a, b in zip(near, gains, strict=True)]
    means = [_mean(column) for column in zip(*by_target, strict=True)]
    return AgreementRecord(
        measure=measure,
        strategy=strategy,
        both=both,
        tau=_mean(by_seed),
        by_seed=by_seed,
        tau_of_means=_tau(np.mean(near, axis=0), np.mean(gains, axis=0)),
        tau_of_targets=_mean(means),
        by_target=means,
    )


def _tau(near: Float[np.ndarray, "*shape"], gains: Float[np.ndarray, "*shape"]) -> float | None:
    """Compute tau of the pairs that have both numbers; the diagonal has none."""
    known = ~(np.isnan(near) | np.isnan(gains))
    return kendall_tau(near[known], gains[known])


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _measured(one: TransferSeed, measure: str) -> MeasuredRecord:
    return next(found for found in one.measured if found.measure == measure)


def value_of(pair: PairRecord) -> float:
    """Return the value of a pair: the gain of the target plus the change of the source."""
    return (pair.gain or 0.0) + (pair.change or 0.0)


@dataclass(frozen=True)
class _Option:
    """One way to learn a task.

    Attributes:
        value: gain of the target plus change of the source; 0 when learned alone.
        valid: accuracy on the validation images; -1 if not known.
        valid_both: the same plus the change of the source's accuracy on its own; None if not known.
        parameters: parameters that the task adds.
        seconds: time to learn it.
        alone: whether no other task is used.
    """

    value: float
    valid: float
    valid_both: float | None
    parameters: int
    seconds: float
    alone: bool = False


@dataclass(frozen=True)
class _Arrival:
    """A task that arrives when every other task has its own expert.

    Attributes:
        seed: the measurements of its seed.
        target: its position.
        options: its options by source and strategy; `(None, ALONE)` for alone.
    """

    seed: TransferSeed
    target: int
    options: dict[tuple[int | None, str], _Option]

    @property
    def alone(self) -> _Option:
        return self.options[None, ALONE]

    def nearest(self, measure: str) -> list[tuple[int, float]]:
        """Return the sources with their distances, the nearest first; of equals the first in the stream."""
        measured = _measured(self.seed, measure)
        row = measured.divergences[self.target]
        sources = sorted((source for source in range(len(row)) if source != self.target), key=lambda source: row[source] or 0.0)
        return [(source, measured.distances[self.target][source] or 0.0) for source in sources]

    def tried(self, measure: str, strategy: str) -> list[_Option]:
        """Return the options of trying alone and with the two nearest sources."""
        return [self.alone, *(self.options[source, strategy] for source, _ in self.nearest(measure)[:2])]


def rules(seeds: Sequence[TransferSeed], measures: Sequence[str], strategies: Sequence[str], alpha: float) -> list[RuleRecord]:
    """Evaluate each rule against two oracles: the best choice for each task by its test images, in hindsight, and the best by validation.

    The first takes the best of many noisy numbers, which no rule can reach. The second chooses by the validation images of both tasks, and
    is judged by test images as every rule is.

    Args:
        seeds: the measurements of each seed; rules decide for each of its tasks.
        measures: names of the measures by which rules decide.
        strategies: names of the strategies; there is a rule of each kind for each.
        alpha: the threshold of the settings, for the record of the rule "thresholds".
    """
    arrivals = [_arrival(one, target) for one in seeds for target in range(len(one.alone))]
    best = [max(each.options.values(), key=lambda option: (option.value, -option.parameters, -option.seconds)) for each in arrivals]
    tried = [sum(option.seconds for option in each.options.values()) for each in arrivals]
    by_validation = [_best_on_valid(list(each.options.values())) for each in arrivals]
    by_both = [_best_on_both(each) for each in arrivals]
    known = [option for option in by_both if option is not None]
    honest = fmean(option.value for option in known) if len(known) == len(arrivals) else None

    def record(
        rule: str,
        chosen: list[_Option],
        seconds: list[float] | None = None,
        *,
        measure: str | None = None,
        strategy: str | None = None,
        threshold: float | None = None,
    ) -> RuleRecord:
        spent = [option.seconds for option in chosen] if seconds is None else seconds
        mean, least = _means(chosen, spent), _means(best, [option.seconds for option in best])
        return RuleRecord(
            rule=rule,
            measure=measure,
            strategy=strategy,
            threshold=threshold,
            value=mean[0],
            regret=least[0] - mean[0],
            regret_on_validation=None if honest is None else honest - mean[0],
            parameters=mean[1],
            more_parameters=mean[1] - least[1],
            seconds=mean[2],
            more_seconds=mean[2] - least[2],
            shared=fmean(not option.alone for option in chosen),
        )

    found = [record("oracle", best)]
    if honest is not None:
        found.append(record("validation of both", known, tried))
    found += [record("validation", by_validation, tried), record("alone", [each.alone for each in arrivals])]
    for measure in measures:
        by_thresholds = [each.options[_told(each, measure)] for each in arrivals]
        found.append(record("thresholds", by_thresholds, measure=measure, threshold=alpha))
        for strategy in strategies:
            sharing = _sharing(arrivals, measure, strategy)
            best_one = _best_threshold(arrivals, measure, sharing)
            threshold = best_one if best_one >= 0 else None
            found.append(record("best threshold", sharing(best_one), measure=measure, strategy=strategy, threshold=threshold))
            found.append(record("nearest", sharing(math.inf), measure=measure, strategy=strategy))
            few = [each.tried(measure, strategy) for each in arrivals]
            spent = [sum(option.seconds for option in options) for options in few]
            found.append(record("two nearest", [_best_on_valid(options) for options in few], spent, measure=measure, strategy=strategy))
    return found


def _best_on_valid(options: Sequence[_Option]) -> _Option:
    """Return the best option by the target's validation images; of equals the one with the fewest parameters."""
    return max(options, key=lambda option: (option.valid, -option.parameters))


def _best_on_both(each: _Arrival) -> _Option | None:
    """Return the best option by the validation images of both tasks; None if those of a source are not known."""
    valued = [(option.valid_both, -option.parameters, option) for option in each.options.values() if option.valid_both is not None]
    return max(valued, key=lambda one: one[:2])[2] if len(valued) == len(each.options) else None


def _means(chosen: Sequence[_Option], seconds: Sequence[float]) -> tuple[float, float, float]:
    return fmean(option.value for option in chosen), fmean(option.parameters for option in chosen), fmean(seconds)


def _arrival(one: TransferSeed, target: int) -> _Arrival:
    alone = one.alone[target]
    valid = alone.valid_accuracy
    options: dict[tuple[int | None, str], _Option] = {
        (None, ALONE): _Option(0.0, _known(valid), valid, alone.parameters, alone.seconds or 0.0, alone=True)
    }
    for pair in one.pairs:
        if pair.target == target:
            valid = pair.valid_accuracy
            both = None if valid is None or pair.valid_change is None else valid + pair.valid_change
            options[pair.source, pair.strategy] = _Option(value_of(pair), _known(valid), both, pair.parameters, pair.seconds or 0.0)
    return _Arrival(one, target, options)


def _known(valid: float | None) -> float:
    return -1.0 if valid is None else valid


def _told(each: _Arrival, measure: str) -> tuple[int | None, str]:
    """Return the option that the thresholds choose; alone, if that option was not tried."""
    decision = each.seed.decisions[measure][each.target]
    chosen = (decision.source, decision.strategy)
    return chosen if chosen in each.options else (None, ALONE)


def _sharing(arrivals: Sequence[_Arrival], measure: str, strategy: str) -> Callable[[float], list[_Option]]:
    """Return a function from a threshold to the choices: the nearest source's expert up to it, alone beyond."""
    nearest = [each.nearest(measure)[0] for each in arrivals]
    return lambda threshold: [
        each.options[source, strategy] if distance <= threshold else each.alone
        for each, (source, distance) in zip(arrivals, nearest, strict=True)
    ]


def _best_threshold(arrivals: Sequence[_Arrival], measure: str, sharing: Callable[[float], list[_Option]]) -> float:
    """Find the threshold with the highest value in hindsight; ties go to the lowest; -1 means always alone."""
    thresholds = [-1.0, *sorted({each.nearest(measure)[0][1] for each in arrivals})]
    return max(thresholds, key=lambda threshold: (fmean(option.value for option in sharing(threshold)), -threshold))
