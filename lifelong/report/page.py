"""The parts of a page: tables, figures for light and dark, and the writing of it. Nothing is loaded from elsewhere."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.report.canvas import DARK, LIGHT, Theme
from lifelong.report.wording import ABSENT, clean
from lifelong.storage import write_text


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        headings: of the columns.
        rows: text; the first column holds names.
        words: headings of the columns that hold words, not numbers.
        best: rows and columns of the cells that stand out.
    """

    headings: list[str]
    rows: list[list[str]]
    words: tuple[str, ...] = ()
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A figure as a part of the page: SVG whose colours are the page's, so that it is light and dark with it.

    Attributes:
        svg: the element. Names from data are outlines in it, no text.
    """

    svg: str

    @property
    def across(self) -> str:
        """Its width as drawn, as a length in CSS: a page may shrink a picture, but not enlarge it."""
        found = _WIDTH.search(self.svg)
        return found[1] if found is not None else "100%"

    @classmethod
    def draw(cls, path: Path, figure: Callable[[Path, Theme], bytes]) -> "Picture":
        """Draw it into a PNG and an SVG file, and take the SVG."""
        figure(path, LIGHT)
        return cls(inlined(path.with_suffix(".svg").read_text(encoding="utf-8"), path.stem))


def inlined(drawing: str, name: str) -> str:
    """Turn an SVG file's content into an element of a page.

    Args:
        drawing: the file, drawn in the light theme.
        name: of the picture on the page: its identifiers begin with it, since every drawing has the same ones.
    """
    svg = _COMMENT.sub("", drawing[drawing.index("<svg") :])
    used = set(_REFERENCE.findall(svg))
    svg = _IDENTIFIER.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = _REFERENCE.sub(lambda found: found[0].replace("#", f"#{name}-"), svg)
    return _COLOUR.sub(lambda found: _PAGE_COLOURS.get(found[0], found[0]), svg)


_COMMENT = re.compile(r"<!--.*?-->\n?|<metadata>.*?</metadata>\n?", re.DOTALL)
_IDENTIFIER = re.compile(r' id="([^"]+)"')
_REFERENCE = re.compile(r"""(?:href="#|url\(#)([^")]+)""")
_WIDTH = re.compile(r'<svg[^>]* width="([0-9.]+pt)"')
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_PAGE_COLOURS = {colour: f"var(--{name})" for name, colour in reversed(LIGHT.names().items())}
"""What stands on the page for a colour of the light theme; where several have it, the first name."""


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Fill a template of this package and write the page.

    Args:
        path: of the page.
        template: its name in `templates`.
        values: the values that the template uses; all except drawings are escaped.

    Raises:
        LifelongError: the file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Autoescape for every template: names come from data.
    loader = PackageLoader("lifelong.report", "templates")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    write_text(path, pages.get_template(template).render(light=LIGHT.names(), dark=DARK.names(), **values))
    return path


def in_words(value: Any) -> str:
    """Write a plain value for readers."""
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(in_words(item) for item in value) or ABSENT
    return clean(value)
