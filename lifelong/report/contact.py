"""Draw the contact sheet of a stream: one row per task, with evaluation images of each class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from lifelong.errors import LifelongError
from lifelong.report.canvas import LIGHT
from lifelong.report.lettering import Face, face
from lifelong.report.streams import headline, licences, sizes
from lifelong.storage import write_file
from lifelong.words import counted

if TYPE_CHECKING:
    from PIL.Image import Image

ROOMY_TASKS = 25
"""Up to this many tasks there is room for large images, and for several of each class."""

MOST_TASKS = 250
"""Rows of a sheet; the tasks beyond are counted at its foot."""

KEY = "label, class, and images from its test split as they are evaluated"

PILL = "#edf0f3"
HAIRLINE = "#e4e8ec"
EDGE = "#c4cbd2"
NUMBER = "#98a2ad"


@dataclass(frozen=True)
class Size:
    """The measures of a sheet in pixels.

    Attributes:
        most: images in a row, and classes that are shown.
        each: the most images of one class.
        tile: side of an image.
        row: from the top of a row to the top of the next.
        caption: width of the text on the left.
        text: width of a class name next to its images; 0: the name is below them.
        gap: between two classes.
        name, fact, label: letter sizes.
        line: from one line of facts to the next.
    """

    most: int
    each: int
    tile: int
    row: int
    caption: int
    text: int
    gap: int
    name: int
    fact: int
    label: int
    line: int


ROOMY = Size(most=10, each=5, tile=96, row=172, caption=300, text=0, gap=18, name=20, fact=14, label=13, line=22)
# A hundred rows stay below 8000 pixels, and photographs below 3 MB.
TIGHT = Size(most=6, each=1, tile=64, row=76, caption=270, text=76, gap=12, name=15, fact=12, label=12, line=17)

MARGIN, GUTTER, HEAD, SEAM, NARROWEST = 56, 46, 156, 4, 1000
MORE = 84
"""Width of the column that counts the classes that are not shown."""


def plan(stream: dict[str, Any]) -> list[tuple[int, int]]:
    """Choose for each drawn task how many of its classes to show (the first ones), and how many images of each.

    Args:
        stream: what `lifelong.api.describe_stream` says of it.
    """
    tasks = stream["tasks"]
    size = _size(tasks)
    return [_choose(task, size) for task in tasks[:MOST_TASKS]]


def _choose(task: dict[str, Any], size: Size) -> tuple[int, int]:
    shown = min(len(task["classes"]), size.most)
    there = -(-task["test"] // len(task["classes"]))
    return shown, max(1, min(size.each, size.most // shown, there))


def _size(tasks: Sequence[dict[str, Any]]) -> Size:
    """Choose sizes that fit the tasks: images are slightly smaller if each of their pixels can then be a whole square."""
    size = ROOMY if len(tasks) <= ROOMY_TASKS else TIGHT
    largest = max(task["image_size"] for task in tasks)
    whole = size.tile // largest * largest
    return replace(size, tile=whole, row=size.row - size.tile + whole) if whole >= 0.8 * size.tile else size


def contact_sheet(stream: dict[str, Any], images: Iterable[Sequence[Sequence[UInt8[np.ndarray, "_ _ 3"]]]], path: Path) -> None:
    """Draw a contact sheet into a PNG file.

    Args:
        stream: what `lifelong.api.describe_stream` says of it.
        images: for each task that is drawn, for each class that is shown, as many images as `plan` says or fewer. They are requested
            one task at a time, and none are kept.
        path: the file; its name must end in ``.png``.

    Raises:
        LifelongError: the name ends otherwise, or the file cannot be written.
    """
    check_path(path)
    sheet = _Sheet(stream)
    for index, groups in zip(range(sheet.count), images, strict=True):
        sheet.draw_row(index, groups)
    write_file(path, lambda part: sheet.picture.save(part, format="PNG"))


def check_path(path: Path) -> None:
    """Raise unless the file's name says that it is a PNG: to be asked before the work is done."""
    if Path(path).suffix.lower() != ".png":
        raise LifelongError(f"cannot draw {path}: a contact sheet is a PNG; give a name that ends in .png")
    if Path(path).is_dir():
        raise LifelongError(f"cannot write {path}: it is a folder; give the name of a file")


