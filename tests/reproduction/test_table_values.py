"""Cells, their words and the ledger, on made results."""

import csv
import io
import json
import math
from pathlib import Path

import pytest

from lifelong.errors import LifelongError
from lifelong.reproduction import grids, ledger
from lifelong.reproduction.paper import PaperRow, PaperStream, paper_table
from lifelong.reproduction.plan import Choice, plan
from lifelong.reproduction.runs import COMMITS, Outcome
from lifelong.reproduction.scales import read_scale
from lifelong.reproduction.table_values import Cell, cells_of, check_tolerance, measured
from tests.report.made import run

PAPER = read_scale("paper")

SUMMARY = run(
    ap=0.5,
    af=-0.1,
    parameters=1_400_000,
    seconds=5400.0,
    seconds_by_phase={"train": 3000.0, "search": 600.0, "evaluate": 1800.0},
    machine="CPU",
    device="cpu",
)


def cell(
    paper: float | None, *values: float, quantity: str = "ap", missing: str | None = None, label: str = "PAR", run_as: str = "digits"
) -> Cell:
    row = PaperRow(label, label.lower(), None, None, None, {})
    seeds = tuple(range(len(values)))
    return Cell(row, PaperStream("digits", "D"), run_as, quantity, paper, values, (), seeds, 1.5, ("CPU",), missing)


def test_quantities_of_a_run():
    assert measured(SUMMARY, "ap") == 0.5
    assert measured(SUMMARY, "m") == 1.4
    assert measured(SUMMARY, "t") == 1.0  # an hour of learning; what judging took is not counted


def test_mean_deviation_and_difference():
    three = cell(0.7, 0.5, 0.6, 0.4)
    assert three.mean == pytest.approx(0.5)
    assert three.sd == pytest.approx(0.1)
    assert three.difference == pytest.approx(-0.2)
    assert cell(0.7, 0.5).sd is None
    assert cell(None, 0.5).difference is None
    assert (cell(0.7).mean, cell(0.7).difference) == (None, None)


@pytest.mark.parametrize(
    ("ours", "verdict"), [(0.72, "agrees"), (0.68, "agrees"), (0.7, "agrees"), (0.7201, "differs"), (0.6799, "differs"), (0.9, "differs")]
)
def test_the_tolerance_has_two_sides(ours, verdict):
    assert cell(0.7, ours).verdict(PAPER, 0.02) == verdict
    assert cell(0.7, ours).verdict(PAPER, 0.5) == "agrees"


def test_parameters_have_a_tolerance_of_their_own():
    assert cell(2.0, 2.1, quantity="m").verdict(PAPER, 0.0) == "agrees"
    assert cell(2.0, 1.89, quantity="m").verdict(PAPER, 0.9) == "differs"
    assert cell(1.0, 1.0, quantity="t").verdict(PAPER, 0.02) is None  # hours of another machine


def test_a_reduced_scale_or_a_shortened_stream_is_not_the_papers():
    shortened = cell(0.7, 0.7, run_as="digits?without=svhn")
    assert cell(0.7, 0.7).verdict(read_scale("small"), 0.02) is None
    assert shortened.verdict(PAPER, 0.02) is None
    assert grids.by_stream([shortened], PAPER, 0.02)[0][1].rows[0][-1] == "+0.000"
    assert next(csv.DictReader(io.StringIO(grids.as_csv("table1", [shortened], PAPER, 0.02))))["verdict"] == ""


def test_a_cell_has_as_many_digits_as_the_papers():
    assert grids.by_stream([cell(0.6155, 0.6, 0.7)], PAPER, 0.02)[0][1].rows == [
        ["PAR", "0.6155", "0.6500 ± 0.0707 (2)", "+0.0345 differs"]
    ]
    assert grids.by_stream([cell(0.0, -0.0001, quantity="af")], PAPER, 0.02)[0][1].rows == [["PAR", "0.000", "0.000 (1)", "+0.000 agrees"]]


def test_tolerances():
    assert check_tolerance(0.0) == 0.0
    for wrong in (-0.1, 1.0, math.nan):
        with pytest.raises(LifelongError, match="--tolerance"):
            check_tolerance(wrong)


