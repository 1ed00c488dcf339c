"""What may be tuned, how a grid is written, and what is refused."""

import pytest

from lifelong.api import configure, default_out
from lifelong.errors import LifelongError
from lifelong.methods.registry import METHODS
from lifelong.settings.fields import settings_of
from lifelong.settings.resolve import RUN_KEYS, config_toml, flat
from lifelong.settings.training import TrainingSettings
from lifelong.settings.tuning import TUNING_KEYS, Range
from tests.settings.test_resolve import refusal, write


def test_no_setting_has_the_name_of_a_key_of_tuning() -> None:
    for cls in [TrainingSettings, *(entry.settings for entry in METHODS.values())]:
        assert not {*settings_of(cls)} & ({*TUNING_KEYS} | {*RUN_KEYS})


@pytest.mark.parametrize(
    "given", ["lr=0.1,1e-3 kd-weight=10,1 augment=true,false", {"lr": [0.1, 0.001], "kd_weight": "10,1", "augment": [True, False]}]
)
def test_a_grid_as_text_or_dict(given) -> None:
    tuning = configure("digits", "lwf", grid=given, tolerance=0.02).tuning
    assert tuning is not None
    assert tuning.grid == (("lr", (0.1, 0.001)), ("kd_weight", (10.0, 1.0)), ("augment", (True, False)))
    assert tuning.tolerance == 0.02
    combinations = tuning.combinations()
    assert len(combinations) == 8
    # The first key changes slowest.
    assert combinations[:3] == [
        {"lr": 0.1, "kd_weight": 10.0, "augment": True},
        {"lr": 0.1, "kd_weight": 10.0, "augment": False},
        {"lr": 0.1, "kd_weight": 1.0, "augment": True},
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"grid": "lr=0.1,1e-07 augment=true,false temperature=1,3", "tolerance": 0.1},
        {"grid": "lr=1e-05..0.1 batch_size=2..8 schedule=plateau,cosine", "trials": 7},
    ],
)
def test_a_tuned_configuration_reads_back_equal(tmp_path, given) -> None:
    config = configure("digits", "lwf", 3, preset="quick", **given)
    again = configure(config=write(tmp_path, config_toml(config)))
    assert again == config
    assert flat(config)["grid"] == flat(again)["grid"]
    # What is chosen for each task has no value of its own.
    assert "lr" not in flat(config)
    assert "lr" in flat(configure("digits", "lwf"))
    assert "grid" not in flat(configure("digits", "lwf"))
    assert default_out(config).name == "digits-lwf-tuned-seed3"


def test_ranges_are_numbers_of_their_kind() -> None:
    tuning = configure("digits", "lwf", grid="lr=1e-3..1 batch-size=2..8", trials=3).tuning
    assert tuning is not None
    (_, rate), (_, size) = tuning.grid
    assert rate == Range(0.001, 1.0)
    assert isinstance(rate, Range)
    assert type(rate.high) is float
    assert size == Range(2, 8)
    assert isinstance(size, Range)
    assert type(size.low) is int


def test_a_grid_wins_over_the_value_of_a_file_but_not_of_a_flag(tmp_path) -> None:
    file = write(tmp_path, "lr = 0.5\n")
    assert configure("digits", "lwf", config=file, grid="lr=0.1,0.2") == configure("digits", "lwf", grid="lr=0.1,0.2")
    assert "lr is given by --lr 0.5 too" in refusal("digits", "lwf", lr=0.5, grid="lr=0.1,0.2")


def test_compared_methods_take_what_is_theirs() -> None:
    compared = ["lwf", "finetune"]
    grid = "lr=0.1,0.2 kd_weight=1,2"
    lwf, finetune = (configure("digits", name, grid=grid, compared=compared).tuning for name in compared)
    assert lwf is not None
    assert lwf.keys == ("lr", "kd_weight")
    assert finetune is not None
    assert finetune.keys == ("lr",)
    assert configure("digits", "finetune", grid="kd_weight=1,2", compared=compared).tuning is None
    with pytest.raises(LifelongError, match="kd_weight"):
        configure("digits", "finetune", grid="kd_weight=1,2")


