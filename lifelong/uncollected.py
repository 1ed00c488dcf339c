"""Pause Python's search for unused cycles while much is made that stays.

The search looks at all objects again whenever their number has grown by a quarter: of a run of 1,000 tasks, half of the time that opening
it takes.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock

_LOCK = Lock()
_blocks = 0
_paused = False


@contextmanager
def uncollected() -> Generator[None]:
    """Enter a block, or call a function, in which no cycles are searched for; blocks of several threads may overlap."""
    global _blocks, _paused
    with _LOCK:
        _blocks += 1
        if _blocks == 1:
            _paused = gc.isenabled()
            gc.disable()
    try:
        yield
    finally:
        with _LOCK:
            _blocks -= 1
            if not _blocks and _paused:
                gc.enable()
