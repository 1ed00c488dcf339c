"""The paper's tables as data: every printed number, with the method and the stream it belongs to.

The files in `tables/` hold the numbers exactly as they are printed. A row names the method that this library runs for it, and how the
paper's row differs: an AlexNet instead of the light ResNet-18, or a remark.

Source: Wang et al., CVPR 2023, Tables 1 to 5.
"""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from lifelong.errors import LifelongError, near_miss

TABLES = ("table1", "table2", "table3", "table4", "table5")

QUANTITIES = {"ap": "AP", "af": "AF", "m": "M", "t": "T"}
"""What a table has numbers of, with their headings: M in millions of parameters, T in hours of learning."""


@dataclass(frozen=True)
class PaperStream:
    """A stream of a table.

    Attributes:
        name: this library's name of it.
        label: the paper's.
    """

    name: str
    label: str


@dataclass(frozen=True)
class PaperRow:
    """A row of a table.

    Attributes:
        label: the paper's name of the method.
        method: this library's.
        variant: of PAR; None: the method as it is.
        backbone: the paper's network, if it differs from the other rows.
        note: what to know before comparing the row.
        numbers: by quantity, then by the stream's name; None where nothing is printed.
    """

    label: str
    method: str
    variant: str | None
    backbone: str | None
    note: str | None
    numbers: dict[str, dict[str, float | None]]

    @property
    def key(self) -> str:
        """The method as one word: "par", "par-fixed"."""
        return self.method if self.variant is None else f"{self.method}-{self.variant}"

    def number(self, stream: str, quantity: str) -> float | None:
        """Return what is printed; None: nothing."""
        return self.numbers[quantity][stream]

    def has(self, stream: str) -> bool:
        """Whether anything is printed for a stream."""
        return any(self.number(stream, quantity) is not None for quantity in self.numbers)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        name: "table1" to "table5".
        title: what it is about.
        quantities: keys of `QUANTITIES`.
        streams: in the order of the columns.
        rows: in printed order.
    """

    name: str
    title: str
    quantities: tuple[str, ...]
    streams: tuple[PaperStream, ...]
    rows: tuple[PaperRow, ...]


def paper_table(name: str) -> PaperTable:
    """Return a table of the paper.

    Args:
        name: "table1" to "table5".

    Raises:
        LifelongError: there is no such table.
    """
    if name not in TABLES:
        raise LifelongError(f"no table '{name}' in the paper{near_miss(name, TABLES)}")
    content = tomllib.loads((files("lifelong.reproduction") / "tables" / f"{name}.toml").read_text(encoding="utf-8"))
    streams = tuple(PaperStream(**stream) for stream in content["streams"])
    quantities = tuple(content["quantities"])
    rows = tuple(_row(row, quantities, streams) for row in content["row"])
    return PaperTable(name, content["title"], quantities, streams, rows)


def _row(row: dict[str, Any], quantities: tuple[str, ...], streams: tuple[PaperStream, ...]) -> PaperRow:
    numbers = {
        quantity: {stream.name: None if value == "-" else float(value) for stream, value in zip(streams, row[quantity], strict=True)}
        for quantity in quantities
    }
    return PaperRow(row["label"], row["method"], row.get("variant"), row.get("backbone"), row.get("note"), numbers)
