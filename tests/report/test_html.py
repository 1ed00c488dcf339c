import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from lifelong.errors import LifelongError
from lifelong.networks.genotype import DARTS_V1, Genotype
from lifelong.report.canvas import LIGHT
from lifelong.report.comparison import write_comparison
from lifelong.report.html import _scale, write_report
from tests.report import made
from tests.report.made import record

VOID = {"meta", "link", "br", "hr", "img", "source", "input"}


class Page(HTMLParser):
    """A page as its text, elements and attributes; raises where elements are not properly nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.every: list[dict[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.every.append({name: value or "" for name, value in attrs})
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
    text = path.read_text()
    page = Page(text)
    assert "nan" not in re.findall(r"[a-z]+", page.words.lower())
    identifiers = [value for name, value in page.attributes if name == "id"]
    assert len(set(identifiers)) == len(identifiers)
    # One self-contained page: pictures are in it, and nothing is loaded from elsewhere.
    assert not {"script", "link", "iframe", "object", "embed", "img", "foreignobject"} & set(page.elements)
    assert not {"src", "srcset", "action", "ping"} & {name for name, _ in page.attributes}
    places = [value for name, value in page.attributes if name in ("href", "xlink:href")] + re.findall(r"url\(([^)]*)\)", text)
    for place in places:
        assert place.startswith("data:image/png;base64,") or place.removeprefix("#") in identifiers
    assert "@import" not in text
    # Names from data are attributes at most as words; a handler would run.
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    # What scrolls is reached by keyboard, and it and every picture say what they are.
    for attributes in page.every:
        if "wide" in attributes.get("class", "").split():
            assert attributes["tabindex"] == "0"
            assert attributes["role"] == "region"
        if attributes.get("role") in ("img", "region"):
            assert len(attributes["aria-label"]) > 10
    return page


def report(out, summary, curves: str = "") -> Page:
    if curves:
        (out / "curves.jsonl").write_text(curves)
    return read(write_report(out, summary))


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """The folder and the page of a run of 100 tasks with nasty names, drawn once."""
    out = tmp_path_factory.mktemp("long")
    return out, report(out, made.many(names=made.NASTY), made.curves(100))


def test_report(make_summary, tmp_path):
    summary = make_summary(6)
    summary["tasks"][1] |= {"genotype": repr(DARTS_V1), "group_distances": [0.6], "decision": "reuse-cell", "expert": 1}
    summary["tasks"][1]["reason"] = "0.600 ≤ β 0.75 from group 0: its cell reused"
    page = report(tmp_path, summary, made.curves(7, epochs=3))
    assert (tmp_path / "report.html").exists()
    assert f"AP{summary['ap']:.3f}" in page.words
    assert f"6 tasks learned with {len({task['expert'] for task in summary['tasks']})} experts" in page.words
    assert page.words.count("0.600 ≤ β 0.75 from group 0: its cell reused") == 2  # in the overview and under the task
    assert f"lifelong run --config {tmp_path}/config.toml --out {tmp_path}-again" in page.words
    assert f"BWT{summary['bwt']:.3f}" in page.words
    assert "Always predicting the largest class would be correct for 0.250 of them." in page.words
    # Under each task a row for each class: its name, its recall, what its images are taken for; no number for a class without images.
    assert page.words.count("class 1" + "0.800" + "91000") == 6
    assert page.words.count("class 4" + "–" + "91000") == 6
    pasted = [Genotype.parse(text) for text in page.text if text.startswith("Genotype(")]
    assert DARTS_V1 in pasted
    names = ("accuracy", "cell-01", "cost", "curves", "distances", "groups", "stream")
    files = {file.name for file in (tmp_path / "figures").iterdir()}
    assert {f"{name}.{form}" for name in names for form in ("png", "svg")} <= files
    for file in sorted((tmp_path / "figures").glob("*.png")):
        with Image.open(file) as picture:
            picture.verify()


def test_drawings_take_the_page_s_colours(make_summary, tmp_path):
    page = report(tmp_path, make_summary(3, cells=False))
    drawn = " ".join(value for name, value in page.attributes if name in ("style", "fill", "stroke"))
    assert "var(--ink)" in drawn
    assert "var(--paper)" in drawn
    assert not [colour for colour in LIGHT.names().values() if colour in drawn]
    # Both themes are in the page, and every colour that is named has a value.
    text = (tmp_path / "report.html").read_text()
    for name in set(re.findall(r"var\(--([a-z0-9-]+)\)", text)) - {"across"}:
        assert len(re.findall(rf"--{name}: #", text)) >= 2


def test_a_picture_is_not_enlarged(make_summary, tmp_path):
    """On a wide screen a small picture keeps its size, and its letters theirs; a large one is at least 760 pixels wide."""
    report(tmp_path, make_summary(3, cells=False))
    text = (tmp_path / "report.html").read_text()
    widths = re.findall(r'style="--across: ([0-9.]+)pt"', text)
    (drawn,) = re.findall(r'<svg[^>]* width="([0-9.]+)pt"', (tmp_path / "figures" / "distances.svg").read_text())
    assert drawn in widths
    assert float(drawn) < 400
    assert text.count("min-width: min(760px, var(--across))") == 2
    assert not re.search(r"min-width: 760px", text)


def test_a_long_word_never_widens_a_page(make_summary, tmp_path):
    """A heading on a narrow screen, such as a stream's address, wraps wherever it must: every element inherits the rule."""
    report(tmp_path, make_summary(1, cells=False))
    (body,) = re.findall(r"^body \{(.*)\}$", (tmp_path / "report.html").read_text(), re.MULTILINE)
    assert "overflow-wrap: break-word;" in body


