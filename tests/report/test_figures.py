import io
import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from lifelong.errors import LifelongError
from lifelong.networks.genotype import DARTS_V1, DARTS_V2
from lifelong.report import figures
from lifelong.report.canvas import DARK, LIGHT, drawable, readable_on, task_ticks
from lifelong.report.cell_diagram import ROW, cell_shapes
from lifelong.report.charts import per_task
from lifelong.report.curves import by_stage, read_curves
from lifelong.report.groups import ACROSS, group_shapes, members
from lifelong.report.matrices import _mapped, _shade
from lifelong.report.runs import group
from lifelong.report.shapes import Box, width
from lifelong.report.tables import divergence_table
from lifelong.report.wording import by_measure
from tests.report.made import record

ONE_RUN = [figures.accuracy_matrix, figures.divergence_heatmap, figures.accuracy_curve, figures.cost, figures.task_groups]


def overlap(one, other):
    """Whether two boxes have a point in common."""
    return abs(one.x - other.x) * 2 < one.width + other.width and abs(one.y - other.y) * 2 < one.height + other.height


def opened(content: bytes) -> Image.Image:
    """The picture, if it is a whole PNG of a sane size in which something is drawn."""
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "PNG"
    assert 250 < picture.width < 3500
    assert 200 < picture.height < 3500
    assert np.asarray(picture.convert("L")).std() > 3
    return picture


@pytest.mark.parametrize("draw", ONE_RUN)
@pytest.mark.parametrize("tasks", [1, 8, 100])
def test_figures_of_a_run(draw, tasks, make_summary, nasty, tmp_path):
    summary = make_summary(tasks, names=nasty)
    path = tmp_path / "figures" / "one.png"
    content = draw(summary, path)
    assert path.read_bytes() == content
    opened(content)
    vector = path.with_suffix(".svg").read_text()
    assert ElementTree.fromstring(vector).tag.endswith("}svg")
    # The same on every day and with every version: only then does a run's folder not change when its report is made again.
    assert "<dc:date>" not in vector
    assert "matplotlib.org" not in vector


@pytest.mark.parametrize("draw", [figures.accuracy_matrix, figures.accuracy_curve, figures.cost])
def test_figures_of_a_method_that_decides_nothing(draw, make_summary):
    opened(draw(make_summary(5, method="finetune", decides=False)))


def test_heatmap_of_distances_without_a_run(make_distances):
    opened(figures.divergence_heatmap(make_distances(6)))


def test_a_theme_changes_the_paper(make_summary):
    pictures = [opened(figures.accuracy_curve(make_summary(3), theme=theme)).convert("RGB") for theme in (LIGHT, DARK)]
    assert [picture.getpixel((1, 1)) for picture in pictures] == [(255, 255, 255), (0x17, 0x1C, 0x23)]


def test_comparisons(make_summary):
    runs = group(
        [make_summary(6, method=method, seed=seed) for method in ("par", "lwf") for seed in (0, 1)] + [make_summary(3, method="x")]
    )
    runs += group([make_summary(2, method="y") | {"accuracy": [[0.5], [None, 0.8]]}])
    for draw in (figures.compare_curves, figures.compare_tasks, figures.compare_forgetting):
        opened(draw(runs))


def test_per_task_is_the_mean_over_seeds(make_summary):
    rows = ([[0.5], [0.4, 0.8]], [[0.7], [0.2, 0.6]])
    summaries = [make_summary(2, seed=seed) | {"accuracy": rows[seed]} for seed in range(2)]
    (runs,) = group(summaries)
    assert per_task(runs, lambda learned, now: now) == pytest.approx([0.3, 0.7])
    assert per_task(runs, lambda learned, now: now - learned) == pytest.approx([-0.3, 0.0])


@pytest.mark.parametrize("cell", [DARTS_V1, repr(DARTS_V2)])
def test_cell_diagram(cell):
    picture = opened(figures.cell_diagram(cell))
    assert picture.width > 1000


def test_labels_of_a_cell_never_touch():
    """Whatever the cell: the labels and boxes that are drawn do not overlap one another, nor leave the picture."""
    node = [(("max_pool_3x3", index), ("dil_conv_3x3", index + 1)) for index in range(4)]
    plan = (node[0], node[1], node[2], node[3])
    boxes = [shape for shape in cell_shapes(plan, "cell", 0.0, LIGHT) if isinstance(shape, Box)]
    assert len(boxes) == 8 + 7
    assert not any(overlap(one, other) for one, other in itertools.combinations(boxes, 2))
    assert all(width(line, box.size) < box.width for box in boxes for line in box.lines)
    assert all(box.x - box.width / 2 > 0 and box.y + box.height / 2 < 6 * ROW + 0.3 for box in boxes)


def test_a_cell_as_svg_says_what_it_is(tmp_path):
    figures.cell_diagram(DARTS_V1, tmp_path / "cell.png")
    words = [element.text for element in ElementTree.parse(tmp_path / "cell.svg").iter() if element.tag.endswith("}text")]
    assert words.count("node 4") == 2
    plans = (DARTS_V1.normal, DARTS_V1.reduce)
    skips = sum(operation == "skip_connect" for plan in plans for node in plan for operation, _ in node)
    assert words.count("skip") == skips > 0


def test_what_is_no_genotype_is_refused():
    with pytest.raises(LifelongError, match="not a genotype"):
        figures.cell_diagram("Genotype(oops)")


