"""Write the files of `lifelong reproduce`: each table and figure as CSV, Markdown, LaTeX and a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lifelong.report.exports import escape_latex, escape_markdown, latex, markdown
from lifelong.report.page import Grid, Picture, write_page
from lifelong.reproduction.scales import Scale
from lifelong.storage import write_text


@dataclass(frozen=True)
class Part:
    """A section of the output.

    Attributes:
        title: its heading.
        grid: its table, if any.
        picture: its figure, if any; for the page alone.
        words: what the figure shows, for screen readers.
        text: a paragraph, or nothing.
    """

    title: str
    grid: Grid | None = None
    picture: Picture | None = None
    words: str = ""
    text: str = ""


def claim(scale: Scale, tolerance: float) -> str:
    """State what the numbers can be used for."""
    if not scale.full:
        return f"Scale {scale.name}, {scale.about}: not a reproduction of the paper's numbers. Differences are shown for orientation only."
    return (
        f"Scale paper, {scale.about}. AP and AF agree if they differ by at most {tolerance:g}, parameters if they differ by at most 5 %."
        " Streams with missing tasks get no verdict."
    )


def write_all(out: Path, name: str, title: str, scale: Scale, said: str, parts: Sequence[Part], notes: Sequence[str], csv: str) -> None:
    """Write NAME.csv, NAME.md, NAME.tex and NAME.html into a folder.

    Args:
        out: the folder.
        name: such as "table1".
        title: what it is about.
        scale: at which it was made.
        said: what its numbers can be used for; see `claim`.
        parts: its sections.
        notes: below them.
        csv: the text of its CSV file.

    Raises:
        LifelongError: a file cannot be written.
    """
    heading = f"{heading_of(name)}: {title}"
    write_text(out / f"{name}.csv", csv)
    write_text(out / f"{name}.md", _markdown(heading, said, parts, notes))
    write_text(out / f"{name}.tex", _latex(heading, said, parts, notes))
    page = {"title": heading, "subtitle": "Wang et al., CVPR 2023", "claim": said, "full": scale.full, "parts": parts, "notes": notes}
    write_page(out / f"{name}.html", "reproduction.html.j2", **page)


def heading_of(name: str) -> str:
    """ "table1" → "Table 1"."""
    return f"{name[:-1].capitalize()} {name[-1]}"


def _markdown(heading: str, said: str, parts: Sequence[Part], notes: Sequence[str]) -> str:
    blocks = [f"# {escape_markdown(heading)}", escape_markdown(said)]
    for part in parts:
        blocks.append(f"## {escape_markdown(part.title)}")
        blocks += [markdown(part.grid).rstrip()] if part.grid is not None else []
        blocks += [escape_markdown(part.text)] if part.text else []
    blocks += ["\n".join(f"- {escape_markdown(note)}" for note in notes)] if notes else []
    return "\n\n".join(blocks) + "\n"


def _latex(heading: str, said: str, parts: Sequence[Part], notes: Sequence[str]) -> str:
    """Return a table environment for each part; needs the package booktabs."""
    blocks = [f"% {escape_latex(note)}\n" for note in (heading, said, *notes)]
    for part in parts:
        if part.grid is not None:
            caption = escape_latex(f"{heading}. {part.title}. {said}")
            blocks.append(f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n{latex(part.grid)}\\end{{table}}\n")
    return "".join(blocks)
