import tomllib
from dataclasses import replace

import pytest

from lifelong.api import configure
from lifelong.errors import LifelongError
from lifelong.methods.registry import METHODS
from lifelong.settings.presets import PRESETS
from lifelong.settings.resolve import as_begun, config_toml, flat


def write(folder, text):
    file = folder / "my.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refusal(*words, **settings):
    with pytest.raises(LifelongError) as caught:
        configure(*words, **settings)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_later_sources_win(tmp_path):
    file = write(tmp_path, 'preset = "quick"\nbatch-size = 7\nepochs = 8\n')
    config = configure("digits", config=file, epochs=9)
    assert config.training.epochs == 9  # flag over file
    assert config.training.batch_size == 7  # file over preset
    assert config.training.lr == PRESETS["quick"][type(config.training)]["lr"]  # preset over default
    assert config.training.momentum == 0.9  # default
    assert configure("digits", config=file, preset="paper").training.lr == 0.01


def test_the_file_can_say_everything_and_flags_win(tmp_path):
    file = write(tmp_path, 'stream = "cifar100-10"\nmethod = "lwf"\nseed = 3\nkd_weight = 2\n')
    config = configure(config=file)
    assert (config.stream, config.method, config.seed, config.settings.kd_weight) == ("cifar100-10", "lwf", 3, 2.0)
    config = configure("digits", "par", 0, config=file)
    assert (config.stream, config.method, config.seed, config.settings.kd_weight) == ("digits", "par", 0, 2.0)


def test_what_is_not_given_has_a_default():
    config = configure("digits")
    assert (config.method, config.seed, config.preset) == ("par", 0, "paper")


@pytest.mark.parametrize("stream", ["folder:photos", "csv:list.csv?tasks=2", "mine.toml", "mine.toml?train_per_class=9"])
def test_tasks_of_ones_own_with_few_images_are_measured_by_all_of_them(stream):
    assert configure(stream).settings.few_images == configure(stream, preset="quick").settings.few_images == 20
    assert configure(stream, preset="paper").settings.few_images == configure(stream, preset="authors-code").settings.few_images == 0
    assert configure(stream, few_images=7).settings.few_images == 7
    assert configure(stream).preset == "paper"


@pytest.mark.parametrize("stream", ["digits", "cifar100-10?train_per_class=9", "ctrl-s-in"])
def test_a_benchmark_is_measured_as_published(stream):
    assert {configure(stream, preset=preset).settings.few_images for preset in (None, *PRESETS)} == {0}


def test_a_setting_that_a_run_does_not_know_is_as_it_was_before():
    config = configure("folder:photos", lr=0.5)
    stored = {key: value for key, value in flat(config).items() if key not in ("few_images", "lr")}
    known = as_begun(config, flat(config))
    before = as_begun(config, stored)
    assert known == config
    assert (before.settings.few_images, before.training.lr) == (0, 0.5)  # What was asked for stays, and is then refused.


def test_no_stream_is_an_error():
    assert "--stream" in refusal()
    assert "stream = '': expected a path, not an empty one" in refusal("")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_a_written_configuration_reads_back_equal(tmp_path, preset, method):
    config = configure('odd "name" \\ ä\x7f\U0001f600.toml', method, 5, preset=preset, weight_decay_grid=[0.1, 1e-7], min_lr=1e-12)
    text = config_toml(config)
    assert configure(config=write(tmp_path, text)) == config
    assert tomllib.loads(text) == flat(config)
    assert text.count("\n#") == 2
    assert text.startswith("# ")


