"""A folder of a person's own photographs, awkward ones among them, through PAR to a report; by the command line alone."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.photographs import TASKS, make_photographs

SHORT = ("--preset", "quick", "--epochs", "2", "--search-epochs", "2", "--init-channels", "4")
FLAGS = (*SHORT, "--extractor", "pixels", "--threads", "1")


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    return make_photographs(tmp_path_factory.mktemp("photographs") / "my album", per_class=16)


def command(*words: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "LIFELONG_CACHE": str(cache), "HOME": str(cache), "LANG": "C.UTF-8"}
    return subprocess.run([sys.executable, "-m", "lifelong", *words], capture_output=True, text=True, env=environment, timeout=300)


def test_from_a_folder_to_a_report(album, tmp_path):
    name = f"folder:{album}?size=16"
    out = tmp_path / "out"
    refused = command("run", "--stream", name, "--out", str(out), *FLAGS, cache=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "2 of 42 images" in refused.stderr
    assert "broken 'file'.jpg" in refused.stderr
    assert "moving.gif" in refused.stderr
    assert "--skip-broken" in refused.stderr
    done = command("run", "--stream", name, "--out", str(out), "--skip-broken", *FLAGS, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["complete"]
    assert [task["name"] for task in summary["tasks"]] == sorted(TASKS)
    assert any("moving.gif" in note for note in summary["notes"])
    page = Page()
    page.feed((out / "report.html").read_text(encoding="utf-8"))
    assert all(task in page.text for task in TASKS)
    assert "onerror" not in page.attributes, "a name has become markup"
    again = command("run", "--stream", name, "--out", str(out), "--skip-broken", *FLAGS, cache=tmp_path)
    assert again.returncode == 0, again.stderr


class Page(HTMLParser):
    """The text of a page, and the names of all attributes in it."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data
