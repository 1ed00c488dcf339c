"""Compare short checksums of what a stream draws with recorded ones, so that two people know they ran the same thing.

`checksums.csv` has a row for each named stream, seed and state of the data: `labels` identifies the data (a reduced copy of a source is
other data), `draws` the positions and labels of every split of every task. They say nothing of how images are stored: the same data set
as PNG or JPEG has the same rows. The run directory's fingerprint is stricter; it covers the bytes of the images too.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

Verdict = Literal["recorded", "different", "not recorded"]


@dataclass(frozen=True)
class Checksum:
    """What was drawn, and from what; 16 hexadecimal digits each.

    Attributes:
        labels: of all labels that the stream's sources hold.
        draws: of the positions and labels of every split of every task.
    """

    labels: str
    draws: str


def compare(stream: str, seed: int, checksum: Checksum) -> Verdict:
    """Compare what a stream drew with what is recorded for it.

    Returns:
        "recorded": the same images under the same labels; "different": other images of the same data; "not recorded": there is no
        row for this stream, seed and data.
    """
    known = recorded().get((stream, seed, checksum.labels))
    if known is None:
        return "not recorded"
    return "recorded" if known == checksum.draws else "different"


@cache
def recorded() -> dict[tuple[str, int, str], str]:
    """Return the recorded `draws` by stream, seed and `labels`."""
    text = (files("lifelong.streams") / "checksums.csv").read_text(encoding="utf-8")
    return {(row["stream"], int(row["seed"]), row["labels"]): row["draws"] for row in csv.DictReader(text.splitlines())}