class _Sheet:
    """A contact sheet being drawn."""

    def __init__(self, stream: dict[str, Any]) -> None:
        from PIL import Image, ImageDraw

        self.tasks = stream["tasks"]
        self.count = min(len(self.tasks), MOST_TASKS)
        self.size = _size(self.tasks)
        self.left = MARGIN + GUTTER + self.size.caption
        foot = [f"fingerprint {stream['fingerprint']}", *licences(stream)]
        if self.count < len(self.tasks):
            foot = [f"and {len(self.tasks) - self.count:,} more tasks", *foot]
        width = max(NARROWEST, *(self.left + self._width(task) for task in self.tasks)) + MARGIN
        end = HEAD + self.count * self.size.row
        self.picture = Image.new("RGB", (width, end + 36 + 20 * len(foot) + 24), LIGHT.paper)
        self.pen = ImageDraw.Draw(self.picture)
        self._draw_heading(stream["name"], f"{headline(stream)} · {sizes(*self.tasks)}")
        self._rule(end)
        for index, line in enumerate(foot):
            small = face(12)
            small.draw(self.pen, MARGIN, end + 34 + 20 * index, small.fit(line, width - 2 * MARGIN), LIGHT.muted)

    def _width(self, task: dict[str, Any]) -> int:
        """Return the width of a row's images with their text."""
        shown, each = _choose(task, self.size)
        width = shown * (self._group_width(each) + self.size.gap) - self.size.gap
        return width + (self.size.gap + MORE if shown < len(task["classes"]) else 0)

    def _group_width(self, each: int) -> int:
        return each * (self.size.tile + SEAM) - SEAM + (self.size.text + 8 if self.size.text else 0)

    def _draw_heading(self, title: str, facts: str) -> None:
        large, quiet = face(32, "bold"), face(15)
        room = self.picture.width - 2 * MARGIN
        large.draw(self.pen, MARGIN, MARGIN + 22, large.fit(title, room), LIGHT.ink)
        quiet.draw(self.pen, MARGIN, MARGIN + 53, quiet.fit(facts, room), LIGHT.muted)
        small = face(13)
        width = self._draw_pill(MARGIN, MARGIN + 66, "0")
        small.draw(self.pen, MARGIN + width + 8, MARGIN + 80, KEY, LIGHT.muted)

    def _draw_pill(self, left: int, top: int, text: str) -> int:
        """Draw a label on grey, and return its width."""
        digits = face(self.size.label - 2)
        width = max(18, round(digits.width(text)) + 10)
        self.pen.rounded_rectangle((left, top, left + width - 1, top + 17), radius=5, fill=PILL)
        digits.draw(self.pen, left + (width - digits.width(text)) / 2, top + 13, text, LIGHT.muted)
        return width

    def _rule(self, top: int) -> None:
        self.pen.line((MARGIN, top, self.picture.width - MARGIN - 1, top), fill=HAIRLINE)

    def draw_row(self, index: int, groups: Sequence[Sequence[Any]]) -> None:
        """Draw the row at this position."""
        task, size = self.tasks[index], self.size
        top = HEAD + index * size.row
        self._rule(top)
        # Images keep the same distance from the rule above as from the one below.
        top += 22 if size.each > 1 else (size.row - size.tile) // 2
        self._draw_caption(index, task, top)
        shown, each = _choose(task, self.size)
        left = self.left
        for label, group in zip(range(shown), groups, strict=True):
            self._draw_group(left, top, group)
            self._draw_class(left, top, each, label, task["classes"][label])
            left += self._group_width(each) + size.gap
        if shown < len(task["classes"]):
            quiet = face(size.fact)
            quiet.draw(self.pen, left, top + size.tile // 2 + 5, f"+ {len(task['classes']) - shown:,} more", LIGHT.muted)

    def _draw_caption(self, index: int, task: dict[str, Any], top: int) -> None:
        size, left = self.size, MARGIN + GUTTER
        bold, quiet, number = face(size.name, "bold"), face(size.fact), face(size.name)
        room = size.caption - 24
        base = top + _cap_height(bold)
        digits = str(index + 1)
        number.draw(self.pen, left - 14 - number.width(digits), base, digits, NUMBER)
        bold.draw(self.pen, left, base, bold.fit(task["name"], room), LIGHT.ink)
        base += size.line + (4 if size.each > 1 else 1)
        facts = [f"{counted(len(task['classes']), 'class')} from {task['source']}", sizes(task)]
        change = quiet.wrap(task["transform"], room, 2 if size.each > 1 else 1)
        for text, colour in [*((quiet.fit(fact, room), LIGHT.muted) for fact in facts), *((line, LIGHT.ink) for line in change)]:
            quiet.draw(self.pen, left, base, text, colour)
            base += size.line

    def _draw_group(self, left: int, top: int, group: Sequence[Any]) -> None:
        """Draw the images of one class; an empty frame if the test split has none."""
        tile = self.size.tile
        for position, image in enumerate(group):
            x = left + position * (tile + SEAM)
            self.picture.paste(enlarged(image, tile), (x, top))
            if _fades(image):
                self.pen.rectangle((x, top, x + tile - 1, top + tile - 1), outline=EDGE)
        if not len(group):
            self.pen.rectangle((left, top, left + tile - 1, top + tile - 1), outline=EDGE)

    def _draw_class(self, left: int, top: int, each: int, label: int, name: str) -> None:
        """Draw the label as a number on grey, and the class name."""
        size, text = self.size, face(self.size.label)
        beside = size.text > 0
        x = left + self._group_width(each) - size.text if beside else left
        y = top if beside else top + size.tile + 7
        pill = self._draw_pill(x, y, str(label))
        indent = 0 if beside else pill + 6
        room = size.text if beside else self._group_width(each) + size.gap - 8 - indent
        base = y + 13 + (20 if beside else 0)
        for line in text.wrap(name, room, 2):
            text.draw(self.pen, x + indent, base, line, LIGHT.ink)
            base += size.label + 3


def _cap_height(letters: Face) -> int:
    """Pixels from the top of a capital to the base line."""
    return -letters.font.getbbox("H", anchor="ls")[1]


def _fades(pixels: UInt8[np.ndarray, "_ _ 3"]) -> bool:
    """Tell whether an image's border is too light to stand out from the page without a frame."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool((border.min(axis=1) > 225).mean() > 0.25)


def enlarged(pixels: UInt8[np.ndarray, "_ _ 3"], side: int) -> "Image":
    """Scale an image to a square of `side` pixels by repeating its pixels, and downscaling if they do not fit evenly."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if picture.width > side or picture.height > side:
        return picture.resize((side, side), Image.Resampling.LANCZOS)
    times = -(-side // min(picture.size))
    picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    return picture if picture.size == (side, side) else picture.resize((side, side), Image.Resampling.BOX)
