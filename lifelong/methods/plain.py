"""Plain SGD, by which methods that mask or project gradients are published."""

from dataclasses import replace

from lifelong.settings.training import TrainingSettings


def plain_sgd(settings: TrainingSettings) -> TrainingSettings:
    """The training settings without momentum and weight decay.

    The rate is divided by one minus the momentum: in the long run that is how far a step with momentum goes. Who gives a rate and a
    momentum of 0 gives the rate of plain SGD itself.
    """
    return replace(settings, lr=settings.lr / (1 - settings.momentum), momentum=0.0, weight_decay=0.0, weight_decay_grid=())
