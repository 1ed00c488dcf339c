"""Packages that only some users need: the extras of `pyproject.toml`, imported when they are asked for."""

import sys
from importlib.util import find_spec

from lifelong.errors import LifelongError


def require_extra(extra: str, packages: tuple[str, ...], wanted: str, otherwise: str) -> None:
    """Check that the packages of an extra are installed.

    Args:
        extra: its name.
        packages: names under which its packages are imported.
        wanted: what needs them; the start of the error message.
        otherwise: what to do without them; the end of the error message.

    Raises:
        LifelongError: one is missing; the message says how to install it.
    """
    missing = [package for package in packages if not _there(package)]
    if missing:
        kind = "package" if len(missing) == 1 else "packages"
        raise LifelongError(f"{wanted} needs the {kind} {' and '.join(missing)}: pip install 'lifelong[{extra}]'; {otherwise}")


def _there(package: str) -> bool:
    """Tell whether a package can be imported, without importing it: that may take a second."""
    return sys.modules[package] is not None if package in sys.modules else find_spec(package) is not None
