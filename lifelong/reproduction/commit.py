"""Which code made a number."""

import subprocess
from functools import cache
from pathlib import Path

from lifelong import __version__

HERE = Path(__file__).resolve().parent.parent


@cache
def commit(below: Path = HERE) -> str:
    """Return the commit of this library's tree, "-dirty" where tracked code differs from it; without a tree, its version.

    Args:
        below: the folder whose changes count; by default the library's own.
    """
    if _git("ls-files", "--error-unmatch", str(HERE / "errors.py")) is None:
        # Installed, perhaps below somebody else's repository.
        return f"lifelong-{__version__}"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", str(below))
    return f"{_git('rev-parse', '--short=12', 'HEAD')}{'-dirty' if changed else ''}"


def _git(*words: str) -> str | None:
    """Return what git says; None where it refuses, or is not there."""
    try:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
