import itertools
import json
import math
from dataclasses import replace

import pytest
import torch

from lifelong.relatedness.groups import Decision, TaskGroups, group_distances, needs_distances, to_distance
from lifelong.settings.par import PARSettings

PAPER = PARSettings()
AUTHORS = PARSettings(clamp="class", zero_is_far=True, map_before_mean=True, freeze_ratio=0.5, tiny_task=25)


def row(*values):
    return torch.tensor(values, dtype=torch.float64)


def groups(*opened):
    """One group per argument: the training images of its tasks; tasks are numbered group by group."""
    made = TaskGroups()
    for samples in opened:
        group = made.open(samples[0])
        for more in samples[1:]:
            made.join(group, more)
    return made


def decide(made, distances, samples=1000, settings=PAPER) -> Decision:
    return made.decide(row(*distances), samples, settings)


def test_eq_6_by_hand():
    mapped = to_distance(row(0.0, 0.3, 0.5, 0.75, 1.0, 3.0, 50.0))
    expected = [0.0, 0.3, 0.5, 0.75, 1 - math.exp(-2), 1 - math.exp(-6), 1.0]
    assert mapped.tolist() == pytest.approx(expected, abs=1e-15)


def test_eq_6_bends_at_0_7968():
    below, above = row(0.7968), row(0.7969)
    assert to_distance(below).item() == 0.7968
    assert to_distance(above).item() < 0.7969


def test_eq_6_is_monotone_and_stays_in_the_unit_interval():
    mapped = to_distance(torch.linspace(-2, 40, 20001, dtype=torch.float64))
    assert (mapped.diff() >= 0).all()
    assert mapped.min() == 0
    assert mapped.max() <= 1


def test_a_group_at_0_3_and_3_0():
    divergences, members = row(0.3, 3.0), [[0, 1]]
    assert group_distances(divergences, members, PAPER).item() == pytest.approx(0.963, abs=5e-4)
    assert group_distances(divergences, members, AUTHORS).item() == pytest.approx(0.649, abs=5e-4)
    made = groups([100, 100])
    assert decide(made, (0.3, 3.0)).decision == "search"
    assert decide(made, (0.3, 3.0), settings=AUTHORS).decision == "reuse-cell"


def test_group_reductions():
    divergences, members = row(0.2, 0.4, 0.9), [[0, 1], [2]]
    for reduce, expected in (("mean", 0.3), ("max", 0.4), ("min", 0.2)):
        for first in (False, True):
            distances = group_distances(divergences, members, replace(PAPER, group_reduce=reduce, map_before_mean=first))
            assert distances.tolist() == pytest.approx([expected, 1 - math.exp(-1.8)])


def test_negative_estimates_lower_a_mean_but_never_a_distance_below_zero():
    unclamped = replace(PAPER, clamp="none")
    assert group_distances(row(-0.2, 0.6), [[0, 1]], unclamped).item() == pytest.approx(0.2)
    assert group_distances(row(-0.8, 0.6), [[0, 1]], unclamped).item() == 0
    assert group_distances(row(-0.2, 0.6), [[0, 1]], replace(unclamped, map_before_mean=True)).item() == pytest.approx(0.3)


def test_zero_is_far_only_for_the_authors_code():
    assert decide(groups([100]), (0.0,)).distance == 0
    far = decide(groups([100]), (0.0,), settings=AUTHORS)
    assert (far.decision, far.distance, far.distances) == ("search", 1.0, (1.0,))
    assert decide(groups([100, 100]), (0.0, 0.2), settings=AUTHORS).distance == pytest.approx(0.6)


def test_the_first_task_is_searched_whatever_its_size():
    for settings in (PAPER, AUTHORS):
        decision = TaskGroups().decide(row(), 10, settings)
        assert (decision.decision, decision.group, decision.distance, decision.frozen) == ("search", None, None, False)


