"""Methods from a file that is named, and from installed packages that announce them."""

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import lifelong
from lifelong import plugins
from lifelong.cli import main
from lifelong.methods.registry import METHODS, known_methods

SOURCE = """
from dataclasses import dataclass
from lifelong import register_method
from lifelong.methods.finetune import Finetune
from lifelong.settings.base import setting
from lifelong.settings.baselines import FinetuneSettings


@dataclass(frozen=True, kw_only=True)
class Settings(FinetuneSettings):
    own_strength: float = setting(1.0, "how strong")


class Mine(Finetune):
    name = "from-a-file"


register_method(Mine, Settings, summary="of a file")
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A file with a method; what it registers is forgotten afterwards."""
    known, path = dict(METHODS), list(sys.path)
    file = tmp_path / "a_method_of_mine.py"
    file.write_text(SOURCE)
    yield file
    METHODS.clear()
    METHODS.update(known)
    sys.path[:] = path
    sys.modules.pop(file.stem, None)


def test_every_command_takes_a_file(plugin, tmp_path, capsys):
    """Its settings are flags; a run of it is one like any other, and other processes start from the file again."""
    out, stream = tmp_path / "run", "digits?tasks=2&train_per_class=4&valid_per_class=2&test_per_class=2"
    small = ["--preset", "quick", "--epochs", "1", "--init-channels", "2", "--threads", "1", "--device", "cpu"]
    run = ["run", "--stream", stream, "--method", "from-a-file", "--own-strength", "2.5", *small, "--out", str(out)]
    assert main(["--plugin", str(plugin), *run]) == 0
    assert "own_strength = 2.5" in (out / "config.toml").read_text()
    assert main(["methods", "from-a-file", "--json", f"--plugin={plugin}"]) == 0
    capsys.readouterr()
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    predict = ["predict", str(out), str(tmp_path / "image.png"), "--json"]
    assert main([*predict, "--plugin", str(plugin)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["task"]
    METHODS.pop("from-a-file")  # as another process begins
    sys.modules.pop(plugin.stem)
    assert main(predict) == 2
    assert "unknown method 'from-a-file'" in (line := capsys.readouterr().err)
    assert "--plugin FILE.py" in line
    assert main([*predict, "--plugin", str(plugin)]) == 0
    assert main([*run, "--workers"]) == 2  # and flags are still those of the commands


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("none.py", None, "no Python file that can be imported"),
        ("a-dash.py", "", "no Python file that can be imported"),
        ("json.py", "", "the name 'json' is that of another module"),
        ("failing_plugin.py", "1 / 0", "ZeroDivisionError: division by zero"),
        ("broken_plugin.py", "def (", "SyntaxError"),
        ("twice_plugin.py", SOURCE.replace("from-a-file", "par"), "a method named 'par' is registered already"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, capsys, monkeypatch, name, text, line):
    monkeypatch.setattr(sys, "path", list(sys.path))
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["methods", "--plugin", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert main(["methods", "--plugin"]) == 2


def test_installed_packages_announce_methods(plugin, monkeypatch, caplog):
    """One that fails is named, and the others are there."""

    def register() -> None:
        plugins.load_plugin(plugin)

    def fail() -> None:
        raise ImportError("no module named torch_something")

    points = [
        SimpleNamespace(name="broken", load=fail, dist=SimpleNamespace(name="their-package")),
        SimpleNamespace(name="mine", load=lambda: register, dist=SimpleNamespace(name="my-package")),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "lifelong.methods" else [])
    plugins.load_installed.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert "from-a-file" in known_methods()
        assert "'their-package' (entry point 'broken') cannot be loaded: no module named torch_something" in caplog.text
        assert lifelong.make_method("from-a-file").name == "from-a-file"
    finally:
        plugins.load_installed.cache_clear()


def test_the_example_is_a_plugin():
    assert "__main__" in (Path(__file__).parent.parent / "examples" / "new_method.py").read_text()
