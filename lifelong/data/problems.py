"""Find all images of a split that cannot be used, or lose something when read, in one pass, and name them in one line."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import PIL

from lifelong.data.cache import Cache
from lifelong.data.decoding import CHECK_VERSION, check_images

log = logging.getLogger(__name__)

_NAMED = 5  # how many are named in a line


@runtime_checkable
class Rows(Protocol):
    """Encoded images in files, in a fixed order.

    Attributes:
        rows: how many.
        place: their folder or file, for error lines.
    """

    rows: int
    place: Path

    def images(self) -> Iterator[tuple[list[bytes | None], Callable[[int], str]]]:
        """Yield all images in batches, each with a function that names the image at a position of the batch."""
        ...

    def called(self, row: int) -> str:
        """Name the image of a row."""
        ...

    def checksum(self, cache: Cache) -> str:
        """Compute a checksum of the images' bytes."""
        ...

    def contents(self, cache: Cache) -> np.ndarray:
        """Return a 64-bit hash of each image's encoded bytes, uint64 of shape (rows,)."""
        ...

    def sums(self, cache: Cache) -> list[Path]:
        """Return the files of the cache that remember digests of the images' files."""
        ...


@dataclass(frozen=True)
class Problem:
    """An image that cannot be used, or that loses something when read.

    Attributes:
        row: its position in the split.
        name: its name.
        reason: why, or what, in a few words.
    """

    row: int
    name: str
    reason: str

    def __str__(self) -> str:
        """Format for a list of problems."""
        return f"{self.name} ({self.reason})"


@dataclass
class Findings:
    """The findings of a pass over a split.

    Attributes:
        problems: images that cannot be used.
        remarks: images that lose something when read.
    """

    problems: list[Problem] = field(default_factory=list)
    remarks: list[Problem] = field(default_factory=list)

    def add(self, rows: Sequence[int], where: Callable[[int], str], problems: Mapping[int, str], remarks: Mapping[int, str]) -> None:
        """Add the findings of a batch.

        Args:
            rows: the position in the split of each image that was looked at.
            where: names an image by its position in the batch.
            problems, remarks: the reasons, by position in the batch.
        """
        self.problems += [Problem(rows[place], where(place), reason) for place, reason in problems.items()]
        self.remarks += [Problem(rows[place], where(place), reason) for place, reason in remarks.items()]

    def among(self, kept: np.ndarray) -> "Findings":
        """Return the findings about rows that are kept, bool of shape (rows,)."""
        return Findings([one for one in self.problems if kept[one.row]], [one for one in self.remarks if kept[one.row]])


def remembered(split: Rows, cache: Cache, checksum: str) -> Findings | None:
    """Return what an earlier pass over the same files with the same Pillow version found; None if there was none."""
    known = cache.findings(split.place.name, _key(checksum), split.rows)
    if known is None:
        return None
    return Findings(*([Problem(row, name, why) for row, name, why, what in known if what == kind] for kind in ("problem", "remark")))


def remembered_in(split: Rows, cache: Cache, checksum: str) -> Path:
    """Return the file of the cache that remembers what was found; see `remembered`."""
    return cache.findings_file(split.place.name, _key(checksum), split.rows)


def remember(split: Rows, cache: Cache, checksum: str, found: Findings) -> None:
    """Store the findings of a complete pass."""
    kinds = {"problem": found.problems, "remark": found.remarks}
    rows: list[list[int | str]] = [[one.row, one.name, one.reason, kind] for kind, some in kinds.items() for one in some]
    cache.keep_findings(split.place.name, _key(checksum), split.rows, rows)


def look_at(split: Rows, cache: Cache, checksum: str) -> Findings:
    """Look at every image of a split; done once for the same files and the same Pillow."""
    known = remembered(split, cache, checksum)
    if known is not None:
        return known
    log.info("looking at %d images of %s, once", split.rows, split.place.name)
    found = Findings()
    first = 0
    for encoded, where in split.images():
        found.add(range(first, first + len(encoded)), where, *check_images(encoded))
        first += len(encoded)
    remember(split, cache, checksum, found)
    return found


def _key(checksum: str) -> str:
    return f"{checksum}-{CHECK_VERSION}-{PIL.__version__}"


def unusable(problems: Sequence[Problem], count: int, name: str, place: Path | None = None, and_so: str = "") -> str:
    """Begin an error line about unusable images: how many of how many, and the first few by name.

    Args:
        problems: at least one.
        count: how many images there are in all.
        name: of the split.
        place: where its files are.
        and_so: how they are handled.
    """
    named = ", ".join(map(str, problems[:_NAMED])) + (f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else "")
    where = f" in {place}" if place is not None else ""
    return f"{len(problems)} of {count} images of {name}{where} cannot be used{and_so}: {named}"
