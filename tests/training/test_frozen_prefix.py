"""A module behind a frozen one comes out the same, whether what it sees is computed once or in every step."""

import pytest
import torch
from torch import nn

from lifelong.data.task import Augmentation
from lifelong.networks.frozen import freeze
from lifelong.settings.training import TrainingSettings
from lifelong.training import frozen_prefix
from lifelong.training.examples import Examples, accuracy, image_examples
from lifelong.training.frozen_prefix import fit_behind
from lifelong.training.stages import Stage
from tests.made import made_task

TRAINING = TrainingSettings(epochs=3, batch_size=8, lr=0.05)


class Counting(nn.Sequential):
    """Counts the batches it is given."""

    calls = 0

    def forward(self, inputs):
        self.calls += 1
        return super().forward(inputs)


def prefix() -> Counting:
    torch.manual_seed(0)
    made = Counting(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
    with torch.no_grad():
        made[1].running_mean.fill_(0.2)
    freeze(made)
    return made


def module() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3))


def examples(augmentation: Augmentation | None = None) -> Examples:
    return image_examples(made_task(augmentation=augmentation or Augmentation()))


@pytest.mark.usefixtures("in_float64")
def test_computed_once_or_always(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, once = module(), prefix()
    cached = fit_behind(once, ours, examples(), TRAINING, Stage("train", 0))
    monkeypatch.setattr(frozen_prefix, "LARGEST_CACHE", 0)
    plain, always = module(), prefix()
    computed = fit_behind(always, plain, examples(), TRAINING, Stage("train", 0))
    assert once.calls < 6 < 3 * 6 < always.calls
    assert [score for _, _, score in cached.history] == [score for _, _, score in computed.history]
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_augmented_images_are_not_cached() -> None:
    always = prefix()
    before = {name: tensor.clone() for name, tensor in always.state_dict().items()}
    fit_behind(always, module(), examples(Augmentation(flip=True)), TRAINING, Stage("train", 0))
    assert always.calls > 3 * 5
    assert all(torch.equal(tensor, before[name]) for name, tensor in always.state_dict().items())
    assert all(parameter.grad is None for parameter in always.parameters())


def test_nothing_to_train_is_judged() -> None:
    whole, data = nn.Sequential(*prefix(), *module()[:-1], nn.Linear(4, 3)), examples()
    freeze(whole)
    outcome = fit_behind(whole, nn.Sequential(), data, TRAINING, Stage("train", 0))
    assert outcome.epochs == 0
    assert outcome.accuracy == accuracy(whole(data.prepare(data.valid)), data.valid_labels)
