"""Commands as processes: stopped, piped, and run on real digits."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lifelong import api
from lifelong.cli import main
from tests.cli.processes import ROOT, python, refused


def test_ctrl_c(monkeypatch, capsys):
    def start(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "start", start)
    monkeypatch.setattr(api, "start_transfer", start)
    for command in ("run", "transfer"):
        assert main([command, "--stream", "digits"]) == 130
        assert capsys.readouterr().err == "lifelong: stopped; the same command continues\n"


def test_sigterm_runs_the_clean_up_and_the_handler_is_put_back(monkeypatch, capsys):
    cleaned = []
    before = signal.getsignal(signal.SIGTERM)

    def start(*arguments):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(api, "start", start)
    assert main(["run", "--stream", "digits"]) == 143
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before
    assert "the same command continues" in capsys.readouterr().err


def test_outside_the_main_thread_signals_are_left_alone(started):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["run", "--stream", "digits"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_reader_that_goes_away_is_no_trouble():
    code = "import sys; from lifelong.cli import main; sys.stdin.readline(); sys.exit(main(['methods', 'par']))"
    process = python(code=code, stdin=subprocess.PIPE)
    process.stdout.close()
    process.stdin.write("go\n")
    process.stdin.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


STOPPED_IN_TEXT = """
def main():
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        return 130
import lifelong.cli
lifelong.cli.main = main
"""
STOPPED_AT_ITS_IMPORT = """
class Stop:
    def find_spec(self, name, *rest):
        if name == "lifelong.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
"""


@pytest.mark.parametrize(("how", "said"), [(STOPPED_IN_TEXT, ""), (STOPPED_AT_ITS_IMPORT, "lifelong: stopped\n")], ids=["text", "import"])
def test_ctrl_c_at_any_moment_is_an_exit_code(how, said, tmp_path):
    # Not by `python -c`, which ends by another way than `python -m`.
    (tmp_path / "entry.py").write_text(f"import sys\n{how}\nfrom lifelong.__main__ import start\nsys.exit(start())")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-m", "entry"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, said)


@pytest.mark.parametrize("words", [["methods"], ["methods", "par", "--json"]])
def test_a_closed_stdout_is_no_trouble(words, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(words) == 0


def test_python_m_lifelong_passes_the_exit_code_on():
    process = python("methods", "paar")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == "lifelong: unknown method 'paar'; did you mean 'par'?\n"


TINY = """
name = "tiny"
image_size = 8
[[task]]
name = "low"
source = "digits"
classes = [0, 1]
train_per_class = 8
valid_per_class = 4
test_per_class = 4
[[task]]
name = "high"
source = "digits"
classes = [8, 9]
train_per_class = 8
valid_per_class = 4
test_per_class = 4
"""


def test_run_compare_and_distances_on_real_digits(capsys, monkeypatch):
    Path("tiny.toml").write_text(TINY)
    size = ["--extractor", "pixels", "--epochs", "1", "--search-epochs", "1", "--init-channels", "2", "--batch-size", "8"]
    command = ["run", "--stream", "tiny.toml", "--out", "par", *size]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in ("low", "high", "search", "AP", "AF", "report: par/report.html"))
    summary = json.loads(Path("par/summary.json").read_text())
    assert summary["complete"]
    assert Path("par/report.html").stat().st_size > 1000

    # One report of a run is enough to see that it is written, and drawing takes long.
    reported = []
    monkeypatch.setattr("lifelong.report.html.write_report", lambda out, summary: reported.append(out))
    assert main([*command, "--json"]) == 0  # finished: only read
    out, err = capsys.readouterr()
    assert json.loads(out) == summary
    assert "finished before" in err
    assert main(["run", "--config", "par/config.toml", "--out", "par", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == summary
    line = refused(capsys, *command, "--lr", "0.5")
    assert "par" in line
    assert "lr" in line

    words = ["--stream", "tiny.toml", "--methods", "finetune,independent", "--out", "both", "--backbone", "cells", "--epochs", "1"]
    assert main(["compare", *words, "--init-channels", "2", "--batch-size", "8"]) == 0
    out = capsys.readouterr().out
    assert all(part in out for part in ("finetune", "independent", "report: both/report.html"))
    assert Path("both/report.html").exists()
    assert reported[-2:] == [Path("both/finetune-seed0"), Path("both/independent-seed0")]
    assert main(["compare", "par", "both/finetune-seed0", "--json"]) == 0
    assert [found["method"] for found in json.loads(capsys.readouterr().out)] == ["par", "finetune"]

    assert main(["distances", "--stream", "tiny.toml", "--extractor", "pixels", "--out", "far"]) == 0
    assert "heat map: far/distances.png" in capsys.readouterr().out
    measured = json.loads(Path("far/distances.json").read_text())
    assert measured["divergences"][1] == pytest.approx(summary["tasks"][1]["divergences"])
    assert Path("far/distances.png").read_bytes().startswith(b"\x89PNG")
