"""How far many like things have come: in words, and on stderr while they are done."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lifelong.experiment.console import make_console
from lifelong.words import duration

Item = TypeVar("Item")

LINE_EVERY = 10.0
"""Seconds between two lines about one thing, where the output is not a terminal."""


@contextmanager
def counted(total: int, what: str, clock: Callable[[], float] = time.monotonic) -> Generator[Callable[[float], None]]:
    """Enter a block that is told how many things are done, and shows it on stderr: a bar on a terminal, elsewhere a line every `LINE_EVERY`
    seconds.

    Args:
        total: how many there are.
        what: they are.
        clock: gives seconds; for tests.
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
    """Return the same items, counted as they are asked for; see `counted`."""
    with counted(total, what) as tell:
        for done, item in enumerate(items):
            tell(float(done))
            yield item


def rest(done: int | float, total: int, seconds: float) -> str:
    """Return the time that is left, such as ", 1 min 20 s left"; empty at the beginning and at the end.

    Args:
        done: things that are done.
        total: of how many.
        seconds: that these have taken.
    """
    return f", {duration(seconds / done * (total - done))} left" if 0 < done < total else ""
