"""Check the parts of a run's states, and the list of its versions."""

from collections.abc import Iterator
from typing import Literal

from lifelong.experiment.results import RunDirectory
from lifelong.segment import FOLDERS


def check_parts(directory: RunDirectory) -> Iterator[tuple[str, Literal["good", "damaged", "missing"], str]]:
    """Check both copies of all segments, and the list of versions.

    Yields:
        A file or folder below the run directory, its condition ("good", "damaged" or "missing"), and what is wrong with it; folders stand
        for all their files that are good.
    """
    parts = directory.parts
    names, good = parts.names(), dict.fromkeys(FOLDERS, 0)
    for name in names:
        for place, error in parts.check(name).items():
            if error is None:
                good[place] += 1
            else:
                there = (directory.checkpoint / place / name).exists()
                yield f"checkpoint/{place}/{name}", "damaged" if there else "missing", str(error).split("; ")[0]
    for place, count in good.items():
        if count:
            yield f"checkpoint/{place}", "good", f"{count} of {len(names)} files" if count < len(names) else ""
    if directory.journal.file.exists():
        lines = directory.journal.lines()
        lost = lines.lost + lines.torn
        about = f"{lost} lines are damaged, or another run's" if lost else ""
        yield f"checkpoint/{directory.journal.file.name}", "damaged" if lost else "good", about
