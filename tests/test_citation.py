"""CITATION.cff: of the form that its schema demands, of this version, and with the paper whose method this is."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

# Of the schema of the Citation File Format 1.2.0, the part that is used: the keys of each object, and which of them it needs.
TOP = {"abstract", "authors", "cff-version", "keywords", "license", "message", "references", "title", "type", "url", "version"}
PERSON = {"affiliation", "email", "family-names", "given-names", "orcid"}
ENTITY = {"name", "website", "email"}
REFERENCE = {"authors", "collection-title", "conference", "doi", "identifiers", "pages", "title", "type", "url", "year"}


def is_author(author: dict[str, Any]) -> bool:
    return set(author) <= PERSON or ("name" in author and set(author) <= ENTITY)


def test_the_file_is_valid() -> None:
    assert {"authors", "cff-version", "message", "title"} <= set(CITATION) <= TOP
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"
    assert CITATION["authors"]
    assert all(map(is_author, CITATION["authors"]))
    assert len(CITATION["keywords"]) == len(set(CITATION["keywords"]))
    for reference in CITATION["references"]:
        assert {"authors", "title", "type"} <= set(reference) <= REFERENCE
        assert all(map(is_author, reference["authors"]))
        assert "name" in reference["conference"]
        for identifier in reference["identifiers"]:
            assert set(identifier) <= {"type", "value", "description"}
            assert identifier["type"] in ("doi", "url", "swh", "other")


def test_it_is_of_this_version_and_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert str(CITATION["version"]) == project["version"]
    assert CITATION["license"] == project["license"]


def test_the_paper_is_the_one_that_the_readme_cites() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (paper,) = CITATION["references"]
    title = re.search(r"title\s+= \{(.+)\}", readme)
    authors = re.search(r"author\s+= \{(.+)\}", readme)
    assert title is not None
    assert authors is not None
    assert paper["title"] == title[1].replace("\\&", "&")
    assert [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]] == authors[1].split(" and ")
    assert paper["identifiers"][0]["value"] == "arXiv:2304.05288"
