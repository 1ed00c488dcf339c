"""Images that cannot be used: found in one pass over a split, all of them, and named in one line."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import PIL

from lifelong.data.cache import Cache
from lifelong.data.images import CHECK_VERSION, check_images

_NAMED = 5  # how many are named in a line


@runtime_checkable
class Rows(Protocol):
    """Encoded images in files, in a fixed order.

    Attributes:
        rows: how many.
        place: the folder or file they lie in, for error lines.
    """

    rows: int
    place: Path

    def images(self) -> Iterator[tuple[list[bytes | None], Callable[[int], str]]]:
        """All of them, a batch at a time, with what names the image at a position of the batch."""
        ...

    def checksum(self, cache: Cache) -> str:
        """Of their bytes."""
        ...

    def contents(self, cache: Cache) -> np.ndarray:
        """A 64-bit hash of each image's encoded bytes, uint64 of shape (rows,)."""
        ...


@dataclass(frozen=True)
class Problem:
    """An image that cannot be used.

    Attributes:
        row: its position in the split.
        name: what it is called.
        reason: why, in a few words.
    """

    row: int
    name: str
    reason: str

    def __str__(self) -> str:
        """For a list of them."""
        return f"{self.name} ({self.reason})"


def find_problems(split: Rows, cache: Cache, checksum: str) -> list[Problem]:
    """Look at every image of a split; done once for the same files and the same Pillow."""

    def look() -> list[list[int | str]]:
        found: list[list[int | str]] = []
        first = 0
        for encoded, where in split.images():
            found += [list(astuple(Problem(first + at, where(at), reason))) for at, reason in check_images(encoded).items()]
            first += len(encoded)
        return found

    known = cache.findings(split.place.name, f"{checksum}-{CHECK_VERSION}-{PIL.__version__}", split.rows, look)
    return [Problem(row, name, reason) for row, name, reason in known]


def unusable(problems: Sequence[Problem], count: int, name: str, place: Path | None = None, and_so: str = "") -> str:
    """The beginning of a line about them: how many of how many, and the first few by name.

    Args:
        problems: at least one.
        count: how many images there are in all.
        name: of the split.
        place: where its files are.
        and_so: what is done about them.
    """
    named = ", ".join(map(str, problems[:_NAMED])) + (f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else "")
    where = f" in {place}" if place is not None else ""
    return f"{len(problems)} of {count} images of {name}{where} cannot be used{and_so}: {named}"
