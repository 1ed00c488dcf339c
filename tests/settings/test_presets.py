from typing import get_args

import pytest

from lifelong.api import configure
from lifelong.methods.registry import METHODS
from lifelong.settings.baselines import FinetuneSettings, LwFSettings
from lifelong.settings.fields import check, settings_of
from lifelong.settings.par import PARSettings
from lifelong.settings.presets import ABOUT, PRESETS, preset_values
from lifelong.settings.run import Preset
from lifelong.settings.training import TrainingSettings

ROWS = [(preset, cls, key, value) for preset, table in PRESETS.items() for cls, values in table.items() for key, value in values.items()]


def test_every_preset_has_a_table_and_a_line():
    assert set(PRESETS) == set(ABOUT) == set(get_args(Preset))


@pytest.mark.parametrize(("preset", "cls", "key", "value"), ROWS)
def test_every_row_sets_a_setting_to_an_accepted_value(preset, cls, key, value):
    assert check(settings_of(cls)[key].hint, value) == value


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
        "reduce_bn": False,
        "frozen_augment": True,
    }
    # Rows in which the default is the code's behaviour already.
    assert (par.group_reduce, par.feature_split, par.feature_input, par.leave_one_out) == ("mean", "valid", "task", False)
    assert (par.kd_weight, par.temperature, par.train_old_heads, par.tiny_task_ratio) == (1.0, 2.0, False, 10.0)
    assert par.search_sampling == "epoch"
    assert configure("digits", "finetune", preset="authors-code").settings == FinetuneSettings(stem_pool=True)
    assert configure("digits", "lwf", preset="authors-code").settings == LwFSettings(stem_pool=True)


@pytest.mark.parametrize("method", METHODS)
def test_quick_is_shorter_and_gives_every_method_the_same_width(method):
    config = configure("digits", method, preset="quick")
    assert config.settings.init_channels == preset_values("quick", PARSettings)["init_channels"] < 64
    assert getattr(config.settings, "backbone", "cells") == "cells"
    assert config.training.epochs < TrainingSettings().epochs
