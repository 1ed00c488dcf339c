from typing import get_args

import pytest

from lifelong.api import configure
from lifelong.methods.registry import METHODS
from lifelong.settings.baselines import FinetuneSettings, HATSettings, LwFSettings
from lifelong.settings.fields import check, settings_of
from lifelong.settings.growing import GrowingSettings
from lifelong.settings.par import PARSettings
from lifelong.settings.presets import ABOUT, PRESETS, STREAM_PRESETS, preset_values
from lifelong.settings.pretrained import PretrainedSettings
from lifelong.settings.run import Preset
from lifelong.settings.training import TrainingSettings
from lifelong.streams.named_streams import stream_names

LAYERS = [*PRESETS.items(), *((preset, table) for preset, streams in STREAM_PRESETS.items() for table in streams.values())]
ROWS = [(preset, cls, key, value) for preset, table in LAYERS for cls, values in table.items() for key, value in values.items()]


def test_every_preset_has_a_table_and_a_line():
    assert set(PRESETS) == set(STREAM_PRESETS) == set(ABOUT) == set(get_args(Preset))


@pytest.mark.parametrize(("preset", "cls", "key", "value"), ROWS)
def test_every_row_sets_a_setting_to_an_accepted_value(preset, cls, key, value):
    assert check({**settings_of(TrainingSettings), **settings_of(cls)}[key].hint, value) == value


@pytest.mark.parametrize("method", METHODS)
def test_paper_is_the_defaults(method):
    config = configure("digits", method, preset="paper")
    assert config.settings == METHODS[method].settings()
    assert config.training == TrainingSettings()


def test_the_defaults_are_the_run_settings_of_cifar100_10():
    training, par = TrainingSettings(), PARSettings()
    assert (training.epochs, training.batch_size, training.lr, training.weight_decay, training.patience) == (100, 64, 0.01, 0.003, 20)
    assert (training.schedule, training.clip_norm, training.momentum) == ("cosine", 10.0, 0.9)
    assert (par.search_epochs, par.search_lr, par.search_clip_norm) == (100, 0.01, 5.0)
    assert (par.cells, par.init_channels, par.alpha, par.beta) == (4, 64, 0.5, 0.75)


def test_authors_code_is_the_code_in_every_row_that_differs():
    par = configure("digits", "par", preset="authors-code").settings
    differing = {key for key in settings_of(PARSettings) if getattr(par, key) != getattr(PARSettings(), key)}
    assert {key: getattr(par, key) for key in differing} == {
        "clamp": "class",
        "zero_is_far": True,
        "map_before_mean": True,
        "freeze_ratio": 0.5,
        "tiny_task": 25,
        "tiny_weight_decay": 10.0,
        "stop_reuse_early": False,
        "search_projection": "softmax",
        "search_channels": 64,
        "search_bn": "running",
        "search_idle": "move",
        "search_ties": "first",
        "reduce_bn": False,
        "frozen_augment": True,
    }
    # Rows in which the default is the code's behaviour already.
    assert (par.group_reduce, par.feature_split, par.feature_input, par.leave_one_out) == ("mean", "valid", "task", False)
    assert (par.kd_weight, par.temperature, par.train_old_heads, par.tiny_task_ratio) == (1.0, 2.0, False, 10.0)
    assert par.search_sampling == "epoch"
    assert configure("digits", "finetune", preset="authors-code").settings == FinetuneSettings(stem_pool=True, start="kaiming")
    assert configure("digits", "lwf", preset="authors-code").settings == LwFSettings(stem_pool=True, start="kaiming")


# The authors' run files of baselines on MiniImageNet-20: epochs, batch, rate, weight decay, and the method's own weight.
BASELINES = {
    "ewc": (50, 64, 0.025, 0.001, {"fisher": "batched", "penalty": "average", "penalty_weight": 3000.0}),
    "mas": (50, 64, 0.025, 0.001, {"importance": "par-code", "penalty_weight": 300.0}),
    "lwf": (50, 64, 0.025, 0.001, {"kd_weight": 2.0, "temperature": 2.0, "train_old_heads": True}),
    "independent": (50, 64, 0.025, 0.003, {}),
    "pnn": (50, 64, 0.025, 0.03, {"lateral_scales": "normal", "lateral": "adapter"}),
    # Its run file is not read; these are the values in the code.
    "learn-to-grow": (20, 128, 0.01, 0.0003, {"search_epochs": 100, "search_lr": 0.025, "search_alpha_lr": 0.01, "size_weight": 1.0}),
}


