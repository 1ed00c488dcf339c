"""What the command line says of itself, of methods and of streams."""

import json
import tomllib

import pytest

import lifelong
from lifelong.cli import main
from lifelong.methods.registry import METHODS
from lifelong.settings.fields import flag, settings_of
from lifelong.settings.training import TrainingSettings
from tests.cli.processes import COMMANDS, ROOT, python


@pytest.mark.parametrize("words", [[], ["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_explains(capsys, words):
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "Usage: lifelong" in out
    assert err == ""


def test_help_imports_nothing_heavy():
    code = """
import io, sys
from lifelong.cli import main
shown, sys.stdout = sys.stdout, io.StringIO()
for words in [[], ["--version"], *([command, "--help"] for command in sys.argv[1:])]:
    assert main(words) == 0
assert main(["methods"]) == 0
heavy = {"torch", "numpy", "datasets", "sklearn", "matplotlib", "pyarrow", "pydantic", "safetensors"} & set(sys.modules)
print(sorted(heavy), file=shown)
"""
    out, err = python(*COMMANDS, code=code).communicate(timeout=60)
    assert (out, err) == ("[]\n", "")


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{lifelong.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == lifelong.__version__


def flags_shown(out):
    """The flags of a help text, in its order."""
    return [line.split()[1] for line in out.splitlines() if line.startswith("│ --")]


@pytest.mark.parametrize(("command", "method"), [*(("run", method) for method in METHODS), ("tune", "par"), ("compare", "par")])
def test_help_with_a_method_shows_its_settings_and_no_others(capsys, monkeypatch, command, method):
    monkeypatch.setenv("COLUMNS", "1200")
    flag = "--methods" if command == "compare" else "--method"
    assert main([command, "--help", flag, method]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    mine = [item for cls in (METHODS[method].settings, TrainingSettings) for item in settings_of(cls).values()]
    for item in mine:
        (line,) = [line for line in lines if f" {item.flag} " in line]
        assert item.help in line
        assert "[default: " in line
    shown = flags_shown(out)
    # The method's own settings stand before those of training.
    assert [name for name in shown if name in {item.flag for item in mine}] == [item.flag for item in mine]
    others = {item.flag for entry in METHODS.values() for item in settings_of(entry.settings).values()}
    assert set(shown) & others == {item.flag for item in settings_of(METHODS[method].settings).values()}
    assert out.rstrip().endswith("Settings of another method: lifelong methods NAME. All methods: lifelong methods.")


@pytest.mark.parametrize("command", ["run", "tune", "compare"])
def test_help_without_a_method_shows_the_runs_flags_and_says_how_to_see_the_rest(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "1200")
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    shown = set(flags_shown(out))
    assert {"--stream", "--out", "--threads", "--epochs", "--lr"} <= shown
    assert not shown & {item.flag for entry in METHODS.values() for item in settings_of(entry.settings).values()}
    flag = "--methods NAME,NAME" if command == "compare" else "--method NAME"
    assert f"lifelong {command} {flag} --help, or lifelong methods NAME" in out


def test_help_fits_on_a_few_screens(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main(["run", "--help"])
    assert len(capsys.readouterr().out.splitlines()) < 100


@pytest.mark.parametrize(
    "words", ["run -h --method=lwf", "run --method lwf --help", "compare --methods lwf,par --help", "compare --help --methods lwf par"]
)
def test_help_finds_the_method_however_it_is_written(capsys, words):
    assert main(words.split()) == 0
    shown = flags_shown(capsys.readouterr().out)
    assert "--train-old-heads" in shown
    assert ("--alpha" in shown) == ("par" in words)
    assert "--gpm-threshold" not in shown


def test_help_with_an_unknown_method_says_so(capsys):
    assert main(["tune", "--method", "parr", "--help"]) == 2
    assert capsys.readouterr().err == "lifelong: --method: unknown method 'parr'; did you mean 'par'?\n"


def test_a_shared_flag_says_whose_it_is_and_where_they_differ(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    main(["compare", "--methods", "par,lwf", "--help"])
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if " --train-old-heads " in line]
    assert "[default: par: false; lwf: true]" in line
    assert any("Hyper-parameters of par, lwf" in line for line in lines[: lines.index(line)])


def test_a_shared_choice_takes_what_any_method_takes_and_the_method_refuses_the_rest(started, capsys):
    assert main(["run", "--stream", "digits", "--method", "sg-f", "--backbone", "conv4", "--out", "o"]) == 0
    assert main(["run", "--stream", "digits", "--method", "hat", "--backbone", "conv4", "--out", "o"]) != 0
    assert "backbone" in capsys.readouterr().err


def test_methods_are_listed_and_described(capsys):
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert main(["methods", "--json"]) == 0
    names = [item["name"] for item in json.loads(capsys.readouterr().out)]
    assert names == list(METHODS)
    assert all(name in listed for name in names)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_described_with_all_its_settings(capsys, name):
    assert main(["methods", name]) == 0
    text = capsys.readouterr().out
    assert main(["methods", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    own = settings_of(METHODS[name].settings)
    assert [item["name"] for item in found["settings"]] == list(own)
    for item in found["settings"] + found["training"]:
        assert item["flag"] == flag(item["name"])
        assert item["flag"] in text
    if name == "par":
        (alpha,) = [item for item in found["settings"] if item["name"] == "alpha"]
        assert alpha == {"name": "alpha", "flag": "--alpha", "accepts": "a number >= 0", "default": 0.5, "help": own["alpha"].help}


def test_streams_are_listed_and_described(capsys):
    assert main(["streams", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"digits", "cifar100-10"} <= {item["name"] for item in listed}
    assert main(["streams", "digits", "--json"]) == 0
    stream = json.loads(capsys.readouterr().out)
    assert stream["name"] == "digits"
    assert len(stream["tasks"]) >= 6
    assert main(["streams", "digits"]) == 0
    text = capsys.readouterr().out
    assert all(task["name"] in text for task in stream["tasks"])
