"""What every row of a table of results says about where it comes from."""

from pathlib import Path

from lifelong.reproduction.commit import commit as commit_of

ROOT = Path(__file__).resolve().parent.parent


def commit() -> str:
    """Return the current commit, marked if any file of the repository differs from it."""
    return commit_of(ROOT)
