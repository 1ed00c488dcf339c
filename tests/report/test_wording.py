import math
import re
from pathlib import Path
from typing import get_args

import pytest

from lifelong.records.task import DECISION_KINDS, TaskRecord
from lifelong.relatedness.groups import Kind
from lifelong.report import groups, wording
from lifelong.report.canvas import DARK, LIGHT
from lifelong.report.groups import MEANINGS, group_shapes
from tests.report.made import record, run


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8534, "0.853"), (1.0, "1.000"), (-0.0201, "-0.020"), (-0.0001, "0.000"), (0, "0.000"), (None, "–"), (float("nan"), "–")],
)
def test_accuracy_has_three_digits(value, text):
    assert wording.accuracy(value) == text


def test_peak_memory():
    assert wording.peak_memory(run()) == "–"
    assert wording.peak_memory(run(peak_memory_bytes=812_000_000, peak_device_memory_bytes=None)) == "812.0 MB"
    assert wording.peak_memory(run(peak_memory_bytes=1_200_000_000, peak_device_memory_bytes=0)) == "1.20 GB; 0 B on the GPU"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (650, "650"), (17_712, "17.7 k"), (999_949, "999.9 k"), (999_950, "1.000 M"), (607_050, "607.0 k"), (1_400_000, "1.400 M")],
)
def test_parameters(value, text):
    assert wording.parameters(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8412, "0.84 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (185.2, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7450, "2 h 04 min"),
        (None, "–"),
    ],
)
def test_duration(value, text):
    assert wording.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (12_300, "12.3 kB"), (812_000_000, "812.0 MB"), (1.2e9, "1.20 GB")]
)
def test_size(value, text):
    assert wording.size(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.3121, "0.312"), (48.06, "48.1"), (1234.5, "1234"), (-0.05, "-0.050"), (None, "–")])
def test_distance(value, text):
    assert wording.three_digits(value) == text


def test_spread_is_mean_and_sample_deviation():
    assert wording.spread([0.8, 0.9], wording.accuracy) == "0.850 ± 0.071"
    assert wording.spread([0.8], wording.accuracy) == "0.800"
    assert wording.spread([0.8, None], wording.accuracy) == "0.800"
    assert wording.spread([None], wording.accuracy) == "–"


def test_clean_leaves_nothing_that_a_terminal_acts_on():
    assert wording.clean("a\nb\t c\x1b[31m\x00\u202e") == "a b c\ufffd[31m\ufffd\ufffd"
    assert wording.short("w" * 90, 10) == "w" * 9 + "…"


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ([0.9, 0.31], "0.310 ≤ α 0.5"),
        ([0.5], "0.500 ≤ α 0.5"),
        ([0.7512, 0.7], "0.700 ≤ β 0.75"),
        ([0.96], "0.960 > β 0.75"),
        ([], "–"),
        ([None], "–"),
    ],
)
def test_against_thresholds(groups, text):
    assert wording.against_thresholds(record(group_distances=groups, alpha=0.5, beta=0.75)) == text


def test_decision_names_the_expert():
    assert wording.decision(record(decision="reuse-expert", expert=0, frozen=True)) == "reuse-expert, frozen → expert 0"
    assert wording.decision(record(decision=None, expert=3)) == "–"


def test_curve_and_ends_of_the_accuracies():
    rows = [[0.5], [0.4, 0.8], [0.3, 0.9, 0.6]]
    assert wording.curve(rows) == pytest.approx([0.5, 0.6, 0.6])
    assert wording.curve([[0.5], [None, 0.8]]) == pytest.approx([0.5, math.nan], nan_ok=True)  # not judged: unknown, not 0
    assert wording.learned_and_now(rows) == ([0.5, 0.8, 0.6], [0.3, 0.9, 0.6])
    assert wording.learned_and_now([]) == ([], [])


def test_without_task_names():
    found = {"mean_accuracy": 0.6123, "mean_routing": 0.8}
    line = wording.without_names(run(task_agnostic=found))
    assert "accuracy 0.612" in line
    assert "identified correctly for 80 % of the test images" in line
    assert wording.without_names(run()) == ""


def task(decision: str | None = None, expert: int | None = None) -> TaskRecord:
    return record(decision=decision, expert=expert)


PAR = [task("search", 0), task("reuse-cell", 1), task("search", 2), task("reuse-expert", 0)]


