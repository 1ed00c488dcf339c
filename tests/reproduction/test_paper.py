"""The data files against numbers typed from the paper by hand, and against what the library knows."""

import pytest

from lifelong.errors import LifelongError
from lifelong.methods.registry import METHODS
from lifelong.reproduction.paper import QUANTITIES, TABLES, paper_table
from lifelong.settings.fields import settings_of
from lifelong.settings.par import PARSettings
from lifelong.streams.named_streams import stream_names

TYPED = [
    ("table1", "Finetune", "ctrl-s-minus", "ap", 0.180),
    ("table1", "Finetune", "ctrl-s-long", "af", -0.400),
    ("table1", "EWC", "ctrl-s-plus", "ap", 0.370),
    ("table1", "ER", "ctrl-s-out", "af", -0.070),
    ("table1", "ER", "ctrl-s-long", "ap", None),
    ("table1", "HAT", "ctrl-s-long", "af", -0.100),
    ("table1", "Independent", "ctrl-s-out", "ap", 0.610),
    ("table1", "PNN", "ctrl-s-pl", "ap", 0.540),
    ("table1", "SG-F", "ctrl-s-in", "ap", 0.655),
    ("table1", "MNTDP-S", "ctrl-s-long", "ap", 0.680),
    ("table1", "MNTDP-D", "ctrl-s-minus", "ap", 0.670),
    ("table1", "LMC", "ctrl-s-pl", "af", -0.035),
    ("table1", "LMC", "ctrl-s-long", "ap", 0.639),
    ("table1", "LMC", "ctrl-s-long", "af", None),
    ("table1", "PAR", "ctrl-s-minus", "ap", 0.706),
    ("table1", "PAR", "ctrl-s-plus", "af", -0.017),
    ("table1", "PAR", "ctrl-s-long", "ap", 0.773),
    ("table2", "CAT", "cifar100-fceleba", "ap", 0.6831),
    ("table2", "PAR", "cifar100-fceleba", "ap", 0.7122),
    ("table3", "Finetune", "cifar100-10", "ap", 0.280),
    ("table3", "MAS", "miniimagenet-20", "af", -0.238),
    ("table3", "LwF", "cifar100-10", "ap", 0.655),
    ("table3", "GPM", "miniimagenet-20", "ap", 0.604),
    ("table3", "GPM", "miniimagenet-20", "af", None),
    ("table3", "A-GEM", "cifar100-10", "af", -0.120),
    ("table3", "Learn to Grow", "miniimagenet-20", "ap", None),
    ("table3", "PAR", "miniimagenet-20", "ap", 0.816),
    ("table4", "Finetune", "cifar100-10", "ap", 0.180),
    ("table4", "Independent", "ctrl-s-long", "m", 60.705),
    ("table4", "PN", "cifar100-10", "m", 12.422),
    ("table4", "PN", "ctrl-s-long", "m", None),
    ("table4", "MNTDP-D", "ctrl-s-long", "m", 25.508),
    ("table4", "PAR", "cifar100-10", "m", 1.400),
    ("table5", "#2 FS", "cifar100-10", "t", 1.9),
    ("table5", "#4 Reg.", "cifar100-10", "m", 0.244),
    ("table5", "#6 FS, Reg.", "cifar100-10", "ap", 0.856),
    ("table5", "PAR: FS, CS, Reg.", "cifar100-10", "t", 1.1),
]


@pytest.mark.parametrize(("table", "row", "stream", "quantity", "number"), TYPED)
def test_a_number_as_printed(table, row, stream, quantity, number):
    (found,) = [one for one in paper_table(table).rows if one.label == row]
    assert found.number(stream, quantity) == number


@pytest.mark.parametrize(("table", "rows", "columns", "numbers"), [("table1", 11, 12, 125), ("table2", 4, 1, 4), ("table3", 12, 4, 40)])
def test_whole_tables(table, rows, columns, numbers):
    """Counted on the page: rows, columns of numbers, and numbers, without dashes."""
    found = paper_table(table)
    cells = [row.number(stream.name, quantity) for row in found.rows for stream in found.streams for quantity in found.quantities]
    assert len(found.rows) == rows
    assert len(cells) == rows * columns
    assert sum(cell is not None for cell in cells) == numbers


@pytest.mark.parametrize(
    ("table", "quantity", "total"), [("table4", "m", 174.553), ("table5", "ap", 5.904), ("table5", "m", 10.396), ("table5", "t", 8.6)]
)
def test_totals(table, quantity, total):
    """Sums of printed columns, added up by hand."""
    found = paper_table(table)
    numbers = [row.number(stream.name, quantity) or 0.0 for row in found.rows for stream in found.streams]
    assert sum(numbers) == pytest.approx(total)


@pytest.mark.parametrize("name", TABLES)
def test_rows_can_be_run(name):
    table = paper_table(name)
    assert len({row.key for row in table.rows}) == len(table.rows)
    assert {row.method for row in table.rows} <= set(METHODS)
    assert {stream.name for stream in table.streams} <= set(stream_names())
    assert set(table.quantities) <= set(QUANTITIES)
    known = settings_of(PARSettings)["variant"].hint.__args__
    assert {row.variant for row in table.rows} <= {None, *known}


def test_what_the_paper_marks():
    """A star is an AlexNet."""
    assert [row.label for row in paper_table("table1").rows if row.backbone == "AlexNet"] == ["HAT"]
    assert [row.label for row in paper_table("table3").rows if row.backbone == "AlexNet"] == ["GPM"]


def test_no_such_table():
    with pytest.raises(LifelongError, match="did you mean 'table1'"):
        paper_table("tabel1")
