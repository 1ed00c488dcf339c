"""Plain SGD, by which methods that mask or project gradients are published."""

from dataclasses import replace

from lifelong.settings.training import TrainingSettings


def plain_sgd(settings: TrainingSettings) -> TrainingSettings:
    """Return the training settings without momentum and weight decay.

    The rate is divided by one minus the momentum, the long-run length of a step with momentum. With a momentum of 0 the rate is
    unchanged.
    """
    return replace(settings, lr=settings.lr / (1 - settings.momentum), momentum=0.0, weight_decay=0.0, weight_decay_grid=())
