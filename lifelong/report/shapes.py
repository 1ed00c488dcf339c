"""Diagrams of lines, boxes and words, as SVG and as PNG: exact where a chart's machinery would be slow.

Lengths are inches, from the upper left corner; sizes of letters are points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.report.canvas import DPI, Theme
from lifelong.report.lettering import Weight, face
from lifelong.storage import write_bytes, write_text

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

POINTS = 72
"""In an inch; the unit of the SVG."""

LETTERS = "'DejaVu Sans', Verdana, sans-serif"
"""The font of an SVG: the one that words are measured in, which is wider than most that may take its place."""

ROUNDING = 0.08
"""The radius of a box's corners."""

EDGE = 1.3
"""Points of a box's edge."""

HEAD = 0.055
"""Half the width of an arrow's head."""


@dataclass(frozen=True)
class Line:
    """A line between two points; as an arrow, with a head at the end, which must lie straight below."""

    x0: float
    y0: float
    x1: float
    y1: float
    colour: str
    width: float = 1.2
    arrow: bool = False


@dataclass(frozen=True)
class Dot:
    """A disc."""

    x: float
    y: float
    radius: float
    colour: str


@dataclass(frozen=True)
class Box:
    """A box with rounded corners around its middle, with lines of words in it."""

    x: float
    y: float
    width: float
    height: float
    words: str
    size: float
    ink: str
    edge: str
    paper: str

    @property
    def lines(self) -> list[str]:
        """The text, line by line."""
        return self.words.split("\n") if self.words else []

    def below(self, index: int) -> float:
        """Offset of a line's middle below the middle of the box."""
        return (index - (len(self.lines) - 1) / 2) * 1.15 * self.size / POINTS


@dataclass(frozen=True)
class Words:
    """A line of words that begins at a point, in the middle of its height."""

    x: float
    y: float
    words: str
    size: float
    ink: str
    weight: Weight = "bold"


Shape = Line | Dot | Box | Words


def width(words: str, size: float, weight: Weight = "regular") -> float:
    """Inches that a line of words takes, in letters of so many points."""
    return face(100, weight).width(words) / 100 * size / POINTS


def write_shapes(shapes: Sequence[Shape], size: tuple[float, float], theme: Theme, path: Path | None, dpi: int = DPI) -> bytes:
    """Render the shapes in order as a PNG of (width, height) inches; also write it to a path, and an SVG next to it."""
    content = as_png(shapes, size, theme.paper, dpi)
    if path is not None:
        write_bytes(path, content)
        write_text(path.with_suffix(".svg"), as_svg(shapes, size, theme.paper))
    return content


def as_svg(shapes: Sequence[Shape], size: tuple[float, float], paper: str) -> str:
    """Render the shapes as an SVG file."""
    across, down = map(_points, size)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{across}pt" height="{down}pt" viewBox="0 0 {across} {down}"'
    ground = f'<rect width="{across}" height="{down}" fill="{paper}"/>'
    # Lines and dots that follow one another and look alike are one element: a page may hold many diagrams.
    alike = [list(some) for _, some in groupby(shapes, key=_looks)]
    return "\n".join([f'{head} font-family="{LETTERS}">', ground, *map(_element, alike), "</svg>\n"])


def _looks(shape: Shape) -> Any:
    match shape:
        case Line():
            return "line", shape.colour, shape.width
        case Dot():
            return "dot", shape.colour, shape.radius
        case _:
            return id(shape)