def test_words_of_a_cell():
    scale = read_scale("small")
    made = [cell(0.7, 0.5, 0.6, 0.4), cell(0.7, missing="no images", label="EWC"), cell(None, 0.25, label="ER"), cell(None, label="SG-F")]
    ((title, grid),) = grids.by_stream(made, scale, 0.02)
    assert title == "D, scale small: digits"
    assert grid.headings == ["method", "AP paper", "AP ours (n)", "AP difference"]
    assert grid.rows == [
        ["PAR", "0.700", "0.500 ± 0.100 (3)", "-0.200"],
        ["EWC", "0.700", "missing", "–"],
        ["ER", "–", "0.250 (1)", "–"],
        ["SG-F", "–", "–", "–"],
    ]
    assert grids.notes(made) == ["Missing, D: no images."]


def test_only_the_papers_scale_is_held_against_the_paper():
    words = {name: grids.by_stream([cell(0.7, 0.71)], read_scale(name), 0.02)[0][1].rows[0][-1] for name in ("paper", "small")}
    assert words == {"paper": "+0.010 agrees", "small": "+0.010"}
    rows = {name: next(csv.DictReader(io.StringIO(grids.as_csv("table1", [cell(0.7, 0.71)], read_scale(name), 0.02)))) for name in words}
    assert [rows[name]["verdict"] for name in words] == ["agrees", ""]
    assert [rows[name]["scale"] for name in words] == ["paper", "small"]
    assert float(rows["small"]["difference"]) == pytest.approx(0.01)


def test_a_missing_stream_is_missing_in_its_cells_alone():
    table, choice = paper_table("table4"), Choice(read_scale("small"), seeds=(0, 1), methods=("par",))
    jobs = plan(table, choice)
    outcome = Outcome({jobs[0].folder: SUMMARY}, {"ctrl-s-long": "no images for source 'svhn'"})
    made = {(one.stream.name, one.quantity): one for one in cells_of(table, choice, jobs, outcome)}
    assert made["cifar100-10", "ap"].values == (0.5,)
    assert made["cifar100-10", "ap"].missing == "not run yet"
    assert made["cifar100-10", "m"].difference == pytest.approx(0.0)
    assert made["ctrl-s-long", "ap"].values == ()
    assert made["ctrl-s-long", "ap"].missing == "no images for source 'svhn'"


def test_rows_that_the_paper_has_no_number_for_stand_with_the_others():
    table, choice = paper_table("table1"), Choice(read_scale("small"), seeds=(0,), methods=("er", "ewc"), streams=("S_long",))
    ((title, grid),) = grids.by_stream(cells_of(table, choice, plan(table, choice), Outcome()), choice.scale, 0.02)
    assert title.startswith("S_long, scale small: ctrl-s-long?tasks=")
    assert [row[:3] for row in grid.rows] == [["EWC", "0.270", "missing"], ["ER", "–", "–"]]


# The ledger


def test_the_ledger_grows_and_repeats_nothing(tmp_path):
    (tmp_path / COMMITS).write_text('{"run": "a", "commit": "abc"}\n{"run": "b", "commit": "def"}\n{"run": "a", "comm')
    file, scale = tmp_path / "ledger.csv", read_scale("small")

    def add(*cells: Cell, table: str = "table1") -> int:
        return ledger.add_rows(file, table, cells, scale, "lifelong reproduce table1", tmp_path, 0.02)

    two = Cell(**{**cell(0.7, 0.5, 0.6).__dict__, "runs": (Path("b"), Path("a"))})
    assert add(two, cell(0.7, missing="no images", label="EWC")) == 1
    before = file.read_text()
    assert add(two) == 0
    assert file.read_text() == before
    assert add(two, table="table3") == 1
    assert file.read_text().startswith(before)
    first, second = ledger.read(file)
    assert first["commit"] == "abc def"
    assert (first["paper"], first["ours"], first["n"], first["seeds"]) == ("0.700000", "0.550000", "2", "0 1")
    assert (first["difference"], first["scale"], first["verdict"], first["stream"]) == ("-0.150000", "small", "", "digits")
    assert (first["minutes"], first["machine"]) == ("1.50", "CPU")
    assert second["table"] == "table3"


def test_what_is_no_ledger_is_not_touched(tmp_path):
    file = tmp_path / "ledger.csv"
    file.write_text("mine\n1\n")
    with pytest.raises(LifelongError, match="is not a ledger"):
        ledger.add_rows(file, "table1", [cell(0.7, 0.5)], read_scale("small"), "", tmp_path, 0.02)
    assert file.read_text() == "mine\n1\n"


def test_json_of_a_cell_can_be_written():
    from lifelong.reproduction.make import Made

    made = Made("table1", "said", (), (), Path("table1.html"), (cell(0.7, 0.5, 0.6),))
    assert json.loads(json.dumps(made.as_dict()))["cells"][0]["ours"] == pytest.approx(0.55)
