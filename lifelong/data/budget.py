"""Limit the memory of decoding: one budget for all threads of the process, from which each image takes its share first."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

BUDGET = 2 * 2**30
"""Approximate bytes for all images decoded at once. An image that needs more by itself is not decoded."""

_UNCOUNTED = 4 * 2**20  # bytes of an image that are too few to count, however many threads there are


class Budget:
    """Bytes that threads take and return; a thread that asks for more than is left waits.

    A thread takes once and returns everything, so that no two threads wait for each other.

    Args:
        total: bytes.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._left = total
        self._changed = threading.Condition()

    def fits(self, amount: int) -> bool:
        """Return whether `amount` bytes can ever be available."""
        return amount <= self.total

    @contextmanager
    def taken(self, amount: int) -> Generator[None]:
        """Hold `amount` bytes during a block; all bytes, if there are fewer."""
        wanted = min(amount, self.total)
        if wanted <= _UNCOUNTED:
            yield
            return
        with self._changed:
            # The largest may wait while small ones pass: images are finite, and so is its waiting.
            self._changed.wait_for(lambda: self._left >= wanted)
            self._left -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._left += wanted
                self._changed.notify_all()


DECODING = Budget(BUDGET)
"""The budget of this process."""