@pytest.mark.parametrize(
    ("method", "given", "parts"),
    [
        ("lwf", {"grid": "lrr=1"}, ['--grid "lrr=1"', "'lrr' is not a setting", "did you mean 'lr'?"]),
        ("lwf", {"grid": "alpha=1"}, ["'alpha' is a setting of par, not of lwf"]),
        ("lwf", {"grid": "lr=0.1,0"}, ["lr=0", "a number > 0"]),
        ("lwf", {"grid": "lr=fast"}, ["lr=fast", "a number > 0"]),
        ("lwf", {"grid": "epochs=1.5"}, ["epochs=1.5", "an integer >= 1"]),
        ("lwf", {"grid": {"epochs": [1.5]}}, ["epochs=1.5", "an integer >= 1"]),
        ("lwf", {"grid": {"lr": []}}, ["lr: give at least one value"]),
        ("lwf", {"grid": "schedule=cosin"}, ["did you mean 'cosine'?"]),
        ("lwf", {"grid": "augment=maybe"}, ["augment=maybe", "true or false"]),
        ("lwf", {"grid": "lr=0.1,"}, ["lr=", "a number > 0"]),
        ("lwf", {"grid": "lr=0.1,0.10"}, ["without repetition"]),
        ("lwf", {"grid": "lr=0.1 lr=0.2"}, ["lr is given twice"]),
        ("lwf", {"grid": "lr"}, ["KEY=VALUE", "not 'lr'"]),
        ("lwf", {"grid": ""}, ["the grid is empty"]),
        ("lwf", {"grid": 3}, ["--grid 3", "KEY=VALUE"]),
        ("lwf", {"grid": "backbone=cells"}, ["backbone cannot be tuned: it must be the same for all tasks"]),
        ("lwf", {"grid": "init-channels=4,8"}, ["init_channels cannot be tuned: it must be the same for all tasks"]),
        ("lwf", {"grid": "stem_pool=true"}, ["stem_pool cannot be tuned: it must be the same for all tasks"]),
        ("gpm", {"grid": "batch_norm=shared"}, ["batch_norm cannot be tuned: it must be the same for all tasks"]),
        ("par", {"grid": "extractor=pixels"}, ["extractor cannot be tuned: it must be the same for all tasks"]),
        ("par", {"grid": "cells=2,4"}, ["cells cannot be tuned: it must be the same for all tasks"]),
        ("lwf", {"grid": "weight_decay_grid=1"}, ["weight_decay_grid is a list and cannot be tuned"]),
        ("lwf", {"grid": "weight_decay=0.1,1", "weight_decay_grid": [0.1]}, ["cannot be tuned together with --weight-decay-grid"]),
        ("par", {"grid": "alpha=0.1,0.9"}, ["beta = 0.75 is below alpha = 0.9"]),
        ("par", {"grid": "alpha=0.1..0.9", "trials": 2}, ["beta = 0.75 is below alpha = 0.9"]),
        ("lwf", {"grid": "lr=0.01..0.1"}, ["a range (lr) needs --trials N"]),
        ("lwf", {"grid": "lr=0.1..0.01", "trials": 2}, ["must be increasing"]),
        ("lwf", {"grid": "augment=false..true", "trials": 2}, ["a range needs a numeric setting"]),
        ("lwf", {"grid": "lr=0.1,1", "trials": 2, "tolerance": 0.1}, ["--trials", "--tolerance"]),
        ("lwf", {"grid": "lr=0.1,1", "trials": -1}, ["--trials -1", ">= 0"]),
        ("lwf", {"grid": "lr=0.1,1", "tolerance": 1}, ["--tolerance 1", "< 1"]),
        ("lwf", {"tolerance": 0.1}, ["--tolerance 0.1", "--grid"]),
        ("lwf", {"gird": "lr=0.1"}, ["--gird", "did you mean 'grid'?"]),
    ],
)
def test_bad_grids_are_one_clear_line(method, given, parts) -> None:
    line = refusal("digits", method, **given)
    for part in parts:
        assert part in line


def test_a_bad_grid_in_a_file_names_the_file(tmp_path) -> None:
    line = refusal("digits", "lwf", config=write(tmp_path, 'grid = "lr=0"'))
    assert "my.toml: grid" in line
    assert "lr=0: expected a number > 0" in line
