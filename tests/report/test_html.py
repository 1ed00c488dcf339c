import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from lifelong.errors import LifelongError
from lifelong.networks.genotype import DARTS_V1, Genotype
from lifelong.report.comparison import write_comparison
from lifelong.report.html import _scale, write_report

VOID = {"meta", "link", "br", "hr", "img", "source", "input"}


class Page(HTMLParser):
    """A page as its text, elements and attributes; raises where elements are not properly nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


def read(path) -> Page:
    page = Page(path.read_text())
    assert "nan" not in re.findall(r"[a-z]+", page.words.lower())
    # One self-contained page: pictures are in it, and nothing is loaded from elsewhere.
    for name, value in page.attributes:
        if name in ("src", "srcset"):
            assert value.startswith("data:image/png;base64,")
        if name == "href":
            assert value.startswith("#")
            assert ("id", value[1:]) in page.attributes
    assert not {"script", "link", "iframe", "object"} & set(page.elements)
    assert "url(" not in path.read_text()
    assert "@import" not in path.read_text()
    return page


def test_report(make_summary, tmp_path):
    summary = make_summary(6)
    summary["tasks"][1] |= {"genotype": repr(DARTS_V1), "group_distances": [0.6], "distances": [0.6], "decision": "reuse-cell", "expert": 1}
    path = write_report(tmp_path, summary)
    assert path == tmp_path / "report.html"
    page = read(path)
    assert f"AP{summary['ap']:.3f}" in page.words
    assert "0.600 ≤ β 0.75" in page.words
    assert "lifelong run --config config.toml" in page.words
    pasted = [Genotype.parse(text) for text in page.text if text.startswith("Genotype(")]
    assert DARTS_V1 in pasted
    files = sorted((tmp_path / "figures").iterdir())
    assert {"accuracy.png", "cell-00.png", "cost.png", "distances.png", "stream.png"} <= {file.name for file in files}
    for file in files:
        with Image.open(file) as picture:
            picture.verify()


def test_nasty_names_are_text(make_summary, nasty, tmp_path):
    summary = make_summary(8, names=nasty, cells=False) | {"stream": '<b onclick="x">', "machine": "<i>", "notes": ["<u>&amp;"]}
    summary["tasks"][2]["decision"] = '"><img src=x>'
    page = read(write_report(tmp_path, summary))
    for name in (
        '<script>alert("x")</script>',
        "cats & dogs",
        "[bold red]zebra[/bold red]",
        "猫と犬 $x^2$ ☃",
        '<b onclick="x">',
        "<u>&amp;",
    ):
        assert name in page.words
    assert not {"b", "i", "u", "script"} & set(page.elements)
    assert all(re.fullmatch(r"[a-z]+(-\d\d)?\.png", file.name) for file in (tmp_path / "figures").iterdir())


def test_unfinished_before_the_first_task(make_summary, tmp_path):
    page = read(write_report(tmp_path, make_summary(0, complete=False)))
    assert "This run is unfinished" in page.words
    assert "img" not in page.elements


def test_absent_numbers_are_dashes(make_summary, tmp_path):
    summary = make_summary(2, cells=False) | {"ap": float("nan"), "af": None, "peak_memory_bytes": None, "extractor": None}
    summary["tasks"][1] |= {"distances": [None], "group_distances": [None]}
    read(write_report(tmp_path, summary))


def test_a_method_that_decides_nothing(make_summary, tmp_path):
    page = read(write_report(tmp_path, make_summary(1, method="finetune", decides=False)))
    assert "Eq. 6" not in page.words
    assert not (tmp_path / "figures" / "distances.png").exists()


@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.52), (2.0, 3.0)])
def test_thresholds_at_the_edges_stay_on_the_scale(thresholds):
    scale = _scale({"alpha": thresholds[0], "beta": thresholds[1], "group_distances": [-0.1, 0.4, 1.3]})
    assert scale is not None
    assert scale["groups"] == [0.0, 40.0, 100.0]
    assert sum(band["width"] for band in scale["bands"]) == pytest.approx(100)
    places = [mark["place"] for mark in scale["marks"]]
    assert all(0 <= place <= 100 for place in places)
    assert all(abs(one - other) > 9 for index, one in enumerate(places) for other in places[:index])


def test_many_tasks(make_summary, tmp_path):
    path = write_report(tmp_path, make_summary(30, cells=False))
    assert "30 tasks" in read(path).words
    assert path.stat().st_size < 5_000_000


def test_comparison(make_summary, nasty, tmp_path):
    runs = [make_summary(4, method=method, seed=seed, names=nasty, decides=False) for method in ("par", "<lwf>") for seed in (0, 1)]
    page = read(write_comparison(tmp_path, [*runs, make_summary(2, method="late", complete=False)]))
    assert "3 configurations, 5 runs" in page.words
    assert "late: unfinished" in page.words
    assert "<lwf>" in page.words
    assert "cats & dogs" in page.words
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == [
        "comparison-forgetting.png",
        "comparison-stream.png",
        "comparison-tasks.png",
        "comparison-tradeoff.png",
    ]


def test_comparison_of_different_streams_warns(make_summary, tmp_path):
    page = read(write_comparison(tmp_path, [make_summary(2), make_summary(2) | {"stream": "other"}]))
    assert "different streams" in page.words


def test_a_folder_that_cannot_be_written_is_one_line(make_summary, tmp_path):
    (tmp_path / "figures").write_text("a file where a folder should be")
    with pytest.raises(LifelongError, match="cannot write"):
        write_report(tmp_path, make_summary(2))
