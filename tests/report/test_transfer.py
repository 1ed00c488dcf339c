"""The page and the table of a measurement of transfer: names from data are text, and an unmeasured number is a dash."""

import csv
import io

from lifelong.experiment.agreement import agreement, rules
from lifelong.records.transfer import TransferRecord
from lifelong.report.transfer import agreement_grid, as_csv, gains_grid, regret_grids, rules_grid, sentence, write_transfer
from tests.experiment.test_agreement import MADE

NAMES = ["<b>bold</b>", "=SUM(A1)", "three\nlines $x$"]


def made(measures: list[str]) -> TransferRecord:
    found = {"agreement": agreement([MADE], measures, ["share"]), "rules": rules([MADE], measures, ["share"], 0.5)}
    one = MADE if measures else MADE.model_copy(update={"measured": [], "decisions": {}})
    about = {"stream": "made", "tasks": NAMES, "strategies": ["share"], "left_out": {"other": "<i>why</i>"}}
    return TransferRecord(measures=measures, seeds=[one], **found, **about)


def test_names_are_text(tmp_path) -> None:
    page = write_transfer(tmp_path, made(["good"])).read_text()
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page
    assert "<i>why" not in page
    rows = list(csv.DictReader(io.StringIO(as_csv(made(["good"])))))
    assert {row["target"] for row in rows} == {"<b>bold</b>", "'=SUM(A1)", "three lines $x$"}
    assert [row["distance:good"] for row in rows if row["source"] == "<b>bold</b>"] == ["0.2", "0.7"]


def test_tables() -> None:
    """Numbers of `tests/experiment/test_agreement.py`."""
    result = made(["good"])
    assert gains_grid(result).rows == [["share", "-0.042", "-0.375 to +0.250", "50%", "+0.000", "10", "2.00 s"]]
    assert agreement_grid(result).rows == [["good", "0.28", "0.14"]]
    assert agreement_grid(result, within_targets=True).rows == [["good", "0.33", "0.00"]]
    (_, plain), (title, sharing) = regret_grids(result)
    assert plain.rows == [
        ["try everything, keep the best on the new task's validation images", "0.167", "–"],
        ["always alone", "0.125", "–"],
    ]
    assert title == "by 'share'"
    assert sharing.rows == [["good", "0.083", "0.000", "0.125", "0.167"]]
    assert rules_grid(result).rows[2] == ["always alone", "–", "+0.000", "0.125", "–", "+660", "+1.33 s", "0%"]
    assert "a target gains -0.042 on average, and 50% of the sources help. By distances, good ranks them" in sentence(result)


def test_without_measures(tmp_path) -> None:
    """Gains and the rules that read no distance are shown all the same."""
    result = made([])
    assert agreement_grid(result).rows == []
    assert [row[0] for row in rules_grid(result).rows][-1] == "always alone"
    page = write_transfer(tmp_path, result).read_text()
    assert "How well distances predict it" not in page
    assert "always alone" in page
