"""Find the version of the code that produced a number."""

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
        # The installed package may lie inside another repository.
        return f"lifelong-{__version__}"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", str(below))
    return f"{_git('rev-parse', '--short=12', 'HEAD')}{'-dirty' if changed else ''}"


def _git(*words: str) -> str | None:
    """Return the output of git; None if it fails or is not installed."""
    try:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
