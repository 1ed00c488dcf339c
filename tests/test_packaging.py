"""What the package asks for: the versions of `make test-oldest` are the lowest that it allows."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without zeros at the end."""
    numbers = [int(number) for number in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def test_the_oldest_versions_are_the_lowest_that_are_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [re.fullmatch(r"([\w-]+)>=([\d.]+)", line) for line in [*project["dependencies"], *project["optional-dependencies"]["onnx"]]]
    lines = [line for line in (ROOT / "constraints-oldest.txt").read_text().splitlines() if not line.startswith("#")]
    assert None not in asked
    assert {match[1]: release(match[2]) for match in asked if match} == {
        name: release(version) for name, version in (line.split("==") for line in lines)
    }
