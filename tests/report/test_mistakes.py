import base64
import io

import numpy as np
import pytest
from PIL import Image

from lifelong.methods import registry
from lifelong.report.html import write_report
from lifelong.report.mistakes import EACH, MOST, SIDE, Mistake, per_task, tiles
from lifelong.settings.defaults import SETTINGS
from tests.report.test_html import read


def opened(data: str) -> np.ndarray:
    head, _, body = data.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))


def noise(side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_a_small_picture_keeps_its_pixels_and_a_large_one_is_reduced():
    small, large = tiles([Mistake(noise(8), 0, 1, 0.987), Mistake(noise(200), 1, 0, 0.4)], ["cat", "dog"])
    assert (opened(small.data) == noise(8)).all()
    assert opened(large.data).shape == (SIDE, SIDE, 3)
    # Of noise, which does not compress, and therefore of any photograph.
    assert len(large.data) < 18_000
    assert (small.true, small.given, small.sure) == ("cat", "dog", "99 %")
    assert small.words == "image of cat, predicted as dog with 99 %"


@pytest.mark.parametrize("tasks", [0, 1, 8, 40, MOST, 500])
def test_pictures_of_all_tasks_are_bounded(tasks):
    assert 1 <= per_task(tasks) <= EACH
    assert min(tasks, MOST) * per_task(tasks) <= MOST


def test_mistakes_on_the_page(make_summary, tmp_path):
    summary = make_summary(3, cells=False)
    summary["tasks"][1]["classes"] = ["<i>cat</i>", "dog"]
    without = read(write_report(tmp_path, summary))
    assert "Worst mistakes" not in without.words
    assert f"lifelong report {tmp_path}" in without.words
    page = read(write_report(tmp_path, summary, [None, [Mistake(noise(8), 0, 1, 0.75)], []]))
    assert page.words.count("Worst mistakes") == 1
    assert "true: <i>cat</i>predicted: dog75 %" in page.words
    assert ("aria-label", "image of <i>cat</i>, predicted as dog with 75 %") in page.attributes
    assert f"lifelong report {tmp_path}" not in page.words
    (data,) = [value for name, value in page.attributes if name == "href" and value.startswith("data:") and (opened(value).shape[0] == 8)]
    assert (opened(data) == noise(8)).all()


def test_settings_at_their_defaults_are_folded(make_summary, tmp_path):
    assert {name: entry.settings for name, entry in registry.METHODS.items()}.items() <= SETTINGS.items()
    summary = make_summary(2, cells=False)
    own, equal = {"seed": 3, "of_a_plugin": "x", "epochs": 7, "alpha": 0.25}, {"momentum": 0.9, "weight_decay_grid": [], "beta": 0.75}
    summary["settings"] = own | equal
    page = write_report(tmp_path, summary).read_text()
    shown, _, folded = page[page.index('id="settings"') : page.index('id="again"')].partition("<details>")
    assert [key for key in summary["settings"] if key in shown] == list(own)
    assert [key for key in summary["settings"] if key in folded] == list(equal)
    assert "7 (default: 100)" in shown
    assert "0.25 (default: 0.5)" in shown
    assert "3 settings at their defaults" in folded
    # Nothing is known of the defaults of a method that is not registered here: nothing is folded.
    page = write_report(tmp_path, summary | {"method": "of-a-plugin"}).read_text()
    assert "<details>" not in page[page.index('id="settings"') : page.index('id="again"')]
