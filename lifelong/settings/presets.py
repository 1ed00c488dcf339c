"""The presets, as data: which settings differ from their defaults under each.

``paper``
    The paper's text. The defaults of the settings are the paper's, and where the paper is silent they are the settings of the
    authors' run file for CIFAR100-10 (100 epochs of search and of training, batch 64, weight decay 0.003, patience 20), so that
    this preset changes nothing. ``cifar100-10``, ``digits`` and streams from TOML files all take the defaults.

``authors-code``
    What the authors' public code does wherever it differs from the paper, or from what this library takes to be right where the
    paper is silent. Rows of the code's behaviour that are not listed are the defaults already.

``quick``
    Small and short, for a laptop: narrow experts and few epochs. The baselines take PAR's cell network with a fixed cell, so that
    every method's expert has the same width and their sizes and accuracies can be compared.

A preset names the class that declares a setting; it holds for every method whose settings derive from that class.
"""

from typing import Any

from lifelong.settings.baselines import BackboneSettings
from lifelong.settings.par import PARSettings
from lifelong.settings.run import Preset
from lifelong.settings.training import TrainingSettings

PRESETS: dict[Preset, dict[type[Any], dict[str, Any]]] = {
    "paper": {},
    "authors-code": {
        PARSettings: {
            "clamp": "class",
            "zero_is_far": True,
            "map_before_mean": True,
            "freeze_ratio": 0.5,
            "tiny_task": 25,
            "tiny_task_ratio": 10.0,
            "tiny_weight_decay": 10.0,
            "frozen_augment": True,
            "stop_reuse_early": False,
            "search_projection": "softmax",
            "search_channels": 64,
            "reduce_bn": False,
        },
        BackboneSettings: {"stem_pool": True},
    },
    "quick": {
        TrainingSettings: {"epochs": 20, "batch_size": 32, "lr": 0.05},
        PARSettings: {"search_epochs": 10, "search_lr": 0.05, "init_channels": 16},
        BackboneSettings: {"backbone": "cells", "init_channels": 16},
    },
}

ABOUT: dict[Preset, str] = {
    "paper": "the paper's text; where it is silent, the authors' run settings",
    "authors-code": "what the authors' public code does where it differs from the paper",
    "quick": "small and short, for a laptop",
}
"""One line about each preset, for help texts."""


def preset_values(preset: Preset, settings: type[Any]) -> dict[str, Any]:
    """What a preset sets in a settings class; everything else keeps its default."""
    return {key: value for cls, values in PRESETS[preset].items() if issubclass(settings, cls) for key, value in values.items()}
