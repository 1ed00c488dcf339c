"""Train a module behind a frozen prefix."""

import time
from dataclasses import replace

from torch import nn

from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples, accuracy, batched
from lifelong.training.fit import FitOutcome
from lifelong.training.select import fit_selected
from lifelong.training.stages import Stage

LARGEST_CACHE = 2 << 30
"""Bytes that the outputs of a frozen module may take; larger ones are computed again in every epoch."""


def fit_behind(prefix: nn.Sequential, module: nn.Sequential, examples: Examples, settings: TrainingSettings, stage: Stage) -> FitOutcome:
    """Run `fit_selected` on `module` with the outputs of a frozen `prefix`, computed once for all epochs if they do not change.

    They do change if training images are augmented: the prefix then runs in every step, without gradients.

    Args:
        prefix: frozen modules; may be empty.
        module: what is trained, in place; if it is empty the prefix is the whole network, and is only evaluated.
        examples: of images.
        settings: optimizer, schedule, length, grid of weight decays.
        stage: names the computation.
    """
    started = time.perf_counter()
    if not len(module):
        score = accuracy(batched(prefix, examples.valid, examples.prepare), examples.valid_labels)
        return FitOutcome(0, 0, score, settings.weight_decay, time.perf_counter() - started)
    if not len(prefix):
        return fit_selected(module, examples, module, settings, stage)
    if examples.augmented or _size(prefix, examples) > LARGEST_CACHE:
        return fit_selected(module, examples, lambda inputs: module(prefix(inputs)), settings, stage)
    features = examples.mapped(prefix)
    prepared = time.perf_counter() - started
    outcome = fit_selected(module, features, module, settings, stage)
    return replace(outcome, seconds=outcome.seconds + prepared)


def _size(prefix: nn.Module, examples: Examples) -> int:
    """Return the bytes of the prefix's outputs for both splits."""
    one = prefix(examples.prepare(examples.train[:1]))
    return one.numel() * one.element_size() * (len(examples.train) + len(examples.valid))
