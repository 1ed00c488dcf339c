"""The presets as data: which settings differ from their defaults, on every stream and on particular ones.

``paper``
    The paper's text. Defaults are the paper's; where the paper is silent, they are those of the authors' run files for CIFAR100-10
    and MiniImageNet-20 (100 epochs of search and of training, batch 64, weight decay 0.003, patience 20). This preset therefore
    changes nothing, except on CTrL's streams, whose run files have other lengths.

``authors-code``
    What the authors' public code does where it differs from the paper, or from this library's reading where the paper is silent;
    `docs/methods/par.md` has the table, generated from this one, and says what is not followed. Behaviour of the code that is not
    listed is already the default. On CTrL's streams the run files add a weight decay outside the paper's grid and, except for S-,
    replace the paper's cosine by cuts on a plateau. Baselines have run files for MiniImageNet only; elsewhere their own weights are
    the arguments' defaults, and all methods are trained alike.

``quick``
    Small and short, for a laptop: narrow experts and few epochs, the same for all streams. PAR's new experts get a fixed cell, since
    searched ones have not been better by more than a standard deviation; `--variant par` searches, as the paper does. The baselines
    use PAR's cell network with the same cell, so that all networks have the same width and their sizes and accuracies are comparable;
    methods that gate units or grow by blocks use a narrow ResNet-18.

``practical``
    For your own images: PAR's decision on top of a pretrained network. Tasks get a head in closed form on its frozen features, read
    what related tasks answer, and where that is not accurate enough they get adapters, and then a small network beside them; seconds a
    task on a laptop, or minutes for thousands of images that need more than a head. It needs the network's weights. The other methods
    are trained as under ``paper``, and the classifiers on frozen features see images of the same size.

There is no run file for S_long, which uses the row of S-. Streams not named here, including your own, use the defaults.

A preset names the class that declares a setting, and applies to every method whose settings derive from that class. Training settings
listed under a method's class apply to that method only.
"""

from typing import Any

from lifelong.settings.baselines import (
    BackboneSettings,
    EWCSettings,
    HATSettings,
    IndependentSettings,
    LwFSettings,
    MASSettings,
)
from lifelong.settings.fields import settings_of
from lifelong.settings.growing import GrowingSettings, LearnToGrowSettings, PNNSettings
from lifelong.settings.par import PARSettings, SearchSettings
from lifelong.settings.pretrained import PretrainedSettings
from lifelong.settings.run import Preset
from lifelong.settings.training import TrainingSettings

DEFAULT: Preset = "paper"
"""The preset if none is given."""

Values = dict[type[Any], dict[str, Any]]
"""Settings by the class that declares them."""

PRESETS: dict[Preset, Values] = {
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
            "search_bn": "running",
            "search_idle": "move",
            "search_ties": "first",
            "reduce_bn": False,
        },
        BackboneSettings: {"stem_pool": True, "start": "kaiming"},
        GrowingSettings: {"stem_pool": True},
        EWCSettings: {"fisher": "batched", "penalty": "average", "penalty_weight": 10_000.0},
        MASSettings: {"importance": "par-code"},
        PNNSettings: {"lateral_scales": "normal"},
        LearnToGrowSettings: {"search_start": "random", "search_kept": "best", "size_weight": 1.0},
    },
    "quick": {
        TrainingSettings: {"epochs": 20, "batch_size": 32, "lr": 0.05},
        PARSettings: {"variant": "fixed+regularization", "search_epochs": 10, "search_lr": 0.05, "init_channels": 16},
        BackboneSettings: {"backbone": "cells", "init_channels": 16},
        HATSettings: {"backbone": "light-resnet18", "stem_pool": True},
        GrowingSettings: {"init_channels": 16, "stem_pool": True},
        LearnToGrowSettings: {"search_epochs": 10, "search_lr": 0.05},
    },
    "practical": {
        PretrainedSettings: {"feature_size": "64"},
        # A short training: adapters start as the frozen network.
        PARSettings: {
            "expert": "auto",
            "enough_accuracy": 0.9,
            "feature_size": "64",
            "epochs": 15,
            "batch_size": 32,
            "lr": 0.02,
            "patience": 0,
        },
    },
}

OWN_IMAGES: Values = {PARSettings: {"few_images": 20}}
"""What is set on your own images, where no published number has to be matched. Presets that follow the paper or the code do not set it
if you name them."""

