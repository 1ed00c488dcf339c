"""What flags, files and the environment hand to the library, and what its functions take."""

import json
from pathlib import Path

import pytest

import lifelong
from lifelong import api
from lifelong.cli import main
from lifelong.errors import LifelongError
from tests.cli.processes import python


def test_run_passes_everything_on(started, capsys):
    where = "--data d --weights w --device cpu --threads 2 --save-every 0.5 --download --skip-broken --tensorboard --out o"
    words = f"--stream digits --method lwf --seed 4 --preset quick {where}"
    assert (
        main(["run", *words.split(), "--epochs", "3", "--lr=0.5", "--no-augment", "--kd-weight", "2", "--weight-decay-grid", "0.1,0.2"])
        == 0
    )
    ((config, out, place),) = started
    assert (config.stream, config.method, config.seed, config.preset) == ("digits", "lwf", 4, "quick")
    assert (config.training.epochs, config.training.lr, config.training.augment) == (3, 0.5, False)
    assert config.training.weight_decay_grid == (0.1, 0.2)
    assert config.settings.kd_weight == 2.0
    assert out == Path("o")
    assert (place.data, place.weights, place.device, place.download) == (Path("d"), Path("w"), "cpu", True)
    assert place.skip_broken
    assert place.observers == ("tensorboard",)
    assert (place.threads, place.save_every) == (2, 0.5)
    assert "o/report.html" in capsys.readouterr().out


def test_places_come_from_the_environment(started, monkeypatch):
    monkeypatch.setenv("LIFELONG_DATA", "/images")
    monkeypatch.setenv("LIFELONG_WEIGHTS", "/w.safetensors")
    assert main(["run", "--stream", "digits"]) == 0
    assert main(["run", "--stream", "digits", "--data", "mine"]) == 0
    (_, _, first), (_, _, second) = started
    assert (first.data, first.weights, first.download, first.device) == (Path("/images"), Path("/w.safetensors"), False, "auto")
    assert not first.skip_broken
    assert second.data == Path("mine")


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("run --stream digits", "runs/digits-par-seed0"),
        ("run --stream my/own.toml --method lwf --seed 3", "runs/own-lwf-seed3"),
        ("compare --stream digits", "runs/digits-compare"),
        ("distances --stream digits --seed 2", "runs/digits-distances-seed2"),
    ],
)
def test_where_things_go_by_default(started, words, folder):
    assert main(words.split()) == 0
    assert started[0][1] == Path(folder)


def test_a_config_file_and_flags_over_it(started, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('stream = "digits"\nmethod = "lwf"\nseed = 7\nepochs = 5\nbatch-size = 9\n')
    assert main(["run", "--config", str(file), "--epochs", "6"]) == 0
    ((config, out, _),) = started
    assert (config.method, config.seed, config.training.epochs, config.training.batch_size) == ("lwf", 7, 6, 9)
    assert out == Path("runs/digits-lwf-seed7")


def test_compare_runs_every_method_and_seed(started):
    assert main(["compare", "--stream", "digits", "--methods", "par,lwf", "--seeds", "0,2", "--alpha", "0.1", "--epochs", "2"]) == 0
    configs = started[0][0]
    assert [(config.method, config.seed) for config in configs] == [("par", 0), ("par", 2), ("lwf", 0), ("lwf", 2)]
    assert configs[0].settings.alpha == 0.1
    assert {config.training.epochs for config in configs} == {2}


def test_runs_at_once(started, monkeypatch):
    asked = []
    begin = api.start_comparison
    monkeypatch.setattr(api, "start_comparison", lambda *given: (asked.append(given[4]), begin(*given))[1])
    assert main(["compare", "--stream", "digits", "--workers", "3"]) == 0
    lifelong.compare("digits", workers=4, progress=False)
    lifelong.compare("digits", progress=False)
    assert asked == [3, 4, 1]


def test_compare_has_defaults(started):
    assert main(["compare", "--stream", "digits"]) == 0
    assert [(config.method, config.seed) for config in started[0][0]] == [("par", 0), ("finetune", 0), ("independent", 0)]


@pytest.mark.parametrize("value", ["none", "class"])
def test_a_choice_that_is_called_none_is_a_choice(started, value):
    assert main(["distances", "--stream", "digits", "--clamp", value]) == 0
    assert started[0][0].settings.clamp == value


@pytest.mark.parametrize("command", ["run", "compare", "distances"])
def test_json_is_all_there_is_on_stdout(started, capsys, command):
    assert main([command, "--stream", "digits", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found[0] if command == "compare" else found)["stream"] == "digits"


@pytest.mark.parametrize("command", ["run", "compare", "distances"])
def test_names_in_tables_are_no_markup(started, capsys, command):
    assert main([command, "--stream", "digits"]) == 0
    assert "[red]one" in capsys.readouterr().out


def test_progress_goes_to_stderr_beside_json(monkeypatch, capsys):
    def start(config, out, place, progress):
        with progress:
            progress.run_started("digits", "par", 3, 0)
        return {"ap": 1.0}

    monkeypatch.setattr(api, "start", start)
    assert main(["run", "--stream", "digits", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"ap": 1.0}
    assert err == "par on digits: 3 tasks\n"


def test_importing_the_package_is_light_and_every_public_name_is_there():
    code = "import sys, lifelong; print('torch' in sys.modules); print([n for n in lifelong.__all__ if getattr(lifelong, n) is None])"
    out, err = python(code=code).communicate(timeout=60)
    assert (out, err) == ("False\n[]\n", "")
    assert set(lifelong.__all__) <= set(dir(lifelong))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lifelong.nothing


def test_tuning_reaches_the_library(started, capsys):
    words = ["--stream", "digits", "--method", "lwf", "--grid", "lr=0.1,0.2 kd-weight=1", "--tolerance", "0.1", "--epochs", "2"]
    assert main(["tune", *words]) == 0
    lifelong.tune("digits", "lwf", grid={"lr": [0.1, 0.2], "kd_weight": [1]}, tolerance=0.1, epochs=2, progress=False)
    (config, out, _), python_call = started
    assert python_call[:2] == (config, out)
    assert config.tuning.grid == (("lr", (0.1, 0.2)), ("kd_weight", (1.0,)))
    assert (config.tuning.tolerance, config.training.epochs, out) == (0.1, 2, Path("runs/digits-lwf-tuned-seed0"))
    with pytest.raises(LifelongError, match="nothing to tune"):
        lifelong.tune("digits", "lwf")
    Path("plain.toml").write_text("lr = 0.5")
    with pytest.raises(LifelongError, match="nothing to tune"):
        lifelong.tune("digits", "lwf", config="plain.toml")


def test_a_comparison_tunes_every_method_alike(started):
    assert main(["compare", "--stream", "digits", "--methods", "lwf,finetune", "--grid", "lr=0.1,0.2 kd-weight=1,2"]) == 0
    ((configs, _, _),) = started
    assert [config.tuning.keys for config in configs] == [("lr", "kd_weight"), ("lr",)]


def test_python_functions_take_what_the_commands_take(started):
    summary = lifelong.run("digits", "lwf", 1, out="o", preset="quick", epochs=2, kd_weight=3, data="d", device="cpu", progress=False)
    ((config, out, place),) = started
    assert (config.method, config.seed, config.training.epochs, config.settings.kd_weight) == ("lwf", 1, 2, 3.0)
    assert (out, place.data, place.device, place.observers) == (Path("o"), Path("d"), "cpu", ())
    assert summary["ap"] == 0.5
    with pytest.raises(LifelongError, match="did you mean 'epochs'"):
        lifelong.run("digits", epoch=2)
