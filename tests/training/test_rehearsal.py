"""A rehearsal of a loop, on a clock of its own: what it makes of a few steps, and that the loop is left alone without one."""

import pytest
import torch

from lifelong.storage import Tree
from lifelong.training import rehearsal
from lifelong.training.epochs import ResumableLoop
from lifelong.training.rehearsal import Rehearsal
from lifelong.training.stages import Stage

TRAIN, JUDGE, WARM = 0.25, 3.0, 7.0


class Clock:
    """Stands still unless it is moved."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rehearsal, "time", made)
    return made


class Loop(ResumableLoop):
    """A step takes a quarter of a second, what follows the steps of an epoch three; the first epoch takes seven more."""

    def __init__(self, stage: Stage, clock: Clock, epochs: int, steps: int, says_when: bool = True, decided: int = 1000) -> None:
        super().__init__(stage, epochs)
        self.clock, self.steps, self.says_when, self.decided, self.ran = clock, steps, says_when, decided, 0

    def _decided(self) -> bool:
        return self.done >= self.decided

    def _advance(self, epoch: int) -> tuple[float, float]:
        self.clock.now += WARM if not epoch else 0
        for _ in self.stage.some(range(self.steps)):
            self.clock.now += TRAIN
            self.ran += 1
        if self.says_when:
            self.stage.stepped()
        self.clock.now += JUDGE
        return 0.0, 0.0

    def _saved(self) -> Tree:
        return {}

    def _resume_from(self, saved: Tree) -> None: ...

    def _outcome(self) -> Tree:
        return {"ran": self.ran}


def test_a_few_steps_stand_for_all(clock: Clock) -> None:
    stage = Stage("train", 0, rehearsal=Rehearsal())
    assert Loop(stage, clock, epochs=50, steps=40).run() == {"ran": 2 * rehearsal.STEPS}
    assert stage.rehearsal is not None
    (found,) = stage.rehearsal.loops
    assert found.each == pytest.approx(40 * TRAIN + JUDGE)
    assert found.first == pytest.approx(40 * TRAIN + JUDGE + WARM)
    assert found.seconds(50) == pytest.approx(50 * (40 * TRAIN + JUDGE) + WARM)
    assert found.spent == pytest.approx(2 * (rehearsal.STEPS * TRAIN + JUDGE) + WARM) == pytest.approx(clock.now)


def test_without_a_word_the_whole_epoch_is_steps(clock: Clock) -> None:
    """What a search does after its steps belongs to them: another batch is judged in each round."""
    stage = Stage("search", 0, rehearsal=Rehearsal())
    Loop(stage, clock, epochs=3, steps=40, says_when=False).run()
    assert stage.rehearsal is not None
    assert stage.rehearsal.loops[0].each == pytest.approx(10 * (4 * TRAIN + JUDGE))


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_short_epochs_run_whole(clock: Clock, steps: int) -> None:
    stage = Stage("train", 0, rehearsal=Rehearsal())
    assert Loop(stage, clock, epochs=1, steps=steps).run() == {"ran": steps}
    assert stage.rehearsal is not None
    assert stage.rehearsal.loops[0].seconds(1) == pytest.approx(clock.now)


def test_a_loop_that_decides_at_once(clock: Clock) -> None:
    stage = Stage("search", 0, rehearsal=Rehearsal())
    Loop(stage, clock, epochs=10, steps=4, decided=0).run()
    assert stage.rehearsal is not None
    assert stage.rehearsal.loops[0].seconds(0) == 0.0
    assert stage.rehearsal.loops[0].epochs == 0


def test_quick_epochs_are_repeated_until_they_are_known(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "ENOUGH", 1e9)
    stage = Stage("train", 0, rehearsal=Rehearsal())
    assert Loop(stage, clock, epochs=50, steps=1).run() == {"ran": rehearsal.MOST}


def test_without_a_rehearsal_every_step_runs(clock: Clock) -> None:
    assert Loop(Stage("train", 0), clock, epochs=5, steps=40).run() == {"ran": 200}
    parts = tuple(torch.arange(6).split(2))
    assert all(one is other for one, other in zip(Stage("train", 0).some(parts), parts, strict=True))
