"""The data check: each kind of trouble in one line, in `lifelong streams` and among a run's notes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lifelong.api import describe_stream
from lifelong.cli import main
from lifelong.data import decoding
from lifelong.data.sources import Sources
from lifelong.streams.check import _normal_form, data_check
from lifelong.streams.named_streams import open_stream
from tests.parquet_files import png, write_parquet

RANDOM = np.random.default_rng(0)


def noise() -> bytes:
    return png(RANDOM.integers(0, 256, (8, 8, 3), np.uint8))


def lay(root: Path, **classes: int) -> Path:
    """A folder with so many pictures of noise of each class."""
    for label, count in classes.items():
        (root / label).mkdir(parents=True)
        for number in range(count):
            (root / label / f"{number}.png").write_bytes(noise())
    return root


def check(tmp_path: Path, name: str, skip_broken: bool = False, **more) -> list[str]:
    return data_check(open_stream(name, 0, Sources(None, cache=tmp_path / "cache", skip_broken=skip_broken)), **more)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))


def test_a_clean_set_has_nothing(tmp_path, capsys):
    lay(tmp_path / "photos", a=30, b=40, c=30, d=40)
    name = f"folder:{tmp_path / 'photos'}?tasks=2&size=8"
    assert check(tmp_path, name) == []
    assert main(["streams", name]) == 0
    assert "data check: nothing found" in capsys.readouterr().out


def test_every_kind_of_trouble_is_said_once(tmp_path):
    root = lay(tmp_path / "photos", Cat=40, cat=300, owl=30, wren=3)
    (root / "owl" / "broken.png").write_bytes(noise()[:100])
    Image.new("RGB", (8, 8), "navy").save(root / "owl" / "flat.png")
    Image.fromarray(RANDOM.integers(0, 200, (8, 8)).astype(np.uint16)).save(root / "owl" / "deep.png")
    (root / "owl" / "again.png").write_bytes((root / "cat" / "7.png").read_bytes())
    name = f"folder:{root}?tasks=2&size=8"
    where = f"'folder:{root}'"
    said = check(tmp_path, name)
    assert said[:5] == [
        f"1 of 377 images of {where} cannot be used (repair or remove them, or leave them out with --skip-broken):"
        " owl/broken.png (truncated).",
        f"1 of 377 images of {where} is of one colour: owl/flat.png.",
        f"1 of 377 images of {where} is changed by being read: owl/deep.png (values of 8 bits in a file of more, taken as they are).",
        f"1 picture of {where} has more than one label, for example cat/7.png as 'cat' and owl/again.png as 'owl'.",
        f"Class names of {where} that hardly differ: 'Cat' and 'cat'.",
    ]
    assert said[5].startswith("1 class has fewer than 10 images to learn from: 'wren' of 'photos ")
    assert said[5].endswith("' (1).")
    assert said[6].startswith("1 class has fewer than 5 images to be tested on: 'wren'")
    assert "of very uneven size: 'photos" in said[7]
    assert "('wren' 1, '" in said[7]
    assert len(said) == 8
    assert describe_stream(name)["check"] == said
    assert check(tmp_path, name, skip_broken=True)[0].startswith("1 of 376 images"), "what is left out is said by the source"


def test_of_many_sources_the_first_are_named(tmp_path):
    for number in range(6):
        lay(tmp_path / "tasks" / f"task {number}", a=30, A=30)
    said = check(tmp_path, f"folder:{tmp_path / 'tasks'}?size=8")
    assert [line.partition("' that ")[2] for line in said[:3]] == ["hardly differ: 'A' and 'a'."] * 3
    assert said[3:] == ["Class names that hardly differ: 3 more sources of the stream too."]


def test_images_are_looked_at_once(tmp_path, monkeypatch):
    lay(tmp_path / "photos", a=20, b=20)
    Image.new("RGB", (8, 8), "navy").save(tmp_path / "photos" / "a" / "flat.png")
    name = f"folder:{tmp_path / 'photos'}?tasks=1&size=8"
    stream = open_stream(name, 0, Sources(None, cache=tmp_path / "cache"))
    stream.prepare()
    monkeypatch.setattr(decoding.Image, "open", lambda *args, **more: pytest.fail("looked again"))
    assert "is of one colour: a/flat.png" in check(tmp_path, name)[0]


def test_of_the_catalogue_what_is_known_is_said(tmp_path, monkeypatch):
    encoded = [noise() for _ in range(40)]
    encoded[3] = png(np.zeros((8, 8, 3), np.uint8))
    write_parquet(tmp_path / "data" / "svhn" / "train.parquet", encoded, {"label": [number % 10 for number in range(40)]})
    file = tmp_path / "own.toml"
    file.write_text('[[task]]\nname = "a"\nsource = "svhn"\ntrain_per_class = 2\nvalid_per_class = 1\ntest_per_class = 1\n')
    sources = Sources(tmp_path / "data", cache=tmp_path / "cache")
    stream = open_stream(str(file), 0, sources)
    assert data_check(stream, look_at_named=False) == []
    stream.prepare()
    line = "1 of 40 images of 'svhn' is of one colour: row 3 of train.parquet."
    assert data_check(stream, look_at_named=False) == data_check(stream) == [line]


def test_copies_in_one_split(tmp_path):
    root = lay(tmp_path / "photos", a=12, b=12)
    for number in range(6):
        (root / "a" / f"copy {number}.png").write_bytes((root / "a" / f"{number}.png").read_bytes())
    (said,) = [line for line in check(tmp_path, f"folder:{root}?tasks=1&size=8") if "twice" in line]
    assert said == f"6 of 30 images of 'folder:{root}' are there twice in one split, such as a/0.png and a/copy 0.png."


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("1", "1.0", True),
        ("01", "1", True),
        ("1", "10", False),
        ("1.5", "15", False),
        ("1,0", "1", True),
        ("cat", "Cat ", True),
        ("sea_lion", "sea lion", True),
        ("sea-lion", "Sea Lion", True),
        ("Mo\u0308we", "M\u00f6we", True),
        ("a\u200bb", "ab", True),
        ("cat", "cats", False),
        ("-1", "1", False),
        ("-", "_", True),
    ],
)
def test_names_that_hardly_differ(one, other, alike):
    assert (_normal_form(one) == _normal_form(other)) is alike


def test_labels_of_a_list(tmp_path):
    rows = ["image,label"]
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(noise())
        rows.append(f"{number}.png,{['1', '1.0', 'x'][number % 3]}")
    rows.append("0.png,x")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    said = check(tmp_path, f"csv:{tmp_path / 'list.csv'}?tasks=1&size=8")
    assert said[0].endswith("has more than one label, for example 0.png as '1' and 0.png as 'x'.")
    assert said[1].endswith("that hardly differ: '1' and '1.0'.")


def test_it_stands_among_the_notes_of_a_run(tmp_path, capsys):
    root = lay(tmp_path / "photos", a=30, A=30)
    Image.new("RGB", (8, 8), "navy").save(root / "a" / "flat.png")
    name = f"folder:{root}?tasks=1&size=8"
    command = ["run", "--stream", name, "--method", "finetune", "--preset", "quick", "--epochs", "1", "--init-channels", "4"]
    assert main([*command, "--out", str(tmp_path / "run"), "--threads", "1"]) == 0
    notes = json.loads((tmp_path / "run" / "summary.json").read_text())["notes"]
    assert notes == [
        f"data check: 1 of 61 images of 'folder:{root}' is of one colour: a/flat.png.",
        f"data check: Class names of 'folder:{root}' that hardly differ: 'A' and 'a'.",
    ]
    assert "is of one colour" in capsys.readouterr().out
    lay(tmp_path / "more", c=30, C=30)
    command = ["learn", str(tmp_path / "run"), "--task", f"folder:{tmp_path / 'more'}", "--threads", "1"]
    assert main(command) == 0
    notes = json.loads((tmp_path / "run" / "summary.json").read_text())["notes"]
    assert len(notes) == 3
    assert notes[2].endswith("that hardly differ: 'C' and 'c'.")
