"""No training step makes the host wait for the device (`tests/pretend.py`): where it waits at every step, a GPU idles.

At an epoch's end it may wait a few times, for the mean loss and the accuracy, however many steps the epoch has; and so it may before and
after a training. That every method keeps to this, `test_on_device.py` asserts of the trainings it makes.
"""

import pytest
import torch
import torch.nn.functional as F

from lifelong.methods.finetune import Finetune
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.training import TrainingSettings
from tests.methods.test_on_device import learn
from tests.steps import Watch, watched

SETTINGS = FinetuneSettings(init_channels=4)

LOSS_AND_ACCURACY, KEPT = 2, 2
"""Waits of an epoch; and of one that is the best so far, whose answers and weights are looked at before they are kept."""


def watch_finetune(method: Finetune, device: torch.device, batch_size: int) -> Watch:
    with watched() as watch:
        learn(method, device, TrainingSettings(epochs=3, batch_size=batch_size), tasks=1, on_epoch=watch.epoch)
    return watch


@pytest.mark.parametrize(("batch_size", "steps"), [(12, 2), (4, 6)])
def test_an_epoch_waits_as_often_however_long_it_is(batch_size: int, steps: int, accelerator: torch.device) -> None:
    watch = watch_finetune(Finetune(SETTINGS), accelerator, batch_size)
    assert watch.within == [[]] * 3 * (steps - 1)
    assert [len(syncs) for syncs in watch.between] == [LOSS_AND_ACCURACY + KEPT, LOSS_AND_ACCURACY]


class Asks(Finetune):
    """Looks at the loss of each step."""

    def loss(self, head, examples):
        def loss(batch):
            value = F.cross_entropy(head(self.features(batch.inputs, 0)), batch.labels)
            return value if value.item() < 1e6 else value * 0

        return loss


class Brings(Finetune):
    """Makes a tensor of the host's numbers in each step."""

    def loss(self, head, examples):
        def loss(batch):
            return F.cross_entropy(
                head(self.features(batch.inputs, 0)), batch.labels, weight=torch.tensor([1.0, 1.0, 2.0], device=batch.labels.device)
            )

        return loss


class Chooses(Finetune):
    """Takes the images of one class from each batch."""

    def loss(self, head, examples):
        return lambda batch: F.cross_entropy(head(self.features(batch.inputs, 0))[batch.labels > 0], batch.labels[batch.labels > 0])


@pytest.mark.parametrize(("kind", "operation"), [(Asks, "_local_scalar_dense"), (Brings, "copy_"), (Chooses, "index")])
def test_a_step_that_waits_is_found(kind: type[Finetune], operation: str, accelerator: torch.device) -> None:
    watch = watch_finetune(kind(SETTINGS), accelerator, batch_size=8)
    assert all(syncs for syncs in watch.within)
    assert operation in {sync.operation for sync in watch.waits()}
