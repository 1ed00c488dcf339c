"""The order of runs on several workers: one of each kind, then the longest first."""

from pathlib import Path

import pytest

from lifelong.experiment.job import RunJob, RunOutcome, perform
from lifelong.experiment.turns import Turns
from tests.experiment.small_sweeps import HERE, small

EPOCHS = (1, 2, 3)
"""Three kinds of runs, of two seeds each: positions 0 to 2, and 3 to 5."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return perform(RunJob(small(0), tmp_path_factory.mktemp("turns") / "run", HERE))


def jobs() -> list[RunJob]:
    return [RunJob(small(seed, epochs), Path(f"{epochs}-{seed}"), HERE) for seed in range(2) for epochs in EPOCHS]


def lasting(outcome: RunOutcome, seconds: float) -> RunOutcome:
    assert outcome.summary is not None
    return RunOutcome(outcome.summary.model_copy(update={"seconds": seconds}))


def test_one_of_each_kind_then_the_longest(finished: RunOutcome) -> None:
    turns = Turns(jobs())
    assert [turns.next() for _ in EPOCHS] == [0, 1, 2]
    for position, seconds in enumerate((5.0, 60.0, 9.0)):
        turns.ended(position, lasting(finished, seconds))
    assert [turns.next() for _ in EPOCHS] == [4, 5, 3]
    assert not turns


def test_a_run_under_way_counts_with_what_it_has_taken(finished: RunOutcome) -> None:
    now = 0.0
    turns = Turns(jobs(), lambda: now)
    first = [turns.next() for _ in EPOCHS]
    turns.ended(0, lasting(finished, 30.0))
    turns.ended(1, lasting(finished, 4.0))
    now = 10.0  # the third has been under way for ten seconds, and may take longer
    assert [*first, turns.next(), turns.next(), turns.next()] == [0, 1, 2, 3, 5, 4]


def test_failures_say_nothing(finished: RunOutcome) -> None:
    now = 0.0
    turns = Turns(jobs(), lambda: now)
    for _ in EPOCHS:
        turns.next()
    turns.ended(0, RunOutcome(None, "no"))
    turns.ended(1, lasting(finished, 3.0))
    turns.ended(2, lasting(finished, 2.0))
    assert [turns.next() for _ in EPOCHS] == [4, 5, 3]
