"""A dot in place of each figure of a report: most tests write reports only because runs do."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image

from lifelong.report.canvas import Theme
from lifelong.report.page import Picture, inlined
from lifelong.storage import write_bytes, write_text

WITH_FIGURES = ("report/", "reproduction/", "documentation/", "sockets/test_figures", "cli/test_commands", "test_reporting")
"""Tests whose figures are drawn."""

DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt" viewBox="0 0 1 1"><circle r="1"/></svg>\n'

Draw = Callable[[Path, Callable[[Path, Theme], bytes]], Picture]


def drawing(draw: Draw) -> Callable[..., Picture]:
    """Stand in for `Picture.draw`, which draws where figures count."""

    def drawn(cls: type[Picture], path: Path, figure: Callable[[Path, Theme], bytes]) -> Picture:
        # Asked by name since fixtures of a module, which run before those of a test, learn and report as well.
        if os.environ.get("PYTEST_CURRENT_TEST", "").removeprefix("tests/").startswith(WITH_FIGURES):
            return draw(path, figure)
        picture = BytesIO()
        Image.new("RGB", (1, 1)).save(picture, "PNG")
        write_bytes(path, picture.getvalue())
        write_text(path.with_suffix(".svg"), DOT)
        return cls(inlined(DOT, path.stem))

    return drawn