_CTRL_EPOCHS = {
    "ctrl-s-minus": 300,
    "ctrl-s-plus": 300,
    "ctrl-s-in": 500,
    "ctrl-s-out": 500,
    "ctrl-s-pl": 300,
    "ctrl-s-long": 300,
}


def _ctrl(stream: str, **differing: Any) -> Values:
    """Return the settings of a CTrL stream under both presets, with those that differ."""
    # Patience 100 comes from the only run file with a cosine: it ends training. Those with a plateau have 30: it cuts the rate.
    training = {"epochs": _CTRL_EPOCHS[stream], "batch_size": 32, "patience": 100, **differing}
    return {TrainingSettings: training, SearchSettings: {"search_epochs": 50}}


def _plateau(factor: float) -> dict[str, Any]:
    return {"schedule": "plateau", "patience": 30, "plateau_factor": factor}


def _mini(weight_decay: float = 0.001, **own: Any) -> dict[str, Any]:
    """Return the settings of a baseline's run file on MiniImageNet-20: of training, and its own."""
    # Batch 64 is the default. No early stopping: the epoch with the best validation accuracy is kept.
    return {"epochs": 50, "lr": 0.025, "weight_decay": weight_decay, "clip_norm": 5.0, "patience": 0, **own}


_MINI: Values = {
    EWCSettings: _mini(penalty_weight=3000.0),
    MASSettings: _mini(penalty_weight=300.0),
    LwFSettings: _mini(kd_weight=2.0),
    IndependentSettings: _mini(0.003),
    PNNSettings: _mini(0.03),
    # Its code ignores the run file, except for the learning rate.
    LearnToGrowSettings: _mini(
        0.0003, epochs=20, batch_size=128, lr=0.01, search_epochs=100, search_lr=0.025, search_alpha_lr=0.01, search_alpha_decay=0.0003
    ),
}

STREAM_PRESETS: dict[Preset, dict[str, Values]] = {
    "paper": {stream: _ctrl(stream) for stream in _CTRL_EPOCHS},
    "authors-code": {
        "ctrl-s-minus": _ctrl("ctrl-s-minus", weight_decay=0.03),
        "ctrl-s-plus": _ctrl("ctrl-s-plus", weight_decay=0.03, **_plateau(0.1)),
        "ctrl-s-in": _ctrl("ctrl-s-in", weight_decay=0.03, **_plateau(0.3)),
        "ctrl-s-out": _ctrl("ctrl-s-out", weight_decay=0.03, **_plateau(0.3)),
        "ctrl-s-pl": _ctrl("ctrl-s-pl", weight_decay=0.03, **_plateau(0.1)),
        "ctrl-s-long": _ctrl("ctrl-s-long", weight_decay=0.03),
        "miniimagenet-20": _MINI,
    },
    "quick": {},
    # Raw pixels, since there is no network for images of 8 x 8.
    "practical": {"digits": {PretrainedSettings: {"feature_size": "task"}, PARSettings: {"expert": "head", "feature_size": "task"}}},
}
"""What a preset sets on a particular stream, overriding what it sets on all. Source: the authors' run files, `par2.sh`."""

ABOUT: dict[Preset, str] = {
    "paper": "the paper's text, completed by the authors' run settings",
    "authors-code": "what the authors' public code does where it differs from the paper",
    "quick": "small and short, for a laptop",
    "practical": "PAR's decision on top of a pretrained network, for your own images",
}
"""One line per preset, for help texts."""


def preset_values(preset: Preset | None, stream: str, settings: type[Any], method: type[Any] | None = None) -> dict[str, Any]:
    """Return what a preset sets in a settings class on a stream; everything else keeps its default.

    Args:
        preset: its name; None: "paper", with the settings for your own images.
        stream: its name, address or path.
        settings: settings class of a method, or of training.
        method: settings class of the method being trained, whose rows may set training settings.
    """
    name, chosen = stream.partition("?")[0], preset or DEFAULT
    own = preset in (None, "quick", "practical") and (":" in name or name.endswith(".toml"))
    layers = (PRESETS[chosen], OWN_IMAGES if own else {}, STREAM_PRESETS[chosen].get(name, {}))
    known = settings_of(settings)
    return {
        key: value
        for layer in layers
        for cls, values in layer.items()
        if issubclass(settings, cls) or (method is not None and issubclass(method, cls))
        for key, value in values.items()
        if key in known
    }
