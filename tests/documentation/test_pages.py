"""Every method and every named stream has its page, and the pages are in the site's contents."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lifelong.methods.registry import METHODS
from lifelong.streams.named_streams import stream_names

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def leaves(item: Any) -> Iterator[str]:
    """The files of a part of the contents."""
    if isinstance(item, str):
        yield item
    for part in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from leaves(part)


@pytest.fixture(scope="module")
def contents() -> set[str]:
    return set(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_a_page(name: str, contents: set[str]) -> None:
    assert f"methods/{name}.md" in contents
    page = (DOCS / "methods" / f"{name}.md").read_text()
    for heading in ("## Idea", "## Equation"):
        assert heading in page
    for number in re.findall(r"arXiv (\d{4}\.\d{5})", METHODS[name].source):
        assert f"https://arxiv.org/abs/{number}" in page
    assert f"({name}.md)" in (DOCS / "methods" / "index.md").read_text()


@pytest.mark.parametrize("name", sorted(stream_names()))
def test_every_stream_has_a_section(name: str, contents: set[str]) -> None:
    assert "benchmarks-streams.md" in contents
    headings = re.findall(r"^## .*$", (DOCS / "benchmarks-streams.md").read_text(), flags=re.MULTILINE)
    assert any(f"`{name}`" in heading for heading in headings)
    assert f"`{name}`" in (DOCS / "streams.md").read_text()


def test_every_public_name_is_in_the_reference() -> None:
    """The page takes all of `lifelong.__all__`, unless it says which."""
    page = (DOCS / "api" / "index.md").read_text()
    assert "::: lifelong\n" in page
    assert "members" not in page
