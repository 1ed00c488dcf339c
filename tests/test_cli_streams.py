import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lifelong import api
from lifelong.cli import main
from lifelong.errors import LifelongError
from tests.parquet_files import png, write_parquet

NAMES = ["[red]crab", "<img src=x onerror=alert(1)>", "猫 & 犬", "[/]", "a" * 90]

OWN = """
name = "[blink]own"
image_size = 8
[[task]]
name = "[bold]first"
source = "parquet:own"
test_per_class = 2
transform = { background = "red", shift_labels = 1 }
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Every test in an empty folder, with its own cache and no data but those it makes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIFELONG_DATA", raising=False)
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def own(tmp_path):
    """A stream of images whose grey says their class, which have odd names."""
    for split, count in (("train", 30), ("test", 10)):
        labels = np.arange(count) % len(NAMES)
        images = [png(np.full((8, 8, 3), (20 * label, number, 0), np.uint8)) for number, label in enumerate(labels)]
        write_parquet(tmp_path / "own" / f"{split}-0.parquet", images, {"label": labels}, names={"label": NAMES})
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    return str(file)


def said(capsys, *words):
    """What a command prints."""
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_a_stream_is_described_without_loading_its_images(capsys, monkeypatch, own):
    def never(*arguments):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("lifelong.data.sources.Source.images", never)
    text = said(capsys, "streams", own)
    for part in (
        "[blink]own",
        "[bold]first",
        "seed 0",
        "1 task",
        "5 classes",
        "8×8",
        "background red",
        "labels shifted by 1",
        "your own data",
    ):
        assert part in text
    assert api.describe_stream(own)["fingerprint"] in text
    # Names are printed as they are, in label order, and cut where they are long.
    order = [text.replace("\n", " ").index(name) for name in ("aaa", "[red]crab", "<img", "猫", "[/]")]
    assert order == sorted(order)
    assert "a" * 40 not in text


def test_a_description_as_json_has_all_of_it(capsys, own):
    (task,) = json.loads(said(capsys, "streams", own, "--json"))["tasks"]
    assert task["classes"] == [NAMES[-1], *NAMES[:-1]]
    assert (task["licence"], task["source"], task["test"]) == ("your own data", "parquet:own", 10)


def test_broken_images_stop_a_sheet_or_are_left_out(capsys, own):
    labels = np.arange(10) % len(NAMES)
    images = [png(np.full((8, 8, 3), (20 * label, number, 99), np.uint8)) for number, label in enumerate(labels)]
    images[3] = images[3][:40]
    write_parquet(Path("own/test-0.parquet"), images, {"label": labels}, names={"label": NAMES})
    assert main(["streams", own, "--preview", "a.png"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "row 3 of test-0.parquet" in err
    assert not Path("a.png").exists()
    said(capsys, "streams", own, "--preview", "a.png", "--skip-broken")
    assert Path("a.png").exists()


def test_embedded_digits_name_their_licence(capsys):
    assert "licence of digits: CC BY 4.0" in said(capsys, "streams", "digits")


def test_a_contact_sheet_is_drawn(capsys, own):
    out = Path("new folder/sheet.png")
    text = said(capsys, "streams", own, "--preview", str(out))
    assert "[bold]first" in text
    assert f"contact sheet: {out}" in text
    with Image.open(out) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    # The transform has been applied: where there was no red there is all of it.
    shown = {colour for colour in colours if colour[0] == 255 and colour[1] < 60 and colour[2] == 0}
    assert shown


def test_a_sheet_beside_json(capsys, own):
    assert json.loads(said(capsys, "streams", own, "--preview", "a.png", "--json"))["name"] == "[blink]own"
    assert Path("a.png").exists()


def test_the_same_stream_gives_the_same_picture_and_another_seed_another():
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        api.preview_stream("digits", f"{name}.png", seed, progress=False)
    a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_evaluation_images_of_digits_are_shown_as_they_are(tmp_path):
    """The first image of task 1, label 0 is found in the picture, every pixel twelve times as wide and high: not mirrored."""
    api.preview_stream("digits", "d.png", progress=False)
    test = api.open_stream("digits")[0].test
    image = test.images[test.labels == 0][0].permute(1, 2, 0).numpy()
    with Image.open("d.png") as opened:
        picture = np.asarray(opened.convert("RGB"))
    large = image.repeat(12, axis=0).repeat(12, axis=1)
    assert _holds(picture, large)
    assert not _holds(picture, large[:, ::-1])


def _holds(picture, part):
    """Whether a part occurs in a picture; its rows are looked for first."""
    height, width = part.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(picture[:400, :, 0], (1, width))[:, :, 0]
    tops, lefts = np.nonzero((windows == part[0, :, 0]).all(axis=2))
    return any(np.array_equal(picture[top : top + height, left : left + width], part) for top, left in zip(tops, lefts, strict=True))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["streams", "digits", "--preview", "a.jpg"], "ends in .png"),
        (["streams", "digits", "--preview", "."], "ends in .png"),
        (["streams", "--preview", "a.png"], "lifelong streams NAME --preview a.png"),
        (["streams", "digit", "--preview", "a.png"], "'digits'"),
        (["streams", "digits", "--preview"], "--preview"),
    ],
)
def test_bad_input_is_one_line(capsys, words, part):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert part in err
    assert err.count("\n") == 1
    assert not list(Path.cwd().glob("*.png"))


def test_the_name_is_checked_before_anything_is_opened(monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("a stream was opened")

    monkeypatch.setattr(api, "open_stream", never)
    with pytest.raises(LifelongError, match=r"ends in \.png"):
        api.preview_stream("digits", "a.gif")


def test_a_terminal_sees_progress_on_stderr(monkeypatch, own):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    api.preview_stream(own, "a.png")
    assert "tasks" in shown.getvalue()
