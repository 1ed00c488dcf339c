"""Rank correlation and rules that read distances: by hand, and against a public implementation."""

import numpy as np
import pytest
from scipy import stats

from lifelong.experiment.agreement import OTHER_SEEDS, agreement, kendall_tau, repeatability, rules
from lifelong.records.transfer import LearnedAlone, MeasuredRecord, PairRecord, ThresholdDecision, TransferSeed


def test_tau_by_hand() -> None:
    """Of six pairs one is turned round: (5 - 1) / 6. With a tie in b, five pairs of b and six of a are ordered: 5 / sqrt(30)."""
    assert kendall_tau(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(4 / 6)
    assert kendall_tau(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 2, 4])) == pytest.approx(5 / 30**0.5)
    assert kendall_tau(np.array([1.0, 2]), np.array([2.0, 1])) == -1
    for nothing in (np.array([]), np.array([1.0]), np.array([3.0, 3])):
        assert kendall_tau(nothing, nothing) is None


@pytest.mark.parametrize("seed", range(5))
def test_tau_against_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 6, 30).astype(float), generator.integers(0, 40, 30).astype(float)
    assert kendall_tau(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)


def pair(
    source: int,
    target: int,
    gain: float,
    *,
    change: float = 0.0,
    valid: float = 0.5,
    valid_change: float | None = None,
    strategy: str = "share",
) -> PairRecord:
    seconds, parameters = (2.0, 10) if strategy == "share" else (1.0, 100)
    numbers = {"accuracy": 0.5 + gain, "valid_accuracy": valid, "valid_change": valid_change, "parameters": parameters, "seconds": seconds}
    return PairRecord(source=source, target=target, strategy=strategy, gain=gain, change=change, **numbers)


def measured(name: str, rows: list[list[float | None]]) -> MeasuredRecord:
    return MeasuredRecord(measure=name, divergences=rows, distances=rows)


NEAR = [[None, 0.1, 0.9], [0.2, None, 0.8], [0.7, 0.6, None]]
"""Row j, column i: of task j from task i."""

MADE = TransferSeed(
    seed=0,
    train=[10, 10, 10],
    alone=[LearnedAlone(accuracy=0.5, valid_accuracy=0.55, parameters=1000, seconds=4.0)] * 3,
    pairs=[
        pair(1, 0, 0.25, change=-0.125),
        pair(2, 0, 0.125),
        pair(0, 1, 0.125, change=0.125, valid=0.75),
        pair(2, 1, -0.25),
        pair(0, 2, -0.125),
        pair(1, 2, -0.375, valid=0.625),
    ],
    measured=[measured("good", NEAR)],
    decisions={
        "good": [
            ThresholdDecision(source=1, strategy="share"),
            ThresholdDecision(source=0, strategy="cell"),
            ThresholdDecision(source=1, strategy="alone"),
        ]
    },
)


def test_agreement_by_hand() -> None:
    """Pairs by distance: .1 .2 .6 .7 .8 .9, their gains: .25 .125 -.375 -.125 -.25 .125.

    Of fifteen pairs of pairs, nearer gains more in nine, less in five, and one is tied (.125 twice): 4 / sqrt(15 * 14).
    """
    gains, both = agreement([MADE], ["good"], ["share"])
    assert (gains.both, both.both) == (False, True)
    assert gains.tau == pytest.approx(4 / (15 * 14) ** 0.5)
    # Of the first task the nearer source helps more, of the second too, of the third less.
    assert gains.by_target == [1, 1, -1]
    assert gains.tau_of_targets == pytest.approx(1 / 3)
    # With the changes of the sources: .125 .25 -.375 -.125 -.25 .125; the first task's two sources are worth the same.
    assert both.by_target == [None, 1, -1]
    assert both.tau_of_targets == 0