def test_flat_holds_all_settings_once():
    config = configure("digits", "lwf", 1, epochs=3)
    values = flat(config)
    assert values["stream"] == "digits"
    assert values["epochs"] == 3
    assert values["temperature"] == 2.0
    assert values["weight_decay_grid"] == []
    assert "alpha" not in values
    assert flat(replace(config, seed=2)) == values | {"seed": 2}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('epochs = "ten"', ["my.toml", 'epochs = "ten"', "an integer >= 1"]),
        ("epochs = true", ["epochs = true", "an integer >= 1"]),
        ("epochs = 3.5", ["epochs = 3.5"]),
        ("epochs = 0", ["epochs = 0", ">= 1"]),
        ("batch-size = 1", ["batch_size = 1", ">= 2"]),
        ('alpha = "0.5"', ['alpha = "0.5"', "a number >= 0"]),
        ("lr = nan", ["lr", "a number > 0"]),
        ('clamp = "par"', ["'pair', 'class', 'none'", "did you mean 'pair'?"]),
        ("weight_decay_grid = [0.1, -1]", ["weight_decay_grid = [0.1, -1]", "a list"]),
        ("augment = 1", ["true or false"]),
        ("epoch = 3", ["my.toml", "'epoch'", "not a setting", "did you mean 'epochs'?"]),
        ("zzz = 3", ["my.toml", "'zzz'", "not a setting", "lifelong methods"]),
        ("backbone = 'cells'", ["'backbone' is a setting of finetune, independent, lwf,", "not of par"]),
        ("[par]\nalpha = 1", ["my.toml", "[par]", "without sections"]),
        ("lr = 0.1\nbatch_size = 3\nbatch-size = 4", ["batch_size", "twice"]),
        ("epochs = ", ["my.toml", "not valid TOML"]),
        ("epochs = 3\nlr 0.1", ["my.toml", "not valid TOML", "line 2"]),
        ('preset = "papr"', ["did you mean 'paper'?"]),
        ('method = "parr"', ["my.toml", "did you mean 'par'?"]),
        ("seed = -1", ["seed = -1", ">= 0"]),
        ('seed = "0"', ['seed = "0"']),
        ("stream = 3", ["stream = 3", "a text"]),
        ("beta = 0.4", ["my.toml", "beta = 0.4", "alpha = 0.5"]),
        ("alpha = 0.8", ["my.toml", "beta = 0.75", "alpha = 0.8"]),
        ("epochs = 2024-01-01", ["2024-01-01", "an integer"]),
    ],
)
def test_a_wrong_file_is_named_with_key_and_value(tmp_path, text, parts):
    line = refusal(None if "stream" in text else "digits", config=write(tmp_path, text))
    for part in parts:
        assert part in line


def test_files_that_cannot_be_read(tmp_path):
    assert "no.toml: No such file" in refusal("digits", config=tmp_path / "no.toml")
    assert "a folder, not a file" in refusal("digits", config=tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "binary.toml is not valid TOML" in refusal("digits", config=binary)


@pytest.mark.parametrize(
    ("method", "settings", "parts"),
    [
        ("par", {"epochs": "ten"}, ['--epochs "ten"', "an integer >= 1"]),
        ("par", {"batch_size": 1}, ["--batch-size 1", ">= 2"]),
        ("par", {"alhpa": 1.0}, ["--alhpa", "did you mean 'alpha'?"]),
        ("finetune", {"alpha": 1.0}, ["--alpha is a setting of par, not of finetune"]),
        ("par", {"alpha": 0.3, "beta": 0.2}, ["--beta", "beta = 0.2", "alpha = 0.3"]),
        ("parr", {}, ["did you mean 'par'?"]),
    ],
)
def test_a_wrong_flag_is_named_with_its_value(method, settings, parts):
    line = refusal("digits", method, **settings)
    for part in parts:
        assert part in line


def test_equal_thresholds_are_allowed():
    assert configure("digits", alpha=0.75).settings.alpha == 0.75


def test_in_a_comparison_a_key_need_only_be_of_one_method(tmp_path):
    compared = ["par", "finetune"]
    file = write(tmp_path, "backbone = 'cells'\nalpha = 0.1\n")
    assert configure("digits", "par", compared=compared, config=file).settings.alpha == 0.1
    assert configure("digits", "finetune", compared=compared, config=file).settings.backbone == "cells"
    line = refusal("digits", "par", compared=compared, cell=1, config=file)
    assert "did you mean 'cells'?" in line
    assert "of lwf" not in line
    line = refusal("digits", "finetune", compared=["finetune", "independent"], alpha=0.1)
    assert "--alpha is a setting of par, not of finetune, independent" in line


def test_in_a_comparison_a_value_is_checked_for_the_method_that_has_it():
    assert "--alpha -1" in refusal("digits", "par", compared=["par", "finetune"], alpha=-1.0)
