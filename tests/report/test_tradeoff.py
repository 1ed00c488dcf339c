"""AP against cost: numbers, and labels that cover nothing."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from lifelong.report.canvas import DARK, LIGHT
from lifelong.report.runs import group
from lifelong.report.thresholds import Curve, threshold_curves
from lifelong.report.tradeoff import MARK, place_labels, points, tradeoff

INSIDE = (0.0, 0.0, 330.0, 245.0)


def test_points_are_means_with_deviations(make_summary):
    values = ((0.4, 1000, 60.0), (0.6, 3000, 180.0))
    runs = [make_summary(2, method="a", seed=seed) | {"ap": ap, "parameters": m, "seconds": s} for seed, (ap, m, s) in enumerate(values)]
    runs += [make_summary(2, method="b") | {"ap": None}, make_summary(2, method="c", complete=False)]
    (point,) = points(group(runs), lambda summary: summary.seconds, 60.0)
    assert (point.label, point.x, point.y) == ("a", 2.0, pytest.approx(0.5))
    assert (point.x_sd, point.y_sd) == (pytest.approx(2**0.5), pytest.approx(0.02**0.5))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [(300, 200), (120, 90), (20, 60), (2, 2)])
def test_labels_of_nineteen_methods_cover_nothing(seed, spread):
    """Neither one another nor a point, however close the points lie; and all stay inside."""
    random = np.random.default_rng(seed)
    places = [tuple(place) for place in np.array([165, 122]) + random.uniform(-0.5, 0.5, (19, 2)) * spread]
    sizes = [(width, 10.6) for width in random.uniform(18, 70, 19)]
    boxes = place_labels(places, sizes, INSIDE)
    marks = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in places]
    for one, other in [*itertools.combinations(boxes, 2), *itertools.product(boxes, marks)]:
        assert min(one[2], other[2]) <= max(one[0], other[0]) + 1e-9 or min(one[3], other[3]) <= max(one[1], other[1]) + 1e-9
    for box, size in zip(boxes, sizes, strict=True):
        assert (box[2] - box[0], box[3] - box[1]) == pytest.approx(size)
        assert min(box[0] - INSIDE[0], box[1] - INSIDE[1], INSIDE[2] - box[2], INSIDE[3] - box[3]) >= -1e-9


def test_a_label_alone_stands_right_of_its_point():
    ((left, bottom, _, top),) = place_labels([(100.0, 100.0)], [(40.0, 10.0)], INSIDE)
    assert left > 100 + MARK
    assert (bottom + top) / 2 == pytest.approx(100)
    ((_, _, right, _),) = place_labels([(325.0, 100.0)], [(40.0, 10.0)], INSIDE)
    assert right < 325 - MARK


def test_pictures(make_summary):
    runs = group([make_summary(2, method=name, cells=False) | {"parameters": 1000 * 30**at} for at, name in enumerate(("a", "$b$", "<c>"))])
    assert runs[2].summaries[0]["parameters"] == 900_000  # a logarithmic axis
    light, dark = tradeoff(runs), tradeoff(runs, theme=DARK)
    for content, theme in ((light, LIGHT), (dark, DARK), (tradeoff([]), LIGHT)):
        with Image.open(io.BytesIO(content)) as picture:
            corner = picture.convert("RGB").getpixel((0, 0))
            assert "#{:02x}{:02x}{:02x}".format(*corner) == theme.paper


def test_threshold_curves_bear_missing_runs():
    content = threshold_curves(
        "α", [0.0, 0.5, 1.0], [Curve("AP", [[0.5, 0.6], [], [0.4]]), Curve("experts", [[3.0], [2.0], [1.0]])], "Figure 3"
    )
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.width > picture.height