def test_rules_by_hand() -> None:
    """The oracle: by the second source (.125, which equals the first, is as costly), by the first (.25), alone (0); 0.125 in the mean."""
    found = {rule.rule: rule for rule in rules([MADE], ["good"], ["share"], 0.5)}
    assert list(found) == ["oracle", "validation", "alone", "thresholds", "best threshold", "nearest", "two nearest"]
    oracle = found["oracle"]
    assert (oracle.value, oracle.regret, oracle.parameters, oracle.seconds) == (0.125, 0, (10 + 10 + 1000) / 3, (2 + 2 + 4) / 3)
    assert oracle.shared == pytest.approx(2 / 3)
    # Alone 0.55 on validation images beats 0.5; the second task shares (0.75); the third shares with the wrong one (0.625).
    assert found["validation"].value == pytest.approx((0 + 0.25 - 0.375) / 3)
    assert found["validation"].seconds == 2 + 2 + 4
    alone = found["alone"]
    assert (alone.value, alone.regret, alone.shared, alone.more_parameters) == (0, 0.125, 0, 1000 - 340)
    # The second task's cell was not tried: as alone.
    assert found["thresholds"].value == pytest.approx(0.125 / 3)
    assert found["thresholds"].threshold == 0.5
    assert found["nearest"].value == pytest.approx((0.125 + 0.25 - 0.375) / 3)
    assert found["nearest"].threshold is None
    # Alone (0.55); the second task with the first (0.75), the third with the second (0.625), since there are two sources only.
    assert found["two nearest"].value == found["validation"].value
    assert found["two nearest"].seconds == 2 + 2 + 4
    # Up to 0.2 the first two share with their nearest.
    assert found["best threshold"].threshold == 0.2
    assert found["best threshold"].value == pytest.approx(0.125)
    assert found["best threshold"].regret == pytest.approx(0)


def test_never_sharing_can_be_the_best_threshold() -> None:
    worse = MADE.model_copy(update={"pairs": [pair(one.source, one.target, -0.25) for one in MADE.pairs]})
    found = {rule.rule: rule for rule in rules([worse], ["good"], ["share"], 0.5)}
    assert found["best threshold"].threshold is None
    assert found["best threshold"].value == 0


def test_the_validation_images_of_the_source_count_too() -> None:
    """The first task: 0.5 + 0.25 beats 0.55 alone. The second: 0.75 - 0.5 does not. The third: 0.625 - 0.125 does not."""
    changes = {(1, 0): 0.25, (2, 0): 0.0, (0, 1): -0.5, (2, 1): 0.0, (0, 2): 0.0, (1, 2): -0.125}
    pairs = [one.model_copy(update={"valid_change": changes[one.source, one.target]}) for one in MADE.pairs]
    found = {rule.rule: rule for rule in rules([MADE.model_copy(update={"pairs": pairs})], ["good"], ["share"], 0.5)}
    both = found["validation of both"]
    assert both.value == pytest.approx(0.125 / 3)
    assert both.seconds == 2 + 2 + 4
    assert both.regret_on_validation == 0
    assert found["validation"].regret_on_validation == pytest.approx((0.125 - (0 + 0.25 - 0.375)) / 3)
    # Without validation images of the targets there is nothing to choose by.
    blind = [one.model_copy(update={"valid_accuracy": None}) for one in pairs]
    assert "validation of both" not in {rule.rule for rule in rules([MADE.model_copy(update={"pairs": blind})], ["good"], ["share"], 0.5)}
    # One that is not known is enough.
    known = MADE.model_copy(update={"pairs": [*pairs[:-1], MADE.pairs[-1]]})
    assert "validation of both" not in {rule.rule for rule in rules([known], ["good"], ["share"], 0.5)}


def test_rules_share_by_each_strategy() -> None:
    pairs = [*MADE.pairs, *(pair(one.source, one.target, 0.125, strategy="head") for one in MADE.pairs)]
    found = rules([MADE.model_copy(update={"pairs": pairs})], ["good"], ["share", "head"], 0.5)
    nearest = {rule.strategy: rule.value for rule in found if rule.rule == "nearest"}
    assert nearest == {"share": 0, "head": 0.125}
    assert [rule.strategy for rule in found if rule.rule == "thresholds"] == [None]


def test_gains_agree_with_those_of_other_seeds() -> None:
    """Three seeds: equal gains, and once turned round, so that the mean of the others decides."""
    turned = MADE.model_copy(update={"pairs": [pair(one.source, one.target, -(one.gain or 0)) for one in MADE.pairs]})
    (found,) = repeatability([MADE, MADE, turned], ["share"])[:1]
    assert found.measure == OTHER_SEEDS
    # The first two: the mean of the others is zero everywhere. The third: the others say the opposite.
    assert found.by_seed == [None, None, -1]
    assert repeatability([MADE], ["share"]) == []


def test_tau_of_means_over_seeds() -> None:
    """Gains that cancel out leave those of the third seed."""
    turned = MADE.model_copy(update={"pairs": [pair(one.source, one.target, -(one.gain or 0)) for one in MADE.pairs]})
    gains = next(one for one in agreement([MADE, turned, MADE], ["good"], ["share"]) if not one.both)
    assert gains.tau_of_means == pytest.approx(4 / (15 * 14) ** 0.5)
    assert gains.tau == pytest.approx(gains.tau_of_means / 3)