@pytest.mark.parametrize(
    ("distance", "wanted"),
    [(0.0, "reuse-expert"), (0.5, "reuse-expert"), (0.5000001, "reuse-cell"), (0.75, "reuse-cell"), (0.7500001, "search"), (4.0, "search")],
)
def test_thresholds(distance, wanted):
    decision = decide(groups([100], [100]), (50.0, distance))
    assert decision.decision == wanted
    assert decision.group == 1


def test_the_first_of_equally_near_groups():
    assert decide(groups([100], [100], [100]), (0.6, 0.4, 0.4)).group == 1
    assert decide(groups([100], [100]), (300.0, 200.0)).group == 0  # both mapped to 1


@pytest.mark.parametrize(
    ("samples", "largest", "paper", "authors"),
    [(400, 4000, False, True), (399, 4000, True, True), (4000, 400, False, False), (50, 4000, True, True), (4500, 4500, False, False),
     (3, 30, False, True), (2000, 4000, False, False), (1999, 4000, False, True)],
)  # fmt: skip
def test_frozen_strictly_below_the_ratio(samples, largest, paper, authors):
    """Facts 4.4; 3 of 30 is exactly a tenth, though 0.1 * 30 > 3 in binary."""
    made = groups([10, largest])
    assert decide(made, (0.2, 0.2), samples).frozen is paper
    assert decide(made, (0.2, 0.2), samples, AUTHORS).frozen is authors
    assert not decide(made, (0.6, 0.6), samples).frozen  # not joined


def test_tiny_tasks_of_the_authors_code():
    made = groups([5000], [200], [250])
    joined = decide(made, (4.0, 0.6, 3.0), 25, AUTHORS)
    assert (joined.decision, joined.group, joined.tiny, joined.frozen) == ("reuse-expert", 2, True, True)
    assert decide(made, (2.0, 0.6, 3.0), 25, AUTHORS).group == 0
    assert decide(made, (4.0, 0.6, 3.0), 26, AUTHORS).decision == "reuse-cell"
    assert decide(made, (4.0, 0.6, 3.0), 25).decision == "reuse-cell"  # the paper has no such rule
    small = decide(groups([200], [249]), (0.6, 0.9), 25, AUTHORS)
    assert (small.decision, small.tiny) == ("reuse-cell", False)  # no ample expert: the usual rule


@pytest.mark.parametrize(
    ("variant", "near", "middle", "far", "first"),
    [
        ("par", "reuse-expert", "reuse-cell", "search", "search"),
        ("fixed", "reuse-cell", "reuse-cell", "reuse-cell", "reuse-cell"),
        ("fine", "search", "search", "search", "search"),
        ("coarse+fine", "reuse-cell", "reuse-cell", "search", "search"),
        ("regularization", "reuse-expert", "reuse-expert", "reuse-expert", "reuse-cell"),
        ("regularization-searched", "reuse-expert", "reuse-expert", "reuse-expert", "search"),
        ("fixed+regularization", "reuse-expert", "reuse-cell", "reuse-cell", "reuse-cell"),
        ("fine+regularization", "reuse-expert", "search", "search", "search"),
    ],
)
def test_variants_of_table_5(variant, near, middle, far, first):
    settings = replace(PAPER, variant=variant, tiny_task=5)
    made = groups([100])
    assert [decide(made, (distance,), settings=settings).decision for distance in (0.3, 0.6, 5.0)] == [near, middle, far]
    assert TaskGroups().decide(row(), 100, settings).decision == first
    if not needs_distances(settings):
        blind = made.decide(None, 100, settings)
        assert (blind.decision, blind.distance, blind.divergences) == (far, None, ())
    else:
        with pytest.raises(ValueError, match="decides by distances"):
            made.decide(None, 100, settings)
    tiny = decide(made, (5.0,), 5, settings).decision
    assert tiny == ("reuse-expert" if settings.shares != "never" else far)