@pytest.mark.parametrize("method", BASELINES)
def test_authors_code_has_the_run_files_of_baselines(method):
    config = configure("miniimagenet-20", method, preset="authors-code")
    training, (*trained, own) = config.training, BASELINES[method]
    assert [training.epochs, training.batch_size, training.lr, training.weight_decay] == trained
    assert (training.momentum, training.clip_norm, training.schedule, training.patience) == (0.9, 5.0, "cosine", 0)
    assert {key: getattr(config.settings, key) for key in own} == own
    reduced = configure("miniimagenet-20?tasks=2", method, preset="authors-code")
    assert (reduced.training, reduced.settings) == (config.training, config.settings)
    assert configure("miniimagenet-20", "par", preset="authors-code").training == TrainingSettings()
    assert configure("cifar100-10", method, preset="authors-code").training == TrainingSettings()
    assert configure("miniimagenet-20", method, preset="paper").training == TrainingSettings()
    assert configure("miniimagenet-20", method, preset="authors-code", epochs=3).training.epochs == 3


@pytest.mark.parametrize("method", [name for name, entry in METHODS.items() if not issubclass(entry.settings, PretrainedSettings)])
def test_quick_is_shorter_and_gives_every_method_the_same_width(method):
    config = configure("digits", method, preset="quick")
    assert config.settings.init_channels == preset_values("quick", "digits", PARSettings)["init_channels"] < 64
    # Cells have no units to gate, and no blocks to exchange.
    chain = isinstance(config.settings, GrowingSettings) and type(config.settings)().backbone
    expected = chain or ("light-resnet18" if isinstance(config.settings, HATSettings) else "cells")
    assert getattr(config.settings, "backbone", "cells") == expected
    assert config.training.epochs < TrainingSettings().epochs


# The authors' run files: epochs, weight decay, schedule, patience, factor of a cut.
RUN_FILES = {
    "ctrl-s-minus": (300, 0.03, "cosine", 100, 0.1),
    "ctrl-s-plus": (300, 0.03, "plateau", 30, 0.1),
    "ctrl-s-pl": (300, 0.03, "plateau", 30, 0.1),
    "ctrl-s-in": (500, 0.03, "plateau", 30, 0.3),
    "ctrl-s-out": (500, 0.03, "plateau", 30, 0.3),
    "ctrl-s-long": (300, 0.03, "cosine", 100, 0.1),
    "miniimagenet-20": (100, 0.003, "cosine", 20, 0.1),
    "cifar100-10": (100, 0.003, "cosine", 20, 0.1),
}


@pytest.mark.parametrize("stream", RUN_FILES)
def test_authors_code_has_the_run_files_of_the_streams(stream):
    config = configure(stream, "par", preset="authors-code")
    training = config.training
    assert (
        training.epochs,
        training.weight_decay,
        training.schedule,
        training.patience,
        training.plateau_factor,
    ) == RUN_FILES[stream]
    short = stream.startswith("ctrl")
    assert (training.batch_size, config.settings.search_epochs) == ((32, 50) if short else (64, 100))
    assert (training.min_lr, training.lr, training.clip_norm) == (1e-6, 0.01, 10.0)
    assert config.settings.freeze_ratio == 0.5, "the rows for all streams hold as well"


@pytest.mark.parametrize("stream", RUN_FILES)
def test_paper_takes_the_lengths_of_the_run_files_alone(stream):
    config = configure(stream, "lwf")
    epochs = RUN_FILES[stream][0]
    short = stream.startswith("ctrl")
    assert config.training == (TrainingSettings(epochs=epochs, batch_size=32, patience=100) if short else TrainingSettings())
    assert config.settings == LwFSettings()
    assert configure(stream, "par").settings == PARSettings(search_epochs=50 if short else 100)


def test_what_is_given_wins_over_a_row_of_a_stream_and_quick_has_none():
    assert configure("ctrl-s-in", epochs=7).training == TrainingSettings(epochs=7, batch_size=32, patience=100)
    for method in METHODS:
        assert configure("ctrl-s-in", method, preset="quick").training == configure("digits", method, preset="quick").training


def test_rows_are_of_streams_that_exist():
    assert {stream for table in STREAM_PRESETS.values() for stream in table} <= set(stream_names())
