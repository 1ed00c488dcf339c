"""How long runs will take: each method by its own runs, and what is not known is not said."""

from pathlib import Path
from typing import Any

import pytest

from lifelong.data.task import TaskDescription
from lifelong.records.run import RunRecord
from lifelong.reproduction import remaining
from lifelong.reproduction.plan import Choice, Job, job
from lifelong.reproduction.remaining import RunHeartbeat, Times, pixels_of
from lifelong.training.stages import Epoch
from tests.report.made import record, run


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(choice: Choice, method: str, stream: str = "cifar100-10", seed: int = 0, row: str = "", **differing: Any) -> Job:
    return job(row or method, method, method, stream, seed, choice, differing)


def took(seconds: float, *train: int) -> RunRecord:
    """A summary: tasks of so many images, of one pixel."""
    tasks = [record(train=images, image_size=1) for images in train]
    return run(seconds=seconds, tasks=tasks, accuracy=[[None] * row for row in range(1, len(train) + 1)])


def test_a_method_is_judged_by_its_own_runs(tiny, clock):
    """Finetune takes 34 s, and says nothing of PAR."""
    times = Times(clock=clock)
    par, finetune = made(tiny, "par", seed=1), made(tiny, "finetune", seed=1)
    assert times.left([(par, 100.0), (finetune, 100.0)]) == "time left not known yet"
    times.end(made(tiny, "finetune"), took(34.0, 50, 50))
    assert times.left([(finetune, 100.0)]) == "about 34 s left"
    assert times.left([(par, 100.0)]) == "time left not known yet"
    assert times.left([(par, 100.0), (finetune, 100.0)]) == (
        "about 34 s left for 1 of 2 runs; how long the methods of the others take is not known yet"
    )
    times.end(made(tiny, "par"), took(3600.0, 50, 50))
    assert times.left([(par, 100.0), (finetune, 100.0)]) == "about 1 h 01 min left"


def test_on_another_stream_the_time_grows_with_the_pixels(tiny, clock):
    times = Times(clock=clock)
    times.end(made(tiny, "lwf"), took(10.0, 50, 50))
    times.end(made(tiny, "lwf", seed=1), took(30.0, 50, 50))
    assert times.of(made(tiny, "lwf", seed=2), 999.0) == 20.0  # of the same stream: its mean
    assert times.of(made(tiny, "lwf", "ctrl-s-minus"), 400.0) == 80.0  # 40 s for 200 pixels
    assert times.of(made(tiny, "par", "ctrl-s-minus"), 400.0) is None


def test_thresholds_of_a_figure_are_runs_of_one_method_but_variants_are_not(tiny, clock):
    times = Times(clock=clock)
    times.end(made(tiny, "par", row="par-alpha0.25", alpha=0.25), took(60.0, 100))
    assert times.of(made(tiny, "par", row="par-alpha0", alpha=0.0), 100.0) == 60.0
    assert times.of(made(tiny, "par", row="par-fixed", variant="fixed"), 100.0) is None


def test_runs_under_way_count_with_what_is_left_of_them(tiny, clock):
    times = Times(2, clock)
    jobs = [(made(tiny, "lwf", seed=seed), 1.0) for seed in (1, 2, 3)]
    times.end(made(tiny, "lwf"), took(40.0, 1))
    times.begin(jobs[0][0])
    clock.now = 30.0
    assert times.left(jobs) == "about 45 s left"  # 10, 40 and 40 s, by two at once
    assert times.left(jobs[2:]) == "about 40 s left"  # one run is not shared


def test_a_run_that_was_stopped_counts_whole_and_a_straight_one_with_its_reading(tiny, clock):
    times = Times(clock=clock)
    one, other = made(tiny, "lwf"), made(tiny, "hat")
    times.begin(one)
    clock.now = 5.0
    assert times.end(one, took(40.0, 1)) == 40.0
    times.begin(other)
    clock.now = 50.0
    assert times.end(other, took(40.0, 1)) == 45.0


def heart(clock, whole: float | None) -> tuple[RunHeartbeat, list[str]]:
    """Of a run of three tasks, of which the second has twice the images."""
    said: list[str] = []
    tasks = [TaskDescription(name, "made", ("a", "b"), train, 1, 1, 2) for name, train in (("one", 10), ("two", 20), ("three", 10))]
    assert pixels_of(tasks) == [40.0, 80.0, 40.0]
    beat = RunHeartbeat(said.append, "", whole, pixels_of(tasks), clock)
    beat.run_started("s", "m", 3, 0)
    beat.task_started(0, "one")
    beat.phase("train")
    return beat, said


def test_a_long_run_says_how_far_it_is(clock):
    beat, said = heart(clock, None)
    for epoch in (1, 2, 3):
        clock.now += remaining.QUIET / 2
        beat.epoch(Epoch("train", epoch, 4, 0.5, 0.25))
    assert said == ["  task 1 of 3, train: epoch 2 of 4, loss 0.500, accuracy 0.250, 30 s left"]
    clock.now = 60.0
    beat.task_finished(0, record(), [0.5])
    beat.task_started(1, "two")
    beat.phase("evaluate")
    clock.now = 70.0
    beat.advance(100, 400)
    # A task of 40 pixels took 60 s: 120 s for this one, of which 10 are over, and 60 for the next.
    assert said[1:] == ["  task 2 of 3, evaluate; about 3 min 00 s left of this run"]
    clock.now = 100.0
    beat.advance(200, 400)
    assert said[2:] == ["  task 2 of 3, evaluate: 200 of 400 images, 40 s left; about 2 min 20 s left of this run"]


def test_a_run_like_others_knows_its_time_from_the_start(clock):
    beat, said = heart(clock, 160.0)
    clock.now = 30.0
    beat.epoch(Epoch("train", 1, 2, 0.5, 0.25))
    assert said == ["  task 1 of 3, train: epoch 1 of 2, loss 0.500, accuracy 0.250, 30 s left; about 2 min 10 s left of this run"]


def test_tables_say_it(tiny, place, tmp_path: Path):
    from lifelong.reproduction.make import make

    said: list[str] = []
    choice = Choice(tiny.scale, (0, 1), ("finetune", "lwf"), ("cifar100-10",))
    make("table3", choice, tmp_path, place, said.append, tolerance=0.02)
    begun = [line.partition(", seed ")[2] for line in said if line.startswith("run ")]
    assert begun[0] == "0, time left not known yet"
    assert " left for 1 of 3 runs; " in begun[1]
    assert all(line.startswith("1, about ") and line.endswith(" left") for line in begun[2:])