def test_nasty_names_are_text(make_summary, nasty, tmp_path):
    summary = make_summary(8, names=nasty, cells=False) | {"stream": '<b onclick="x">', "machine": "<i>", "notes": ["<u>&amp;"]}
    summary["tasks"][2]["decision"] = '"><img src=x onerror=alert(1)>'
    summary["tasks"][3]["classes"] = ["<img src=x onerror=alert(1)>"]
    stage = made.curves(8, epochs=2, stages=("</svg><script>",))
    page = report(tmp_path, summary, stage)
    for name in (
        '<script>alert("x")</script>',
        "cats & dogs",
        "[bold red]zebra[/bold red]",
        "猫と犬 $x^2$ ☃",
        '<b onclick="x">',
        "<u>&amp;",
        "<img src=x onerror=alert(1)>",
    ):
        assert name in page.words
    assert not {"b", "i", "u", "script"} & set(page.elements)
    assert all(re.fullmatch(r"[a-z]+(-\d\d)?\.(png|svg)", file.name) for file in (tmp_path / "figures").iterdir())


def test_unfinished_before_the_first_task(make_summary, tmp_path):
    page = report(tmp_path, make_summary(0, complete=False))
    assert "This run is unfinished" in page.words
    assert "Nothing has been learned yet." in page.words
    assert "figure" not in page.elements


def test_unfinished_in_its_first_task(make_summary, tmp_path):
    page = report(tmp_path, make_summary(0, complete=False), made.curves(1, epochs=2, stages=("train",)))
    assert "Training curves" in page.words


def test_absent_numbers_are_dashes(make_summary, tmp_path):
    summary = make_summary(2, cells=False) | {"ap": float("nan"), "af": None, "peak_memory_bytes": None, "extractor": None}
    summary["tasks"][1] |= {"divergences": [None], "group_distances": [None]}
    report(tmp_path, summary)


def test_a_method_that_decides_nothing(make_summary, tmp_path):
    page = report(tmp_path, make_summary(1, method="finetune", decides=False))
    assert "Eq. 6" not in page.words
    assert "decision" not in page.words
    assert not (tmp_path / "figures" / "distances.png").exists()
    assert not (tmp_path / "figures" / "groups.png").exists()


@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.52), (2.0, 3.0)])
def test_thresholds_at_the_edges_stay_on_the_scale(thresholds):
    scale = _scale(record(alpha=thresholds[0], beta=thresholds[1], group_distances=[-0.1, 0.4, 1.3]))
    assert scale is not None
    assert scale["groups"] == [0.0, 40.0, 100.0]
    assert sum(band["width"] for band in scale["bands"]) == pytest.approx(100)
    places = [mark["place"] for mark in scale["marks"]]
    assert all(0 <= place <= 100 for place in places)
    assert all(abs(one - other) > 9 for index, one in enumerate(places) for other in places[:index])


def test_many_tasks(long):
    out, page = long
    assert "100 tasks learned with 60 experts" in page.words
    assert (out / "report.html").stat().st_size < 2_100_000  # Of which 40 kB let a phone show it.
    # Every cell is drawn, and every task stands in the page.
    assert len(list((out / "figures").glob("cell-*.svg"))) == 60
    assert sum(text.startswith("Genotype(") for text in page.text) == 60
    assert "100 · 猫と犬 $x^2$ ☃" in page.words


def test_comparison(make_summary, nasty, tmp_path):
    runs = [make_summary(4, method=method, seed=seed, names=nasty, decides=False) for method in ("par", "<lwf>") for seed in (0, 1)]
    page = read(write_comparison(tmp_path, [*runs, make_summary(2, method="late", complete=False)]))
    assert "3 configurations, 5 runs" in page.words
    assert "late: unfinished" in page.words
    assert "<lwf>" in page.words
    assert "cats & dogs" in page.words
    assert sorted(file.name for file in (tmp_path / "figures").glob("*.png")) == [
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