def test_only_variants_without_thresholds_need_no_distances():
    needed = {
        variant: needs_distances(replace(PAPER, variant=variant)) for variant in ("par", "fixed", "fine", "coarse+fine", "regularization")
    }
    assert needed == {"par": True, "fixed": False, "fine": False, "coarse+fine": True, "regularization": False}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_decides_nothing(bad):
    with pytest.raises(ValueError, match="divergence from task 1 is not a finite number"):
        decide(groups([100, 100]), (0.1, bad))


def test_one_distance_per_task():
    with pytest.raises(ValueError, match="1 divergences for 2"):
        decide(groups([100, 100]), (0.1,))


@pytest.mark.parametrize(
    ("distances", "samples", "settings", "words"),
    [
        ((0.41, 9.0), 1000, PAPER, "0.410 ≤ α 0.5 from group 0: shared"),
        ((0.41, 9.0), 99, PAPER, "0.410 ≤ α 0.5 from group 0: shared, head only (99 images < 0.1 × 1000)"),
        ((9.0, 0.6), 1000, PAPER, "0.600 ≤ β 0.75 from group 1: its cell reused"),
        ((9.0, 2.0), 1000, PAPER, "0.982 > β 0.75 from group 1: cell searched"),
        ((9.0, 0.1), 1000, replace(PAPER, variant="coarse+fine"), "0.100 ≤ β 0.75 from group 1: its cell reused"),
        (
            (9.0, 0.6),
            1000,
            replace(PAPER, variant="fixed+regularization"),
            "0.600 > α 0.5 from group 1: new expert with the fixed cell DARTS_V1",
        ),
        ((9.0, 0.6), 1000, replace(PAPER, variant="fine+regularization"), "0.600 > α 0.5 from group 1: cell searched, as always"),
        ((0.3, 0.1), 1000, replace(PAPER, variant="regularization"), "every task shares the one expert: shared"),
        (
            (9.0, 0.6),
            5,
            replace(PAPER, tiny_task=5),
            "tiny task, 0.600 from group 1, the nearest that has learned 10 × 5 images or more: shared, head only (5 images < 0.1 × 1000)",
        ),
    ],
)
def test_reasons(distances, samples, settings, words):
    assert decide(groups([1000], [1000]), distances, samples, settings).reason == words


def test_a_decision_holds_everything_and_goes_through_json():
    decision = decide(groups([10, 2000], [30]), (0.2, 0.4, 9.0), 150)
    assert json.loads(json.dumps(decision.as_dict())) == {
        "decision": "reuse-expert", "group": 0, "distance": pytest.approx(0.3), "frozen": True, "tiny": False, "reason": decision.reason,
        "samples": 150, "alpha": 0.5, "beta": 0.75, "divergences": [0.2, 0.4, 9.0], "distances": [0.2, 0.4, pytest.approx(1.0)],
        "group_distances": [pytest.approx(0.3), pytest.approx(1.0)], "largest": [2000, 30], "warning": "",
    }  # fmt: skip


def test_groups_keep_tasks_and_sizes():
    made = TaskGroups()
    assert made.open(400) == 0
    assert made.open(40) == 1
    made.join(0, 4000)
    made.join(1, 20)
    assert (made.members, made.largest, made.tasks, len(made)) == ([[0, 2], [1, 3]], [4000, 40], 4, 2)
    assert [made.group_of(task) for task in range(4)] == [0, 1, 0, 1]
    again = TaskGroups.from_state(json.loads(json.dumps(made.state())))
    again.open(7)
    assert again.members == [[0, 2], [1, 3], [4]]
    assert made.members == [[0, 2], [1, 3]]


def test_deciding_changes_nothing():
    made = groups([400], [40])
    before = made.state()
    for distances, samples in itertools.product([(0.1, 0.6), (0.7, 0.6), (9.0, 9.0)], [10, 1000]):
        decide(made, distances, samples, AUTHORS)
    assert made.state() == before
