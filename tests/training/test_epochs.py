"""The resumable loop by a sum of its own: it goes on where it was stopped, ends when it has decided, and is not run twice."""

from functools import partial
from pathlib import Path

import pytest

from lifelong.errors import DivergedError
from lifelong.training.epochs import EpochLoop, run_stage
from lifelong.training.stages import Epoch, Stage


class Adding(EpochLoop[tuple[float, float]]):
    """Adds the numbers of its epochs, until the sum is above `enough`."""

    def __init__(self, stage: Stage, enough: float = 99.0, losses: tuple[float, ...] = (0.5, 0.4, 0.3, 0.2)) -> None:
        super().__init__(stage, len(losses))
        self.enough, self.losses, self.sum, self.ran = enough, losses, 0, []
        self.resume()

    def _decided(self):
        return self.sum > self.enough

    def _epoch(self, epoch):
        self.ran.append(epoch)
        self._check_loss(self.losses[epoch], "lr 1")
        self.sum += epoch
        return self.losses[epoch], float(self.sum)

    def _reported(self, row):
        return row

    def _state(self):
        return {"sum": self.sum}

    def _restore(self, saved):
        self.sum = saved["sum"]

    def _outcome(self):
        return {"sum": self.sum, "epochs": self.done, "history": self.history, "seconds": self.seconds}


HISTORY = [(0.5, 0.0), (0.4, 1.0), (0.3, 3.0), (0.2, 6.0)]


def stop(last: int, epoch: Epoch) -> None:
    if epoch.epoch == last:
        raise KeyboardInterrupt


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_goes_on_after_the_last_epoch_that_was_saved(last: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Adding(Stage("add", 0, folder=tmp_path, save_every=0.0, listener=partial(stop, last))).run()
    heard: list[Epoch] = []
    loop = Adding(Stage("add", 0, folder=tmp_path, save_every=0.0, listener=heard.append))
    before = loop.seconds
    found = loop.run()
    assert loop.ran == list(range(last - 1, 4))  # Stopped before the epoch it had just run was saved.
    assert (found["sum"], found["epochs"], found["history"]) == (6, 4, HISTORY)
    assert (before > 0) == (last > 1)
    assert found["seconds"] > before
    assert heard == [Epoch("add", epoch + 1, 4, *HISTORY[epoch]) for epoch in range(last - 1, 4)]


@pytest.mark.parametrize(("enough", "epochs"), [(0, 2), (2, 3), (99, 4)])
def test_ends_when_it_has_decided(enough: float, epochs: int) -> None:
    assert Adding(Stage("add", 0), enough).run()["history"] == HISTORY[:epochs]


def test_what_has_ended_is_read(tmp_path: Path) -> None:
    stage = Stage("add", 0, folder=tmp_path, save_every=0.0)
    found = run_stage(stage, lambda: Adding(stage))
    assert stage.running() is None
    assert run_stage(stage, lambda: pytest.fail("set up again")) == found


def test_the_epoch_of_a_loss_that_is_not_finite_is_counted_from_the_start(tmp_path: Path) -> None:
    losses = (0.5, 0.4, float("nan"))
    with pytest.raises(KeyboardInterrupt):
        Adding(Stage("add", 0, folder=tmp_path, save_every=0.0, listener=partial(stop, 2)), losses=losses).run()
    with pytest.raises(DivergedError, match="add, epoch 3, with lr 1"):
        Adding(Stage("add", 0, folder=tmp_path, save_every=0.0), losses=losses).run()
