"""Text on pictures that are drawn pixel by pixel: measured, shortened and broken to fit, in a font that is the same on every machine."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lifelong.report.wording import short

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Weight = Literal["regular", "bold"]

LONGEST = 400
"""Characters of a text that are looked at: no line holds more."""

_FILES = {"regular": "DejaVuSans.ttf", "bold": "DejaVuSans-Bold.ttf"}


@dataclass(frozen=True)
class Face:
    """A font at one size.

    Attributes:
        font: as Pillow draws it.
        known: the code points that it has a glyph for.
        ascent: pixels from the top of a line to its base line.
    """

    font: Any
    known: frozenset[int]
    ascent: int

    def clean(self, text: object) -> str:
        """Return the text on one line; characters missing from the font become replacement marks."""
        line = short(text, LONGEST)
        return "".join(character if ord(character) in self.known else "\N{REPLACEMENT CHARACTER}" for character in line)

    def width(self, text: str) -> float:
        """Pixels from the start of a clean line to its end."""
        return self.font.getlength(text)

    def fit(self, text: object, width: int) -> str:
        """Shorten the text to `width` pixels, with an ellipsis."""
        line = self.clean(text)
        if self.width(line) <= width:
            return line
        # The width grows with every character, so the longest beginning that fits is found by halving.
        fits, too_long = 0, len(line)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            fits, too_long = (middle, too_long) if self.width(f"{line[:middle].rstrip()}…") <= width else (fits, middle)
        return f"{line[:fits].rstrip()}…"

    def wrap(self, text: object, width: int, lines: int) -> list[str]:
        """Wrap the text to at most `lines` lines of `width` pixels, broken after spaces and punctuation; the last line is shortened."""
        rest, result = self.clean(text), []
        while len(result) < lines - 1 and self.width(rest) > width:
            pieces = re.findall(r"[^\s_\-/.,]*[\s_\-/.,]*", rest)
            taken = ""
            for piece in pieces:
                if self.width((taken + piece).rstrip()) > width:
                    break
                taken += piece
            if not taken:
                break
            result.append(taken.rstrip())
            rest = rest[len(taken) :]
        return [*result, self.fit(rest, width)]

    def draw(self, pen: "ImageDraw", left: int | float, baseline: int, text: str, colour: str) -> None:
        """Write a line that begins at `left` and stands on `baseline`."""
        pen.text((left, baseline), text, fill=colour, font=self.font, anchor="ls")


@cache
def face(size: int, weight: Weight = "regular") -> Face:
    """Load matplotlib's font at a size in pixels."""
    import matplotlib
    from matplotlib.font_manager import get_font
    from PIL import ImageFont

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / _FILES[weight]
    # Pillow's own layout: the other one is not there on every machine, and would draw another picture.
    font = ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
    return Face(font, frozenset(get_font(str(file)).get_charmap()), font.getmetrics()[0])
