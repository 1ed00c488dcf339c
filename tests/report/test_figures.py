import io
import itertools

import numpy as np
import pytest
from PIL import Image

from lifelong.errors import LifelongError
from lifelong.networks.genotype import DARTS_V1, DARTS_V2
from lifelong.report import figures
from lifelong.report.canvas import DARK, LIGHT, drawable, readable_on, task_ticks
from lifelong.report.charts import per_task
from lifelong.report.matrices import _mapped, _shade
from lifelong.report.runs import group

ONE_RUN = [figures.accuracy_matrix, figures.distance_heatmap, figures.accuracy_curve, figures.cost]


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


@pytest.mark.parametrize("draw", [figures.accuracy_matrix, figures.accuracy_curve, figures.cost])
def test_figures_of_a_method_that_decides_nothing(draw, make_summary):
    opened(draw(make_summary(5, method="finetune", decides=False)))


def test_heatmap_of_distances_without_a_run(make_distances):
    opened(figures.distance_heatmap(make_distances(6)))


def test_a_theme_changes_the_paper(make_summary):
    pictures = [opened(figures.accuracy_curve(make_summary(3), theme=theme)).convert("RGB") for theme in (LIGHT, DARK)]
    assert [picture.getpixel((1, 1)) for picture in pictures] == [(255, 255, 255), (0x17, 0x1C, 0x23)]


def test_comparisons(make_summary):
    runs = group(
        [make_summary(6, method=method, seed=seed) for method in ("par", "lwf") for seed in (0, 1)] + [make_summary(3, method="x")]
    )
    for draw in (figures.compare_curves, figures.compare_tasks, figures.compare_forgetting):
        opened(draw(runs))


def test_per_task_is_the_mean_over_seeds(make_summary):
    summaries = [make_summary(2) | {"accuracy": rows} for rows in ([[0.5], [0.4, 0.8]], [[0.7], [0.2, 0.6]])]
    (runs,) = group(summaries)
    assert per_task(runs, lambda learned, now: now) == pytest.approx([0.3, 0.7])
    assert per_task(runs, lambda learned, now: now - learned) == pytest.approx([-0.3, 0.0])


@pytest.mark.parametrize("cell", [DARTS_V1, repr(DARTS_V2)])
def test_cell_diagram(cell):
    picture = opened(figures.cell_diagram(cell))
    assert picture.width > 1000


def test_labels_of_a_cell_never_touch():
    """Whatever the cell: the labels and boxes that are drawn do not overlap one another."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from lifelong.report.canvas import axes, figure
    from lifelong.report.cells import _cell

    node = [(("max_pool_3x3", index), ("dil_conv_3x3", index + 1)) for index in range(4)]
    plan = (node[0], node[1], node[2], node[3])
    drawing = figure(13.4, 4.1, LIGHT)
    frame = axes(drawing, (0.0, 0.0, 13.4, 4.1), LIGHT)
    _cell(frame, plan, "cell", LIGHT)
    renderer = FigureCanvasAgg(drawing).get_renderer()
    drawing.draw(renderer)
    labels = [label for text in frame.texts if (label := text.get_bbox_patch()) is not None]
    boxes = [shape.get_window_extent(renderer) for shape in [*labels, *frame.patches]]
    assert len(labels) == 8
    assert len(boxes) == 8 + 7
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_what_is_no_genotype_is_refused():
    with pytest.raises(LifelongError, match="not a genotype"):
        figures.cell_diagram("Genotype(oops)")


def test_bands_meet_at_the_thresholds():
    blue, orange, pale = _shade(0.5, 0.5, 0.75), _shade(0.75, 0.5, 0.75), _shade(0.7501, 0.5, 0.75)
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    assert min(pale) > 0.6
    assert _mapped(0.3) == 0.3
    assert _mapped(3.0) == pytest.approx(0.99752, abs=1e-5)
    assert _mapped(-0.2) == 0.0


def test_text_from_data_is_drawable():
    assert drawable("a $x^2$ 猫") == r"a \$x^2\$ " + "\ufffd"
    assert len(drawable("w" * 90)) == 24


def test_ink_stands_out():
    assert readable_on((1.0, 1.0, 0.0, 1.0)) == "#101418"
    assert readable_on((0.0, 0.1, 0.3, 1.0)) == "#ffffff"


def test_task_ticks():
    assert task_ticks(3) == [0, 1, 2]
    assert task_ticks(100) == [0, 9, 19, 29, 39, 49, 59, 69, 79, 89, 99]
