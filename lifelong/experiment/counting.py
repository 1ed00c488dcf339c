"""Show progress through many similar items: in words, and on stderr while they are processed."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lifelong.experiment.console import make_console
from lifelong.words import duration

Item = TypeVar("Item")

LINE_EVERY = 10.0
"""Seconds between progress lines where the output is not a terminal."""


@contextmanager
def counted(total: int, what: str, clock: Callable[[], float] = time.monotonic) -> Generator[Callable[[float], None]]:
    """Enter a block with a function that takes the number of finished items and shows it on stderr: as a bar on a terminal, elsewhere as a
    line every `LINE_EVERY` seconds.

    Args:
        total: number of items.
        what: name of the items.
        clock: returns seconds; for tests.
    """
    console = make_console(stderr=True)
    if console.is_terminal:
        from rich.progress import Progress as Bars

        with Bars(console=console, transient=True) as bars:
            bar = bars.add_task(what, total=total)
            yield lambda done: bars.update(bar, completed=done)
        return
    began = said = clock()

    def tell(done: float) -> None:
        nonlocal said
        now = clock()
        if done < total and now - said >= LINE_EVERY:
            console.print(f"{int(done)} of {total} {what}{rest(done, total, now - began)}", markup=False, highlight=False, soft_wrap=True)
            said = now

    yield tell


def along(items: Iterable[Item], total: int, what: str = "tasks") -> Iterator[Item]:
    """Yield the same items, and show progress as they are consumed; see `counted`."""
    with counted(total, what) as tell:
        for done, item in enumerate(items):
            tell(float(done))
            yield item


def rest(done: int | float, total: int, seconds: float) -> str:
    """Return the remaining time, such as ", 1 min 20 s left"; empty at the beginning and at the end.

    Args:
        done: number of finished items.
        total: number of all items.
        seconds: time that the finished items have taken.
    """
    return f", {duration(seconds / done * (total - done))} left" if 0 < done < total else ""
