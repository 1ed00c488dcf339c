"""Call the command line, in this process or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path

from lifelong.cli import main

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("run", "tune", "compare", "streams", "methods", "distances", "transfer", "reproduce", "serve", "sweep")


def refused(capsys, *words):
    """The one line about a command that is refused; nothing may have been written."""
    before = sorted(Path.cwd().rglob("*"))
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lifelong: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert sorted(Path.cwd().rglob("*")) == before
    return err


def python(*words, code=None, **options):
    """A process of its own, warnings as errors left aside."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "lifelong"]), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options)
