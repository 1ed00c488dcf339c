"""The package without what only Unix has: modules and signals that Windows lacks are not there."""

import subprocess
import sys
from pathlib import Path

WITHOUT_UNIX = """
import importlib.abc, os, signal, sys

UNIX = ("fcntl", "resource", "termios", "pwd", "grp")

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in UNIX:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
for name in UNIX:
    sys.modules.pop(name, None)
for name in ("SIGPIPE", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGKILL"):
    delattr(signal, name)
"""

RUN = """
import importlib, pkgutil
import lifelong
for module in pkgutil.walk_packages(lifelong.__path__, "lifelong."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            # Packages of extras need not be there.
            if error.name in UNIX or error.name.startswith("lifelong"):
                raise
from lifelong.cli.main import main
arguments = ["run", "--stream", "digits?tasks=1", "--method", "finetune", "--preset", "quick", "--epochs", "1", "--out", sys.argv[1]]
sys.exit(main(arguments))
"""


def test_a_run_needs_nothing_that_only_unix_has(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_UNIX + RUN, str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").exists()
