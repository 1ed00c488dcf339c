"""What all figures have in common: colours for light and dark pages, text that can be drawn, and the way to a PNG and an SVG."""

import re
from dataclasses import asdict, dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.report.wording import clean, short
from lifelong.storage import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import BboxBase

DPI = 160
PAD = 0.12
"""Inches of paper around what is drawn."""

FONT = "DejaVu Sans"
"""The font that comes with matplotlib: the same picture on every machine."""

FEW = 25
"""Up to this many tasks, cells carry numbers and every task its name; beyond, they would be too small to read."""


@dataclass(frozen=True)
class Theme:
    """The colours of a figure. Those of the decisions can be told apart with any common colour blindness (Okabe & Ito 2008).

    Attributes:
        paper, ink, muted, faint: background, text, secondary text, lines.
        expert, cell, search, allocated, none: the decisions, and "nothing was decided".
        series: colours of methods side by side.
    """

    paper: str
    ink: str
    muted: str
    faint: str
    expert: str
    cell: str
    search: str
    allocated: str
    none: str
    series: tuple[str, ...]

    def names(self) -> dict[str, str]:
        """Return the colours by their names on a page."""
        named = {key: value for key, value in asdict(self).items() if isinstance(value, str)}
        return named | {f"series-{index}": colour for index, colour in enumerate(self.series)}

    def decision(self, kind: str | None) -> str:
        """Return the colour of a decision."""
        # No run has cells as well as heads; what is trained beside these has one colour.
        colours = {
            "search": self.search,
            "reuse-cell": self.cell,
            "allocate": self.allocated,
            "reuse-expert": self.expert,
            "head": self.cell,
            "adapter": self.search,
            "side": self.search,
        }
        return colours.get(kind or "", self.none)


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b2027",
    muted="#59636e",
    faint="#d5dae0",
    expert="#0072b2",
    cell="#e69f00",
    search="#b5568d",
    allocated="#009e73",
    none="#7d8894",
    series=("#0072b2", "#d55e00", "#009e73", "#b5568d", "#8a6d00", "#3f97c9", "#59636e"),
)
DARK = Theme(
    paper="#171c23",
    ink="#e4e9ee",
    muted="#9ca7b3",
    faint="#363e48",
    expert="#4fa8dd",
    cell="#e9ab1f",
    search="#da8cb8",
    allocated="#2fc49a",
    none="#7d8894",
    series=("#4fa8dd", "#f08a3c", "#2fc49a", "#da8cb8", "#d9c24a", "#9fd3f0", "#9ca7b3"),
)


def figure(width: float, height: float, theme: Theme) -> "Figure":
    """Make an empty figure of this size in inches, without window system or shared state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor=theme.paper)


def axes(drawing: "Figure", box: tuple[float, float, float, float], theme: Theme) -> "Axes":
    """Axes at (left, bottom, width, height) in inches, with quiet lines."""
    width, height = drawing.get_size_inches()
    frame = drawing.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    frame.set_facecolor(theme.paper)
    for side, spine in frame.spines.items():
        spine.set_color(theme.faint)
        spine.set_visible(side in ("left", "bottom"))
    frame.tick_params(colors=theme.muted, labelcolor=theme.ink, labelsize=9, length=3, labelfontfamily=FONT)
    return frame


def finish(drawing: "Figure", path: Path | None) -> bytes:
    """Render the figure as PNG; if a path is given, write it there, and an SVG next to it.

    In the SVG text is outlines: it looks the same where the font is missing. The same figure gives the same bytes.
    """
    from matplotlib import rc_context

    # Measured once for both: it takes as long as drawing.
    box = drawing.get_tightbbox().padded(PAD)
    content = _saved(drawing, box, "png", dpi=DPI)
    if path is not None:
        write_bytes(path, content)
        with rc_context({"svg.hashsalt": "lifelong", "svg.fonttype": "path"}):
            # None leaves an entry out: no date, no version of matplotlib.
            vector = _saved(drawing, box, "svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        write_text(path.with_suffix(".svg"), _COORDINATES.sub(lambda found: _TAIL.sub("", found[0]), vector.decode()))
    return content


_COORDINATES = re.compile(r'\b[dxy]="[^"]*"')
_TAIL = re.compile(r"(?<=\.\d\d)\d+")
"""What a coordinate says beyond a hundredth of a point: a third of the file."""


def _saved(drawing: "Figure", box: "BboxBase", form: str, **how: Any) -> bytes:
    stream = BytesIO()
    drawing.savefig(stream, format=form, facecolor=drawing.get_facecolor(), bbox_inches=box, **how)
    return stream.getvalue()


def drawable(text: object, length: int = 24) -> str:
    """Text from data as matplotlib can draw it: short, no formulas, no characters that the font lacks."""
    known = _characters()
    line = "".join(character if ord(character) in known else "\N{REPLACEMENT CHARACTER}" for character in short(clean(text), length))
    return line.replace("$", r"\$")


@cache
def _characters() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(FONT)).get_charmap())


def readable_on(colour: tuple[float, float, float, float]) -> str:
    """Nearly black or white, whichever stands out more on a colour; no colour of a theme, and so the same in all of them."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#101418" if luminance > 0.18 else "#fdfdfd"


def task_ticks(count: int) -> list[int]:
    """Choose the tasks to label on an axis: all if few, else the first and every fifth, tenth, ..."""
    if count <= FEW:
        return list(range(count))
    step = next(step for step in (5, 10, 20, 50, 100, 200, 500, 10**9) if count / step <= 12)
    return [0, *range(step - 1, count, step)]
