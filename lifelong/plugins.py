"""Load extensions from outside this package: from a named file, or from installed packages with an entry point."""

import importlib
import logging
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from lifelong.errors import LifelongError

GROUPS = ("lifelong.methods", "lifelong.plugins")
"""The groups of entry points. Each names a module that calls `register_method`, `register_measure` or another when it is imported, or a
function that does; the first group is for methods, the second for everything."""

_LOADED: dict[str, Path] = {}
"""The file of each module that `load_plugin` has imported."""

log = logging.getLogger(__name__)


@cache
def load_installed() -> None:
    """Import the plugins of installed packages, once; one that fails is reported in a warning and does not stop the others."""
    for point in [point for group in GROUPS for point in entry_points(group=group)]:
        try:
            found = point.load()
            if callable(found) and not isinstance(found, type):
                found()
        except Exception as error:  # a plugin's code may fail in any way
            package = point.dist.name if point.dist is not None else "an unknown package"
            log.warning("the plugins of '%s' (entry point '%s') cannot be loaded: %s", package, point.name, " ".join(str(error).split()))


def load_plugin(file: Path) -> None:
    """Import a Python file that registers something; a second call does nothing.

    The file is imported by its name from its folder, so that child processes find it, too.

    Raises:
        LifelongError: there is no such file, another module has its name, or it fails.
    """
    place = Path(file).expanduser().resolve()
    if not place.is_file() or place.suffix != ".py" or not place.stem.isidentifier():
        raise LifelongError(f"--plugin {file}: no Python file that can be imported; give one such as my_method.py")
    if str(place.parent) not in sys.path:
        sys.path.append(str(place.parent))
    try:
        module = importlib.import_module(place.stem)
    except LifelongError as error:
        raise LifelongError(f"--plugin {file}: {error}") from error
    except Exception as error:
        raise LifelongError(f"--plugin {file}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    other = getattr(module, "__file__", None)
    if other is None or Path(other).resolve() != place:
        raise LifelongError(f"--plugin {file}: the name '{place.stem}' is that of another module ({other}); rename the file")
    _LOADED[place.stem] = place


def loaded_plugins() -> tuple[Path, ...]:
    """Return the files that `load_plugin` has imported: a process that continues this one's work needs them, too."""
    return tuple(file for name, file in _LOADED.items() if name in sys.modules)