def _element(shapes: Sequence[Any]) -> str:
    """Make an element that shows shapes of one style."""
    first = shapes[0]
    match first:
        case Line():
            ends = "".join(f"M{_points(line.x0)} {_points(line.y0)}L{_points(line.x1)} {_points(line.y1)}" for line in shapes)
            lines = f'<path d="{ends}" stroke="{first.colour}" stroke-width="{first.width:g}"/>'
            heads = "".join("M" + "L".join(f"{_points(x)} {_points(y)}" for x, y in _head(line)) for line in shapes if line.arrow)
            return lines + (f'<path d="{heads}" fill="{first.colour}"/>' if heads else "")
        case Dot():
            # A line without length and with round ends.
            places = "".join(f"M{_points(dot.x)} {_points(dot.y)}h0" for dot in shapes)
            across = _points(2 * first.radius)
            return f'<path d="{places}" stroke="{first.colour}" stroke-width="{across}" stroke-linecap="round"/>'
        case Words():
            bold = ' font-weight="bold"' if first.weight == "bold" else ""
            return _text(first.x, first.y, first.words, first.size, first.ink, bold)
        case _:
            return _box(first)


def _box(box: Box) -> str:
    left, top = _points(box.x - box.width / 2), _points(box.y - box.height / 2)
    frame = f'x="{left}" y="{top}" width="{_points(box.width)}" height="{_points(box.height)}" rx="{_points(ROUNDING)}"'
    edge = f'<rect {frame} fill="{box.paper}" stroke="{box.edge}" stroke-width="{EDGE:g}"/>'
    lines = enumerate(box.lines)
    return edge + "".join(_text(box.x, box.y + box.below(at), line, box.size, box.ink, ' text-anchor="middle"') for at, line in lines)


def _text(x: float, y: float, words: str, size: float, ink: str, more: str) -> str:
    """Draw a line of text vertically centred at y."""
    base = _points(y + 0.35 * size / POINTS)
    return f'<text x="{_points(x)}" y="{base}" font-size="{size:g}" fill="{ink}"{more}>{escape(words)}</text>'


def as_png(shapes: Sequence[Shape], size: tuple[float, float], paper: str, dpi: int) -> bytes:
    """Render the shapes as a PNG at this many pixels per inch."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (round(size[0] * dpi), round(size[1] * dpi)), paper)
    pen = ImageDraw.Draw(picture)
    for shape in shapes:
        _paint(pen, shape, dpi)
    stream = BytesIO()
    # Most of the time goes into making the file small; a diagram is small anyway.
    picture.save(stream, "png", compress_level=1)
    return stream.getvalue()


def _paint(pen: "ImageDraw", shape: Shape, dpi: int) -> None:
    thick = dpi / POINTS
    match shape:
        case Line():
            points = [(shape.x0 * dpi, shape.y0 * dpi), (shape.x1 * dpi, shape.y1 * dpi)]
            pen.line(points, fill=shape.colour, width=max(round(shape.width * thick), 1))
            if shape.arrow:
                pen.polygon([(x * dpi, y * dpi) for x, y in _head(shape)], fill=shape.colour)
        case Dot():
            pen.circle((shape.x * dpi, shape.y * dpi), shape.radius * dpi, fill=shape.colour)
        case Words():
            pen.text((shape.x * dpi, shape.y * dpi), shape.words, fill=shape.ink, font=_font(shape.size, dpi, shape.weight), anchor="lm")
        case Box():
            corners = [
                (round((shape.x + side * shape.width / 2) * dpi), round((shape.y + side * shape.height / 2) * dpi)) for side in (-1, 1)
            ]
            pen.rounded_rectangle(corners, ROUNDING * dpi, fill=shape.paper, outline=shape.edge, width=max(round(EDGE * thick), 1))
            for index, line in enumerate(shape.lines):
                place = (shape.x * dpi, (shape.y + shape.below(index)) * dpi)
                pen.text(place, line, fill=shape.ink, font=_font(shape.size, dpi, "regular"), anchor="mm")


def _font(size: float, dpi: int, weight: Weight) -> Any:
    return face(round(size * dpi / POINTS), weight).font


def _head(line: Line) -> list[tuple[float, float]]:
    """Return the corners of an arrow's head."""
    return [(line.x1, line.y1), (line.x1 - HEAD, line.y1 - 2 * HEAD), (line.x1 + HEAD, line.y1 - 2 * HEAD)]


def _points(length: float) -> str:
    return f"{length * POINTS:.1f}".removesuffix(".0")
