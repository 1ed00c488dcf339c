"""The Dockerfile, as far as it can be checked without building it: what it copies is there, and what it runs is the Makefile's."""

import re
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
STEPS = [line.split(maxsplit=1) for line in TEXT.splitlines() if line and not line.startswith("#")]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def rest(word: str) -> list[str]:
    """What follows each instruction of a name."""
    return [after for name, after in STEPS if name == word]


def copied() -> list[str]:
    """The files and folders that the image copies from the repository."""
    words = [[word for word in line.split() if not word.startswith("--")] for line in rest("COPY")]
    return [source for sources in words for source in sources[:-1]]


def kept(path: str) -> bool:
    """Whether .dockerignore leaves a file in the context: of its lines the last one that fits decides."""
    found = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if (
            line
            and not line.startswith("#")
            and (fnmatch(path, pattern) or fnmatch(path, f"{pattern}/*") or path.startswith(f"{pattern}/"))
        ):
            found = line.startswith("!")
    return found


def test_what_it_copies_is_there_and_in_its_context() -> None:
    assert {"lifelong", "Makefile", "pyproject.toml", "constraints.txt"} <= set(copied())
    for source in copied():
        assert (ROOT / source).exists(), source
        assert kept(source), source


def test_its_context_holds_nothing_else() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == set(copied())
    for path in (".git/config", ".venv/bin/python", "runs/digits/summary.json", "tests/conftest.py", "lifelong/cli/__pycache__/main.pyc"):
        assert not kept(path), path


def test_all_that_the_install_reads_is_copied() -> None:
    """What `pip install .` needs by pyproject.toml, and make by the rule of the environment."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = re.findall(r'^(?:readme|license-files) = \[?"([^"]+)"', project, flags=re.MULTILINE)
    assert len(named) == 2
    rule = re.search(r"^\$\(STAMP\): (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert rule is not None
    assert {*named, *rule[1].split()} <= set(copied())


def test_it_runs_make_run_in_the_makefiles_environment() -> None:
    (command,) = rest("CMD")
    assert command == '["make", "run"]'
    stamp = re.search(r"^VENV := (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert stamp is not None
    assert re.search(r"^STAMP := \$\(VENV\)/\.installed$", MAKEFILE, flags=re.MULTILINE)
    assert any(line.startswith(f"make {stamp[1]}/.installed") for line in rest("RUN"))
    assert re.search(r"^run: \$\(STAMP\)", MAKEFILE, flags=re.MULTILINE)


def test_its_base_is_pinned_and_supported() -> None:
    (base,) = rest("FROM")
    version = re.fullmatch(r"python:3\.(\d+)\.\d+-slim-bookworm", base)
    assert version is not None
    assert int(version[1]) >= 11


def test_nothing_runs_as_root() -> None:
    names = [name for name, _ in STEPS]
    assert rest("USER") == ["learner"]
    before = [after for name, after in STEPS[: names.index("USER")] if name == "RUN"]
    assert len(before) == 1
    assert "useradd" in before[0]
    assert "pip" not in before[0]
    assert names.index("USER") < min(names.index("COPY"), names.index("CMD"))
    assert all("--chown=learner" in line for line in rest("COPY"))
