"""The worst mistakes of a task as pictures: test images that were classified wrongly, with the highest probability for the wrong class."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import UInt8

from lifelong.report.contact import enlarged
from lifelong.report.wording import clean, percent, short

EACH = 6
"""The most pictures of one task."""

MOST = 96
"""The most pictures on a page, of all tasks together: with `SIDE`, about 1 MB of photographs."""

SIDE = 64
"""Pixels above which a picture is reduced; smaller ones stay as they are, and the page enlarges them."""

NAME = 16
"""Letters of a class name below a picture."""


@dataclass(frozen=True)
class Mistake:
    """A test image that was classified wrongly.

    Attributes:
        image: as the network sees it, before normalization.
        true: position of its class among the task's.
        given: position of the class that it was given.
        probability: of the given class, in [0, 1].
    """

    image: UInt8[np.ndarray, "h w 3"]
    true: int
    given: int
    probability: float


@dataclass(frozen=True)
class Tile:
    """A mistake as it appears on the page.

    Attributes:
        data: the picture, as a data URI.
        true, given: class names.
        sure: the probability of the given class, as a percentage.
        words: what the picture shows, for screen readers.
    """

    data: str
    true: str
    given: str
    sure: str
    words: str


def per_task(tasks: int) -> int:
    """Return how many mistakes to show of each of so many tasks."""
    return max(1, min(EACH, MOST // max(tasks, 1)))


def tiles(mistakes: Sequence[Mistake], classes: Sequence[str]) -> list[Tile]:
    """Turn the mistakes of one task into parts of the page.

    Args:
        mistakes: the worst first.
        classes: names of the task's classes in label order.
    """
    return [_tile(one, clean(classes[one.true]), clean(classes[one.given])) for one in mistakes]


def tiles_of(index: int, mistakes: Sequence[Sequence[Mistake] | None], classes: Sequence[str]) -> list[Tile]:
    """Return the parts of the page for one task; none if its images could not be read.

    Args:
        index: of the task.
        mistakes: of all tasks, or fewer.
        classes: names of the task's classes in label order.
    """
    return tiles((mistakes[index] if index < len(mistakes) else None) or (), classes)


def _tile(one: Mistake, true: str, given: str) -> Tile:
    sure = percent(one.probability)
    return Tile(_data(one.image), short(true, NAME), short(given, NAME), sure, f"image of {true}, predicted as {given} with {sure}")


def _data(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    picture = enlarged(pixels, min(SIDE, max(pixels.shape[:2])))
    file = BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
