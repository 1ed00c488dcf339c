import csv
import importlib

import pytest

from benchmarks import __main__ as runner


def test_every_benchmark_can_be_imported():
    names = runner.available()
    assert "distances" in names
    assert "plain_cells" not in names
    for name in names:
        assert callable(importlib.import_module(f"benchmarks.{name}").main)


def test_rows_are_added_and_never_replaced(tmp_path):
    found = {
        "name": "one",
        "ratio": 20.51234,
        "ours_s": 0.5,
        "plain_s": 10.25617,
        "parity": 1e-8,
        "detail": 'commas, and "quotes"',
        "threads": 1,
    }
    path = tmp_path / "results" / "speed.csv"
    runner.append(path, [runner.row(found)])
    before = path.read_text()
    runner.append(path, [runner.row(found | {"name": "two", "ratio": None})])
    assert path.read_text().startswith(before)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["name"] for row in rows] == ["one", "two"]
    assert [row["ratio"] for row in rows] == ["20.51", ""]
    assert rows[0]["detail"] == found["detail"]
    assert rows[0]["threads"] == "1"
    assert rows[0]["machine"]


@pytest.mark.parametrize(("names", "code"), [(["broken"], 1), (["nope"], 2)])
def test_what_fails_is_said(names, code, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(runner, "available", lambda: ["broken"])
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "speed.csv")
    monkeypatch.setattr(runner.importlib, "import_module", broken)
    assert runner.main(names) == code
    printed = capsys.readouterr()
    assert ("went wrong" if code == 1 else "no benchmark named nope") in printed.out + printed.err
    assert not (tmp_path / "speed.csv").exists()


def broken(name: str):
    raise RuntimeError(f"{name} went wrong")
