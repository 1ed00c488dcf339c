import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lifelong.errors import LifelongError
from lifelong.report import contact
from lifelong.report.contact import check_path, contact_sheet, enlarged, plan

PAPER = (255, 255, 255)


def described(tasks: int = 2, classes: int = 5, *, names: list[str] | None = None, test: int = 1000, size: int = 8) -> dict:
    """What `describe_stream` returns."""
    names = names or [f"class {label}" for label in range(classes)]
    task = {
        "source": "made",
        "licence": "none",
        "classes": [names[label % len(names)] for label in range(classes)],
        "train": 4000,
        "valid": 100,
        "test": test,
        "image_size": size,
        "transform": "inverted",
        "notes": [],
    }
    stream = {"name": names[0], "seed": 0, "fingerprint": "0123456789abcdef" * 4}
    return stream | {"tasks": [task | {"name": f"{names[index % len(names)]} {index}"} for index in range(tasks)]}


def flat(colour: tuple[int, int, int], size: int = 8) -> np.ndarray:
    return np.full((size, size, 3), colour, np.uint8)


def coloured(stream: dict, size: int = 8):
    """For each task and class as many images as are asked for, of a colour that says task, class and place."""
    for task, (classes, each) in enumerate(plan(stream)):
        yield [[flat((100 + task % 100, 10 * label, 10 * place), size) for place in range(each)] for label in range(classes)]


