"""Links from pages to files of the repository that lie outside `docs/`: such files become part of the site.

A page may link to `../results/README.md` or `../examples/new_method.py`, as it must on a code host. What is linked, and exists, is
taken into the site below `repository/`, Markdown as pages whose own links are followed, and the links are led there.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
"""An inline link or picture of Markdown: what comes before its target, the target, and an anchor with what comes after."""

AT = "repository"
"""The folder of the site for what lies outside `docs/`."""

DOCS = "docs"


def targets(text: str, source: str) -> Iterator[str]:
    """Return the files that a page links to, by their paths in the repository.

    Args:
        text: of the page, in Markdown.
        source: the page's own path in the repository.
    """
    for _, target, _ in LINK.findall(text):
        if ":" not in target:
            yield posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def outside(root: Path, pages: list[str]) -> list[str]:
    """Return the files outside `docs/` that pages link to, or pages that these link to, in the order in which they are found."""
    found: list[str] = []
    waiting = list(pages)
    while waiting:
        page = waiting.pop(0)
        for target in targets((root / page).read_text(encoding="utf-8"), page):
            if target in found or target.startswith((f"{DOCS}/", "../")) or not (root / target).is_file():
                continue
            found.append(target)
            if target.endswith(".md"):
                waiting.append(target)
    return found


def in_site(path: str) -> str:
    """Where a file of the repository stands in the site's sources."""
    return path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") else f"{AT}/{path}"


def in_repository(path: str) -> str:
    """Return the reverse of `in_site`."""
    return path.removeprefix(f"{AT}/") if path.startswith(f"{AT}/") else f"{DOCS}/{path}"


def led(text: str, page: str, known: set[str]) -> str:
    """Return a page's Markdown, with links that lead to the same files in the site.

    Args:
        text: of the page, with links as in the repository.
        page: where it stands in the site's sources.
        known: all files of the site's sources.
    """
    source = in_repository(page)

    def link(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        place = in_site(posixpath.normpath(posixpath.join(posixpath.dirname(source), target)))
        if ":" in target or place not in known:
            return match.group(0)
        return before + posixpath.relpath(place, posixpath.dirname(page) or ".") + after

    return LINK.sub(link, text)


def on_files(files: Files, config: Any) -> Files:
    """Take in what is linked."""
    root = Path(config.config_file_path).parent
    pages = [f"{DOCS}/{file.src_uri}" for file in files.documentation_pages()]
    for path in outside(root, pages):
        files.append(File.generated(config, in_site(path), abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead the page's links."""
    return led(markdown, page.file.src_uri, set(files.src_uris))
