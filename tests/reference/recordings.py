"""What reference codes computed: the tensors that were put into their functions, and what came out.

Each recording is a file of `recorded/`, `NAME.safetensors`: tensors `in/...` and `out/...`, and as metadata the repository, the commit, the
files and functions, PyTorch's version and the date of the run. The weights of a network are one tensor; its metadata have the names and
shapes of the reference's parameters in that order. The functions were run in float64 on inputs that float32 holds exactly.

The row of `docs/fidelity.md` with a recording's name says by how much this library differs at most; its test holds it to that, from both
sides: a number that is much larger than what is found would hide a mistake (`conftest.py`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors import safe_open
from torch import Tensor

FOLDER = Path(__file__).parent / "recorded"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "fidelity.md"

ROUNDING = 1e-12
"""What the page says where all that differs is rounding in float64, which is as much as processors like."""

SLACK = 10
"""How many times what is found the page may say, where more differs than rounding in float64. Measured: 1.2 to 2.3 times, with AVX-512."""

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Recording:
    """One recording, and what the page says of it.

    Attributes:
        name: of the file.
        tensors: all of it, by key.
        metadata: where it comes from.
    """

    name: str
    tensors: Named
    metadata: dict[str, str]

    def __getitem__(self, key: str) -> Tensor:
        """A tensor; one of float32 comes as float64."""
        tensor = self.tensors[key]
        return tensor.double() if tensor.is_floating_point() else tensor.long()

    def pixels(self, key: str = "in/images") -> Tensor:
        """Prepared images, which are stored in 32nds."""
        return self[key] / 32

    def named(self, key: str) -> Named:
        """The tensors that were stored as one, by the reference's names."""
        names = self.metadata[key]
        names = self.metadata[names.removeprefix("= ")] if names.startswith("= ") else names
        shapes = {name: [int(size) for size in shape.split("x")] for name, shape in (entry.split(":") for entry in names.split())}
        parts = self[key].split([math.prod(shape) for shape in shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    @property
    def row(self) -> "Row":
        """Its row on the page."""
        return rows()[self.name]

    @property
    def allowed(self) -> float:
        """The largest difference according to the page; "none" is 0."""
        printed = self.row.number
        return 0.0 if printed == "none" else float(printed)

    def holds(self, ours: Tensor, theirs: Tensor) -> None:
        """Assert that two tensors differ by at most what the page says, relative to the largest number of the recorded one."""
        allowed, difference = self.allowed, relative(ours, theirs)
        FOUND[self.name] = max(FOUND.get(self.name, 0.0), difference)
        assert difference <= allowed, f"{self.name}: {difference:.1e} of the largest number, and the page says {allowed:.0e}"

    def differs(self, setting: str, ours: Tensor, theirs: Tensor) -> None:
        """Assert that two tensors differ, with a setting's default, by what the page says."""
        difference, printed = relative(ours, theirs), rows()[f"{self.name}, {setting}"].number
        assert difference == pytest.approx(float(printed), rel=0.02), (
            f"{self.name}, {setting}: {difference:.4f}, and the page says {printed}"
        )

    def counts(self, setting: str, different: Tensor) -> None:
        """Assert that as many results are different, with a setting's default, as the page says."""
        found, printed = f"{int(different.sum())} of {different.numel()}", rows()[f"{self.name}, {setting}"].number
        assert found == printed, f"{self.name}, {setting}: {found}, and the page says {printed}"


FOUND: dict[str, float] = {}
"""The largest difference that `holds` has found in the running test, by the recording's name."""


def too_large(found: Mapping[str, float]) -> list[str]:
    """Name the recordings of which the page says much more than was found.

    Args:
        found: the largest differences by name.
    """
    printed = {name: 0.0 if rows()[name].number == "none" else float(rows()[name].number) for name in found}
    return [f"{name}: {printed[name]:.0e}, found {most:.1e}" for name, most in found.items() if printed[name] > max(ROUNDING, SLACK * most)]


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two tensors, in parts of the largest number of the second."""
    assert ours.shape == theirs.shape
    difference, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    return difference / largest if largest else difference


def recording(name: str) -> Recording:
    """Read a recording."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        return Recording(name, {key: file.get_tensor(key) for key in file.keys()}, file.metadata())  # noqa: SIM118  (not a dict)


class Row(NamedTuple):
    """A row of one of the page's two tables of recordings."""

    part: str
    middle: str
    number: str


def rows() -> dict[str, Row]:
    """The rows by the name of the recording, with the setting in the second table."""
    found = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| `([\w-]+)`(, `(?:\w+)`)? \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name + setting.replace("`", ""): Row(part, middle, number) for part, middle, number, name, setting in found}
