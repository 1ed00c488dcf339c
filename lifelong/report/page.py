"""The parts of a page: tables, figures for light and dark, and the writing of it. Nothing is loaded from elsewhere."""

import base64
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
    """

    headings: list[str]
    rows: list[list[str]]
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A figure for light and for dark pages, as base64 PNG."""

    light: str
    dark: str

    @classmethod
    def draw(cls, path: Path, figure: Callable[[Path | None, Theme], bytes]) -> "Picture":
        """Draw it in both themes; the light one is kept as a file too."""
        return cls(base64.b64encode(figure(path, LIGHT)).decode(), base64.b64encode(figure(None, DARK)).decode())


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Fill a template of this package and write the page.

    Args:
        path: of the page.
        template: its name in `templates`.
        values: whatever the template names; each is escaped.

    Raises:
        LifelongError: the file cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Autoescape for every template: names come from data.
    loader = PackageLoader("lifelong.report", "templates")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    write_text(path, pages.get_template(template).render(**values))
    return path


def in_words(value: Any) -> str:
    """A plain value as a person would write it."""
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(in_words(item) for item in value) or ABSENT
    return clean(value)