@pytest.mark.parametrize("decided", DECISION_KINDS)
def test_every_decision_is_counted_has_words_a_colour_and_a_border(decided):
    summary = run(tasks=[task(decided, 0), task(decided, 0)], accuracy=[[0.8], [0.8, 0.9]])
    assert re.search(
        r"parameters: 2 [a-z]+ (searched|reused|allocated|share|on frozen|with adapters|with a side network)", wording.sentence(summary)
    )
    assert wording.decision(task(decided, 4)) == f"{decided} → expert 4"
    for theme in (LIGHT, DARK):
        assert theme.decision(decided) != theme.none
        shapes, _ = group_shapes(summary.tasks, theme)
        (legend,) = [shape for shape in shapes if shape.words == MEANINGS[decided]]
        assert legend.edge == theme.decision(decided)
    style = (Path(groups.__file__).parent / "templates" / "page.html.j2").read_text()
    assert re.search(rf"\.{decided}[ ,]", style)


def test_kinds_that_meet_in_one_run_have_their_own_colours():
    assert set(DECISION_KINDS) == set(MEANINGS) >= set(get_args(Kind))
    for theme in (LIGHT, DARK):
        assert len({theme.decision(decided) for decided in get_args(Kind)}) == len(get_args(Kind))


@pytest.mark.parametrize(
    ("tasks", "rows", "more", "words"),
    [
        (
            PAR,
            [[0.8], [0.8, 0.9], [0.8, 0.9, 0.7], [0.8, 0.92, 0.7, 1.0]],
            {"ap": 0.855, "af": 0.005},
            "4 tasks learned with 3 experts and 93.8 k parameters: 2 cells searched, 1 reused, 1 task shares an earlier expert; "
            "85.5 % correct on average, nothing forgotten.",
        ),
        (
            [task("search", 0) | {"edges": 16, "undecided_edges": 5}, task("search", 1) | {"edges": 16, "undecided_edges": 0}],
            [[0.8], [0.8, 0.9]],
            {"ap": 0.85, "af": 0.0},
            "2 tasks learned with 2 experts and 93.8 k parameters: 2 cells searched (5 of 32 edges undecided); "
            "85.0 % correct on average, nothing forgotten.",
        ),
        (
            [task("reuse-cell", 0), task("reuse-expert", 0), task("reuse-expert", 0)],
            [[0.8], [0.6, 0.9], [0.7, 0.95, 0.5]],
            {"ap": 0.717, "af": -0.0167},
            "3 tasks learned with 1 expert and 93.8 k parameters: 1 cell reused, 2 tasks share an earlier expert; "
            "71.7 % correct on average, 1.7 points forgotten on average.",
        ),
        (
            [task("allocate", 0), task("reuse-expert", 0), task("allocate", 1)],
            [[0.8], [0.8, 0.9], [0.8, 0.9, 0.7]],
            {"ap": 0.8, "af": 0.0},
            "3 tasks learned with 2 experts and 93.8 k parameters: 2 experts allocated, 1 task shares an earlier expert; "
            "80.0 % correct on average, nothing forgotten.",
        ),
        (
            [task(), task()],
            [[0.8], [0.3, 0.9]],
            {"ap": 0.6, "af": -0.25},
            "2 tasks learned with 93.8 k parameters; 60.0 % correct on average, 25.0 points forgotten on average.",
        ),
        (
            [task(None, 0), task(None, 1), task(None, 2)],
            [[0.8], [0.7, 0.5], [0.7, 0.8, 0.9]],
            {"ap": 0.8, "af": 0.0667},
            "3 tasks learned with 3 experts and 93.8 k parameters; 80.0 % correct on average, nothing forgotten on average "
            "(the worst task lost 10.0 points).",
        ),
        (
            [task()],
            [[1.0]],
            {"ap": 1.0, "af": 0.0, "complete": False},
            "1 task learned so far with 93.8 k parameters; 100.0 % correct on average.",
        ),
        ([task()], [[None]], {"ap": None, "af": None}, "1 task learned with 93.8 k parameters."),
        ([], [], {"ap": None, "complete": False}, "Nothing has been learned yet."),
    ],
)
def test_one_sentence(tasks, rows, more, words):
    assert wording.sentence(run(tasks=tasks, accuracy=rows, parameters=93_800, **more)) == words
