"""Tables as Markdown, LaTeX and CSV: names stay names, numbers stay numbers."""

import csv
import io
import re

import pytest

from lifelong.report.comparison import write_comparison
from lifelong.report.exports import comma_separated, escape_latex, escape_markdown, latex, markdown
from lifelong.report.page import Grid

GRID = Grid(["method", "AP", "what"], [["a|b & c", "0.5 ± 0.1", "x_y"], ["<b>", "–", "$"]], words=("what",))


def test_markdown():
    assert markdown(GRID).splitlines() == [
        "| method | AP | what |",
        "| --- | ---: | --- |",
        r"| a\|b &amp; c | 0.5 ± 0.1 | x\_y |",
        r"| &lt;b&gt; | – | \$ |",
    ]


def test_latex():
    assert latex(GRID).splitlines() == [
        r"\begin{tabular}{lrl}",
        r"\toprule",
        r"method & AP & what \\",
        r"\midrule",
        r"a\textbar{}b \& c & 0.5 $\pm$ 0.1 & x\_y \\",
        r"\textless{}b\textgreater{} & -- & \$ \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50%", r"50\%"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("#1 ~^", r"\#1 \textasciitilde{}\textasciicircum{}"),
        ("a\nb", "a b"),
    ],
)
def test_latex_runs_nothing(text, expected):
    assert escape_latex(text) == expected


def test_markdown_has_no_markup(nasty):
    for name in [*nasty, "[link](http://x)", "![p](x)", "**b**", "`c`", "a\n| b |"]:
        text = escape_markdown(name)
        assert "\n" not in text
        assert not re.search(r"[<>]", text)
        assert not re.search(r"(?<!\\)[\[\]()|*`!]", text)


def test_csv_reads_back(nasty):
    text = comma_separated(["name", "ap"], [[name, None] for name in nasty])
    assert [row["name"] for row in csv.DictReader(io.StringIO(text))] == nasty
    assert {row["ap"] for row in csv.DictReader(io.StringIO(text))} == {""}


def test_comparison_files(make_summary, tmp_path):
    """Means and deviations against hand calculation; two streams have sections, files and rows of their own."""
    runs = [make_summary(3, method="par", seed=seed, decides=False) | {"ap": ap, "seconds": 120.0} for seed, ap in ((0, 0.4), (1, 0.6))]
    runs += [make_summary(3, method="a_b&c", decides=False) | {"ap": None}, make_summary(3, decides=False) | {"stream": "other_1"}]
    write_comparison(tmp_path, runs)
    with (tmp_path / "comparison.csv").open(encoding="utf-8", newline="") as file:
        par, odd, other = csv.DictReader(file)
    assert (par["stream"], par["method"], par["n"], par["seeds"], par["complete"]) == ("digits", "par", "2", "0 1", "True")
    assert float(par["ap_mean"]) == pytest.approx(0.5)
    assert float(par["ap_sd"]) == pytest.approx(0.02**0.5)
    assert (float(par["minutes_mean"]), float(par["minutes_sd"])) == (2.0, 0.0)
    assert (odd["method"], odd["ap_mean"], odd["ap_sd"], odd["parameters_sd"]) == ("a_b&c", "", "", "")
    assert (other["stream"], other["method"]) == ("other_1", "par")
    assert r"a\_b&amp;c" in (tmp_path / "comparison.md").read_text()
    assert "## other\\_1" in (tmp_path / "comparison.md").read_text()
    assert r"a\_b\&c" in (tmp_path / "comparison.tex").read_text()
    assert {file.name for file in (tmp_path / "figures").glob("*.png")} >= {"comparison-tradeoff-1.png", "comparison-tradeoff-2.png"}
    assert "Result on other_1" in (tmp_path / "report.html").read_text()
