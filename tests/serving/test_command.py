"""`lifelong serve` on the command line: how it starts, what it refuses, how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from lifelong.cli import main
from lifelong.serving.entrance import TOKEN as VARIABLE
from tests.serving.served import TOKEN

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_it_starts_answers_and_ends(learned, tmp_path, number):
    (tmp_path / "token").write_text(TOKEN)
    command = [
        sys.executable,
        "-m",
        "lifelong",
        "serve",
        str(learned),
        "--port",
        "0",
        "--read-only",
        "--token-file",
        str(tmp_path / "token"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    with process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(rf"serving {re.escape(str(learned))} \(3 tasks\) at (http://127\.0\.0\.1:\d+)/\n", line)
        assert found is not None, line + process.stderr.read()
        request = urllib.request.Request(f"{found[1]}/v1/run", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["method"] == "par"
        process.send_signal(number)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == ""
    assert error.endswith("stopped\n")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines in, which needs a token"),
        (["--port", "70000"], "--port 70000: give an integer from 0 to 65535"),
        (["--rate", "-1"], "--rate -1.0: give a number of requests a second, or 0 for any number"),
        (["--token-file", "none"], "cannot read the token in none: No such file or directory"),
        (["--token", "secret"], "unknown flag --token; see: lifelong serve --help"),
    ],
)
def test_what_it_refuses(learned, capsys, monkeypatch, flags, said):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert main(["serve", str(learned), *flags]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_run_that_is_none(tmp_path, capsys):
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert "holds no run; give the folder that --out named" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_taken(learned, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(learned), "--port", port]) == 2
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use; give another --host or --port" in capsys.readouterr().err


def test_an_address_that_is_none(learned, capsys, monkeypatch):
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert main(["serve", str(learned), "--host", "no such host"]) == 2
    assert "cannot listen at no such host, port 8000: " in capsys.readouterr().err


def test_without_the_extra(learned, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(learned)]) == 2
    error = capsys.readouterr().err
    assert (
        error
        == "lifelong: lifelong serve needs the package uvicorn: pip install 'lifelong[serve]'; or use the run with: lifelong predict\n"
    )