def drawn(stream: dict, tmp_path: Path, images=None) -> Image.Image:
    path = tmp_path / "sheet.png"
    contact_sheet(stream, coloured(stream) if images is None else images, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.convert("RGB")


def box(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of the pixels of a colour; they must fill that box."""
    rows, columns = np.nonzero(picture == _number(np.array(colour)))
    found = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
    assert len(rows) == found[2] * found[3]
    return tuple(map(int, found))


def numbered(picture: Image.Image) -> np.ndarray:
    """A picture whose pixels are one number each, shape (h, w)."""
    return _number(np.asarray(picture))


def _number(colours: np.ndarray) -> np.ndarray:
    return colours.astype(np.int32) @ np.array([1, 256, 65536], np.int32)


@pytest.mark.parametrize(
    ("classes", "tasks", "test", "chosen"),
    [
        (2, 3, 1000, (2, 5)),
        (2, 3, 4, (2, 2)),
        (2, 3, 0, (2, 1)),
        (3, 3, 1000, (3, 3)),
        (5, 25, 1000, (5, 2)),
        (7, 3, 1000, (7, 1)),
        (10, 3, 1000, (10, 1)),
        (100, 3, 1000, (10, 1)),
        (5, 26, 1000, (5, 1)),
        (10, 100, 1000, (6, 1)),
    ],
)
def test_what_is_shown_of_a_task(classes, tasks, test, chosen):
    assert plan(described(tasks, classes, test=test)) == [chosen] * tasks


@pytest.mark.parametrize(("tasks", "side"), [(2, 96), (26, 64)])
def test_images_stand_in_label_order_row_by_row(tasks, side, tmp_path):
    stream = described(tasks)
    picture = numbered(drawn(stream, tmp_path))
    places = {
        (task, label, place): box(picture, (100 + task, 10 * label, 10 * place))
        for task, (classes, each) in enumerate(plan(stream))
        for label in range(classes)
        for place in range(each)
    }
    assert all(found[2:] == (side, side) for found in places.values())
    for task in range(tasks):
        row = [found for (number, _, _), found in sorted(places.items()) if number == task]
        assert len({top for _, top, _, _ in row}) == 1
        assert [left for left, *_ in row] == sorted(left for left, *_ in row)
        assert all(after[0] >= before[0] + side for before, after in pairwise(row))
    assert all(places[task + 1, 0, 0][1] >= places[task, 0, 0][1] + side for task in range(tasks - 1))


@pytest.mark.parametrize(
    ("tasks", "size", "side"),
    [(2, 84, 84), (2, 28, 84), (2, 32, 96), (2, 64, 96), (2, 224, 96), (30, 8, 64), (30, 28, 56), (30, 84, 64), (30, 1, 64)],
)
def test_images_are_as_large_as_whole_pixels_allow(tasks, size, side, tmp_path):
    stream = described(tasks, size=size)
    picture = numbered(drawn(stream, tmp_path, coloured(stream, size)))
    assert box(picture, (100, 10, 0))[2:] == (side, side)


def test_an_image_is_enlarged_by_repeating_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(enlarged(pixels, 96)), pixels.repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize("size", [1, 28, 64, 84, 96, 224])
@pytest.mark.parametrize("side", [64, 96])
def test_an_image_of_any_size_keeps_its_colours(size, side):
    picture = np.asarray(enlarged(flat((10, 200, 30), size), side))
    assert picture.shape == (side, side, 3)
    assert (picture == (10, 200, 30)).all()


def test_a_white_image_gets_a_frame_and_a_class_without_images_an_empty_one(tmp_path):
    stream = described(1, 2, test=2)
    white, black, none = (drawn(stream, tmp_path, [[[flat((0, 9, 0))], part]]) for part in ([flat(PAPER)], [flat((0, 0, 0))], []))
    assert white.tobytes() == none.tobytes()
    top = box(numbered(black), (0, 9, 0))[1]
    x = box(numbered(black), (0, 0, 0))[0]
    edges = [[picture.getpixel((x, top + 5)), picture.getpixel((x + 5, top + 5))] for picture in (white, black)]
    assert edges[0][0] != PAPER
    assert edges[0][1] == PAPER
    assert edges[1] == [(0, 0, 0)] * 2


def test_any_name_can_be_drawn(nasty, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for tasks in (8, 30):
            picture = drawn(described(tasks, 8, names=[*nasty, "", "\u202egnp", "🦆"]), tmp_path)
            assert picture.width < 2000


def test_long_names_stay_within_their_places(tmp_path):
    few, many = (drawn(described(2, names=[name], classes=5), tmp_path) for name in ("w", "w" * 500))
    assert few.size == many.size
    for picture in (few, many):
        pixels = np.asarray(picture)
        assert (pixels[:, :40] == 255).all()
        assert (pixels[:, -40:] == 255).all()
    # The captions end before the first image begins.
    left, top, _, side = box(numbered(many), (100, 0, 0))
    assert (np.asarray(many)[top : top + side, left - 12 : left] == 255).all()


def test_a_hundred_tasks_of_photographs_make_a_small_file(tmp_path):
    stream = described(100, 10, size=32)
    random = np.random.default_rng(0)

    def images():
        for classes, each in plan(stream):
            # As uneven as photographs are: smooth, with some noise.
            ramps = random.integers(0, 200, (classes, each, 1, 1, 3)) + np.arange(32)[:, None, None] + np.arange(32)[:, None]
            yield list(map(list, (ramps + random.integers(0, 24, (classes, each, 32, 32, 3))).clip(0, 255).astype(np.uint8)))

    picture = drawn(stream, tmp_path, images())
    assert picture.height < 8000
    assert (tmp_path / "sheet.png").stat().st_size < 3.2e6


def test_images_are_asked_for_one_task_at_a_time(monkeypatch, tmp_path):
    stream, events = described(3), []
    draw = contact._Sheet.draw_row
    monkeypatch.setattr(
        contact._Sheet, "draw_row", lambda sheet, index, groups: (events.append(f"draw {index}"), draw(sheet, index, groups))
    )

    def images():
        for index, groups in enumerate(coloured(stream)):
            events.append(f"load {index}")
            yield groups

    drawn(stream, tmp_path, images())
    assert events == ["load 0", "draw 0", "load 1", "draw 1", "load 2", "draw 2"]


def test_very_many_tasks_are_cut_and_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(contact, "MOST_TASKS", 30)
    cut, whole = described(50, 2), described(30, 2)
    assert len(plan(cut)) == 30
    assert drawn(cut, tmp_path).height == drawn(whole, tmp_path).height + 20  # a line that counts them


def test_the_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new folder" / "a" / "sheet.PNG"
    stream = described()
    contact_sheet(stream, coloured(stream), path)
    before = path.read_bytes()

    def broken():
        yield next(coloured(stream))
        raise LifelongError("file 7 is broken")

    with pytest.raises(LifelongError, match="file 7"):
        contact_sheet(stream, broken(), path)
    assert path.read_bytes() == before
    other = stream | {"name": "other"}
    contact_sheet(other, coloured(other), path)
    assert path.read_bytes() != before
    assert [file.name for file in path.parent.iterdir()] == ["sheet.PNG"]


@pytest.mark.parametrize("name", ["sheet.jpg", "sheet", "png", "sheet.png.pdf"])
def test_only_png_is_drawn(name, tmp_path):
    with pytest.raises(LifelongError, match=r"give a name that ends in \.png"):
        contact_sheet(described(), [], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(LifelongError, match="it is a folder"):
        check_path(tmp_path / "a.png")
