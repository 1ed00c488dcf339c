"""Output never fails for its characters."""

import io
import shutil
import sys

import pytest

from lifelong import api
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.experiment.console import encodable, make_console
from lifelong.experiment.results import read_summary
from lifelong.report.html import write_report

STREAM = """
name = "猫 ±"
[[task]]
name = "a 猫"
source = "digits"
classes = [0, 1]
[[task]]
name = "b ±"
source = "digits"
classes = [2, 3]
"""
SMALL = ["--method", "par", "--preset", "quick", "--epochs", "1", "--search-epochs", "1", "--init-channels", "2", "--extractor", "pixels"]


@pytest.fixture
def encoded(monkeypatch):
    """Makes both streams take one encoding only, as PYTHONIOENCODING does; returns what was written to stdout."""

    def start(encoding: str) -> io.BytesIO:
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True))
        return raw

    return start


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("encodings")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_run_and_its_tables_end_well(place, encoded, encoding):
    """α, β, ≤ and → are in every table of PAR; the names of tasks are anyone's. The first encoding learns, the others read."""
    (place / "s.toml").write_text(STREAM, encoding="utf-8")
    raw, out = encoded(encoding), place / "猫 ±"
    if not out.exists():
        assert main(["run", *SMALL, "--stream", str(place / "s.toml"), "--threads", "1", "--out", str(out)]) == 0
        assert "task 2 of 2 done: b " in raw.getvalue().decode(encoding)
    for words in (["compare", str(out)], ["streams", str(place / "s.toml")], ["methods", "hat"], ["--help"]):
        assert main(words) == 0
    text = raw.getvalue().decode(encoding)
    assert ("b ±" in text) == (encoding != "ascii")
    assert "a ?" in text


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [("α ≤ 0.5 ± 0.1", "ascii", "alpha <= 0.5 +- 0.1"), ("± 猫", "latin-1", "± ?"), ("± 猫", "utf-8", "± 猫"), ("a\udcff", "utf-8", "a?")],
)
def test_what_is_written_instead(text, encoding, found):
    assert encodable(text, encoding) == found


def test_no_stream_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    make_console(width=80).print("unheard")


def test_a_name_that_is_no_text_is_shown_and_not_kept(place, tmp_path, capsys):
    """The bytes of a file's name need not be UTF-8; a page shows a question mark, and a setting refuses it in one line."""
    out = shutil.copytree(place / "猫 ±", tmp_path / "out\udcff")
    assert main(["compare", str(out), "--out", str(out)]) == 0
    assert "out?" in capsys.readouterr().out
    write_report(out, read_summary(out))
    assert "out?" in (out / "report.html").read_text(encoding="utf-8")
    with pytest.raises(LifelongError, match="expected valid UTF-8"):
        api.configured("folder:\udcff")
