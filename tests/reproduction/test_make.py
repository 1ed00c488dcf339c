"""Tables and figures from beginning to end, on made images: what is finished stays, what was stopped goes on, what is absent is missing."""

import csv
import json
from pathlib import Path

import pytest

from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.reproduction import ledger
from lifelong.reproduction.make import make
from lifelong.reproduction.paper import paper_table
from lifelong.reproduction.plan import Choice, Job, plan
from lifelong.reproduction.runs import finished
from lifelong.reproduction.table_values import TOLERANCE
from lifelong.settings.resolve import flat
from lifelong.settings.run import Environment
from lifelong.streams.splits import SUPERCLASSES


def times(out: Path) -> dict[str, int]:
    """When each file of the runs was last written."""
    files = [file for file in out.glob("*/*/**/*") if file.is_file() and file.name != ".lock"]
    return {str(file.relative_to(out)): file.stat().st_mtime_ns for file in files}


def rows_of(out: Path, name: str) -> list[dict[str, str]]:
    with (out / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_stopped_and_continued(tiny, place, tmp_path):
    """Ctrl-C at the second of two runs: the first one's numbers are written; the same call runs the second alone; the next one nothing."""
    choice = Choice(tiny.scale, (0,), ("par", "par-fixed"))

    def stop_at_two(line: str) -> None:
        if line.startswith("run 2 of 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make("table5", choice, tmp_path, place, stop_at_two, tolerance=TOLERANCE)
    assert [bool(row["ours"]) for row in rows_of(tmp_path, "table5")] == [True, True, True, False, False, False]
    first = times(tmp_path)
    assert any("par-fixed-seed0" in name for name in first)

    said: list[str] = []
    book = tmp_path / "ledger.csv"
    made = make("table5", choice, tmp_path, place, said.append, tolerance=TOLERANCE, ledger=book)
    assert said[0] == "2 runs: 1 finished before, 1 to do, 0 without their images"
    assert {name: time for name, time in times(tmp_path).items() if name in first} == first
    assert made.ledger_rows == 6
    rows = rows_of(tmp_path, "table5")
    summary = json.loads((tmp_path / "cifar100-10" / "par-seed0" / "summary.json").read_text())
    assert float(rows[3]["ours"]) == pytest.approx(summary["ap"])
    assert float(rows[4]["ours"]) == pytest.approx(summary["parameters"] / 1e6)
    assert all(row["verdict"] == "" and row["scale"] == "tiny" for row in rows)
    assert [row["ours"] for row in ledger.read(book)][3] == f"{summary['ap']:.6f}"
    for ending in ("md", "tex", "html"):
        text = (tmp_path / f"table5.{ending}").read_text()
        assert "0.853" in text
        assert "not a reproduction of the paper" in text

    # Finished runs need no images: there are none here.
    second = times(tmp_path)
    nowhere = Environment(data=tmp_path / "gone", device="cpu", threads=1)
    make("table5", choice, tmp_path, nowhere, said.append, tolerance=TOLERANCE, ledger=book)
    assert times(tmp_path) == second
    assert len(ledger.read(book)) == 6


def test_runs_at_once(tiny, place, tmp_path):
    said: list[str] = []
    choice = Choice(tiny.scale, (0,), ("finetune", "lwf"), ("cifar100-10",))
    make("table3", choice, tmp_path, place, said.append, tolerance=TOLERANCE, workers=2)
    assert [bool(row["ours"]) for row in rows_of(tmp_path, "table3")] == [True] * 4
    assert sum(line.startswith(("  run 1: AP ", "  run 2: AP ")) for line in said) == 2
    again: list[str] = []
    make("table3", choice, tmp_path, place, again.append, tolerance=TOLERANCE, workers=2)
    assert again == ["2 runs: 2 finished before, 0 to do, 0 without their images"]


def test_a_run_that_fails_does_not_cost_the_others_their_numbers(tiny, place, tmp_path):
    (tmp_path / "cifar100-10" / "finetune-seed0").mkdir(parents=True)
    (tmp_path / "cifar100-10" / "finetune-seed0" / "mine.txt").write_text("mine")
    said: list[str] = []
    choice = Choice(tiny.scale, (0,), ("finetune", "lwf"), ("cifar100-10",))
    with pytest.raises(LifelongError, match=r"1 of 2 runs failed, the others are finished: .*finetune-seed0 is not empty"):
        make("table3", choice, tmp_path, place, said.append, tolerance=TOLERANCE)
    assert sorted(bool(row["ours"]) for row in rows_of(tmp_path, "table3")) == [False, False, True, True]
    assert sum("this run has failed, and the others go on: " in line for line in said) == 1


def test_absent_sources_are_missing_and_the_rest_goes_on(tiny, place, tmp_path):
    said: list[str] = []
    made = make("table4", Choice(tiny.scale, (0,), ("finetune",)), tmp_path, place, said.append, tolerance=TOLERANCE)
    rows = {(row["stream"], row["quantity"]): row for row in rows_of(tmp_path, "table4")}
    assert rows["CIFAR100-10", "ap"]["ours"] != ""
    assert rows["CIFAR100-10", "ap"]["missing"] == ""
    assert rows["S_long", "ap"]["ours"] == ""
    assert rows["S_long", "ap"]["missing"].startswith("no images of ")
    assert any(line.startswith("missing: ctrl-s-long?tasks=2") and str(place.data) in line for line in said)
    assert str(place.data) not in (tmp_path / "table4.csv").read_text()
    assert sum("no images of" in note for note in made.notes) == 1
    assert made.grids[1][1].rows[0][1:4] == ["0.200", "missing", "–"]
    assert "| missing |" in (tmp_path / "table4.md").read_text()


def test_a_finished_run_with_other_settings_is_not_taken(tiny, place, tmp_path):
    folder = tmp_path / "cifar100-10" / "finetune-seed0"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(SUMMARY | {"settings": {"stream": "cifar100-10"}}))
    (tmp_path / "table3.csv").write_text("of another scale")
    with pytest.raises(LifelongError, match="holds a run with stream = 'cifar100-10', not"):
        make("table3", Choice(tiny.scale, (0,), ("finetune",), ("cifar100-10",)), tmp_path, place, str, tolerance=TOLERANCE)
    assert (tmp_path / "table3.csv").read_text() == "of another scale"


SUMMARY = {"complete": True, "stream": "cifar100-10", "method": "par", "seed": 0, "tasks": [], "accuracy": []}


def write_summary(job: Job, out: Path, decision: str) -> None:
    """A finished run of a version that had no `search_ties`."""
    folder = out / job.folder
    folder.mkdir(parents=True)
    settings = {key: value for key, value in flat(job.config).items() if key != "search_ties"}
    (folder / "summary.json").write_text(
        json.dumps(SUMMARY | {"settings": settings, "tasks": [{"name": "a", "classes": ["b"], "decision": decision}], "accuracy": [[0.5]]})
    )


def test_a_finished_run_of_an_earlier_version_is_taken(tiny, tmp_path):
    (job,) = plan(paper_table("table5"), Choice(tiny.scale, (0,), ("par",)))
    write_summary(job, tmp_path, "search")
    assert finished(job, tmp_path) is not None


def test_regularization_alone_with_a_searched_cell_is_not_taken(tiny, tmp_path):
    """As earlier versions ran row #4 of Table 5."""
    fixed, searched = (plan(paper_table("table5"), Choice(tiny.scale, (seed,), ("par-regularization",)))[0] for seed in (0, 1))
    write_summary(fixed, tmp_path, "reuse-cell")
    assert finished(fixed, tmp_path) is not None
    write_summary(searched, tmp_path, "search")
    with pytest.raises(LifelongError, match="whose cell was searched"):
        finished(searched, tmp_path)


def test_figure_over_beta(tiny, place, tmp_path):
    """Only distances decide; a beta of 1 searches no cell but the first task's."""
    made = make("figure4", tiny, tmp_path, place, str, tolerance=TOLERANCE)
    rows = rows_of(tmp_path, "figure4")
    assert [float(row["beta"]) for row in rows] == [0.5, 0.625, 0.75, 0.875, 1.0]
    assert all(1 <= int(row["experts"]) <= 2 and row["scale"] == "tiny" for row in rows)
    last = json.loads((tmp_path / "cifar100-10" / "par-beta1-seed0" / "summary.json").read_text())
    assert [task["decision"] for task in last["tasks"]].count("search") == 1
    assert (tmp_path / "figures" / "figure4.png").is_file()
    assert [row[0] for row in made.grids[0][1].rows] == ["0.5", "0.625", "0.75", "0.875", "1"]


def test_groups_by_distance(tiny, place, tmp_path):
    """Figure 5 without training; measured once, it needs no images again."""
    made = make("figure5", tiny, tmp_path, place, str, tolerance=TOLERANCE)
    rows = rows_of(tmp_path, "figure5")
    names = [name.replace(" ", "-") for name in SUPERCLASSES]
    assert [row["name"] for row in rows] == names
    ((_, grid),) = made.grids
    shown = [name.partition(" · ")[2] for row in grid.rows for name in row[1].split(", ")]
    assert sorted(shown) == sorted(names)
    assert len(grid.rows) == len({row["group"] for row in rows})
    assert (tmp_path / "figures" / "figure5-cifar100-coarse-seed0.png").is_file()
    said: list[str] = []
    again = make("figure5", tiny, tmp_path, Environment(data=tmp_path / "gone"), said.append, tolerance=TOLERANCE)
    assert said == []
    assert again.grids == made.grids


def test_heat_maps_of_absent_images_are_missing(tiny, place, tmp_path):
    made = make("figure6", tiny, tmp_path, place, str, tolerance=TOLERANCE)
    assert [note.partition(":")[0] for note in made.notes] == ["Missing, S-", "Missing, S+", "Missing, S_in", "Missing, S_out"]
    assert all(row["missing"].startswith("no images of ") for row in rows_of(tmp_path, "figure6"))


def test_the_command(made_data, tmp_path, capsys):
    words = ["reproduce", "table3", "--scale", "tiny", "--methods", "finetune", "--seeds", "0", "--threads", "1", "--device", "cpu"]
    assert main([*words, "--data", str(made_data), "--out", str(tmp_path / "out"), "--ledger", str(tmp_path / "book.csv"), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["name"] == "table3"
    assert [cell["missing"] is None for cell in found["cells"]] == [True, True, False, False]
    assert "run 1 of 1: Finetune on cifar100-10" in err
    (row, _) = ledger.read(tmp_path / "book.csv")
    assert row["command"] == "lifelong reproduce table3 --scale tiny --seeds 0 --methods finetune"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tabel1", "--scale", "tiny"], "cannot reproduce 'tabel1'; did you mean 'table1'?"),
        (["table1", "--scale", "tinny"], "unknown scale 'tinny'; did you mean 'tiny'?"),
        (["table1", "--scale", "tiny", "--seeds", "1,1"], "--seeds 1,1: give at least one, and none twice"),
        (["table1", "--scale", "tiny", "--tolerance", "2"], "--tolerance 2.0: expected a number from 0 up to 1"),
        (["table1", "--scale", "tiny", "--methods", "parr"], "--methods parr: not in table1; did you mean 'par'?"),
        (["table1", "--scale", "tiny", "--without", "shvn"], "--without shvn: not in the known sources; did you mean 'svhn'?"),
        (["figure3", "--scale", "tiny", "--ledger", "l.csv"], "it is for the numbers of tables"),
        (["figure6", "--scale", "tiny", "--streams", "digits"], "--streams digits: not in figure6"),
    ],
)
def test_bad_input_is_one_line(words, line, capsys):
    assert main(["reproduce", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err
    assert err.count("\n") == 1
    assert not list(Path.cwd().iterdir())