def test_bands_meet_at_the_thresholds():
    blue, orange, pale = _shade(0.5, 0.5, 0.75), _shade(0.75, 0.5, 0.75), _shade(0.7501, 0.5, 0.75)
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    assert min(pale) > 0.6
    # Eq. 6 of both is nearly 1, and yet far is darker than near by half of the scale.
    near, far = _shade(1.5, 0.5, 0.75), _shade(62.0, 0.5, 0.75)
    assert near[1] - far[1] > 0.5
    assert _mapped(0.3) == 0.3
    assert _mapped(3.0) == pytest.approx(0.99752, abs=1e-5)
    assert _mapped(-0.2) == 0.0


def test_the_heatmap_goes_by_the_recorded_distances_and_not_by_the_map_of_another_measure(make_distances):
    result = make_distances(3)
    first = figures.divergence_heatmap(result)
    for decision in result.decisions:
        decision.distances = [_mapped(value) for value in decision.divergences]
    assert figures.divergence_heatmap(result) == first  # Eq. 6, recorded or not
    for decision in result.decisions:
        decision.distances = [0.0 for _ in decision.divergences]
    assert figures.divergence_heatmap(result) != first
    result.decisions[1].divergences, result.divergences[1], result.decisions[1].distances = [0.0], [0.0], [1.0]  # zero_is_far
    opened(figures.divergence_heatmap(result))


def test_the_measure_is_named_where_it_is_not_the_papers(make_distances, make_summary):
    result = make_distances(3)
    assert by_measure(result) == "Eq. 4"
    assert str(divergence_table(result).title).endswith("divergences")
    result.measure = "mmd"
    assert str(divergence_table(result).title).endswith("divergences by mmd")
    assert by_measure(make_summary(3, measure="h-score")) == "by h-score"


def test_text_from_data_is_drawable():
    assert drawable("a $x^2$ 猫") == r"a \$x^2\$ " + "\ufffd"
    assert len(drawable("w" * 90)) == 24


def test_ink_stands_out():
    assert readable_on((1.0, 1.0, 0.0, 1.0)) == "#101418"
    assert readable_on((0.0, 0.1, 0.3, 1.0)) == "#fdfdfd"
    # The page changes a theme's colours from light to dark; ink on a cell that stays as it is must stay too.
    assert not {"#101418", "#fdfdfd"} & set(LIGHT.names().values())


def test_task_ticks():
    assert task_ticks(3) == [0, 1, 2]
    assert task_ticks(100) == [0, 9, 19, 29, 39, 49, 59, 69, 79, 89, 99]


def test_the_same_figure_gives_the_same_bytes(make_summary, tmp_path):
    for name in ("one", "two"):
        figures.accuracy_matrix(make_summary(4), tmp_path / f"{name}.png")
    for suffix in (".png", ".svg"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_members_in_the_order_in_which_they_joined():
    tasks = [*(record(expert=expert) for expert in (0, 2, 0, None, 1)), record(), record(expert=2)]
    assert members(tasks) == {0: [0, 2], 1: [4], 2: [1, 6]}


@pytest.mark.parametrize("experts", [1, 60])
def test_every_task_stands_in_its_expert_s_box(experts):
    tasks = [record(name="w" * 90, expert=index % experts, decision="search", parameters_added=1290) for index in range(100)]
    shapes, down = group_shapes(tasks, LIGHT)
    boxes = [shape for shape in shapes if isinstance(shape, Box)]
    frames = [box for box in boxes if not box.words]
    chips = [box for box in boxes if box.words.isdigit()]
    assert len(frames) == experts
    assert sorted(int(chip.words) for chip in chips) == list(range(1, 101))
    assert not any(overlap(one, other) for some in (frames, chips) for one, other in itertools.combinations(some, 2))
    for index, frame in enumerate(frames):
        inside = [int(chip.words) - 1 for chip in chips if overlap(chip, frame)]
        assert inside == list(range(index, 100, experts))
        assert frame.x - frame.width / 2 > 0
        assert frame.x + frame.width / 2 < ACROSS
        assert frame.y + frame.height / 2 < down


def epoch(stage: str, number: int, task: int = 0, **more) -> dict:
    return {"task": task, "stage": stage, "epoch": number, "loss": 1.0 / number, "accuracy": 0.5} | more


def test_stages_of_a_grid_and_of_candidates_are_put_together():
    lines = [epoch("search", 1), epoch("train-wd0.003", 1), epoch("train-wd1e-05", 1), epoch("path-4", 1), epoch("train", 1, candidate=1)]
    found = by_stage(lines)
    assert list(found) == ["search", "train", "path"]
    assert list(found["train"]) == [(0, None, "train-wd0.003"), (0, None, "train-wd1e-05"), (0, 1, "train")]


def test_curves_of_stages_with_one_epoch_or_no_accuracy(make_summary, tmp_path):
    lines = [epoch("train", 1, accuracy=None), *(epoch("distill", number, task=1) for number in range(1, 900))]
    opened(figures.training_curves(lines, make_summary(1)["tasks"], tmp_path / "curves.png"))
    assert (tmp_path / "curves.svg").stat().st_size < 100_000


def test_what_is_no_curve_is_one_line(tmp_path):
    assert read_curves(tmp_path) == []
    (tmp_path / "curves.jsonl").write_text('{"task": 0}\n')
    with pytest.raises(LifelongError, match=r"curves.jsonl: line 1 is not an epoch of a run; delete the file"):
        read_curves(tmp_path)
