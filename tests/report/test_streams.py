import io

import pytest
from rich.console import Console
from rich.table import Table

from lifelong.report.streams import class_names, headline, licences, notes, sizes, stream_table
from lifelong.words import counted


def task(name="one", **changes):
    base = {"source": "made", "licence": "MIT", "classes": ["a", "b"], "train": 1000, "valid": 20, "test": 3, "image_size": 8}
    return base | {"name": name, "transform": "", "notes": []} | changes


def stream(*tasks):
    return {"name": "s", "seed": 3, "fingerprint": "f" * 64, "tasks": list(tasks)}


def printed(table: Table, width: int = 120) -> str:
    file = io.StringIO()
    Console(width=width, file=file).print(table)
    return file.getvalue()


def test_counts_are_in_the_right_number():
    assert [counted(1, "class"), counted(2, "class"), counted(1, "task"), counted(1000, "task")] == [
        "1 class",
        "2 classes",
        "1 task",
        "1,000 tasks",
    ]
    assert sizes(task(), task(train=1)) == "1,001 train · 40 valid · 6 test"


def test_a_class_of_several_tasks_counts_once():
    same = stream(task(), task("two", classes=["b", "c"]))
    assert headline(same) == "seed 3 · 2 tasks · 3 classes from made · 8×8 pixels"
    other = stream(task(), task("two", source="x", image_size=32))
    assert headline(other) == "seed 3 · 2 tasks · 4 classes · 8×8 to 32×32 pixels"


def test_licences_are_said_once_with_their_sources():
    found = licences(stream(task(), task(), task(source="x"), task(source="y", licence="CC")))
    assert found == ["licence of made, x: MIT", "licence of y: CC"]
    (many,) = licences(stream(*(task(source=f"s{number}") for number in range(9))))
    assert many == "licence of s0, s1, s2, s3 and 5 more sources: MIT"


def test_notes_are_said_once_with_their_tasks():
    found = notes(stream(task("a", notes=["few."]), task("b", notes=["few.", "odd\nones."]), task("c")))
    assert found == ["note on a, b: few.", "note on b: odd ones."]


def test_long_lists_of_classes_are_cut_and_counted():
    assert class_names(list("abc")) == "a, b, c"
    names = [f"c{number}" for number in range(47)]
    assert class_names(names[:20]) == ", ".join(names[:20])
    assert class_names(names) == ", ".join(names[:10]) + ", … and 37 more"
    assert len(class_names(["w" * 100])) == 28


def test_what_is_the_same_for_all_tasks_has_no_column():
    same = printed(stream_table(stream(task(), task("two"))))
    assert "source" not in same
    assert "pixels" not in same
    other = printed(stream_table(stream(task(), task("two", source="x", image_size=32))))
    assert "source" in other
    assert "pixels" in other


def test_totals_are_sums_and_only_where_there_are_several_tasks():
    lines = printed(stream_table(stream(task(), task("two", train=234)))).splitlines()
    (total,) = [line.split() for line in lines if "total" in line]
    assert total == ["total", "1,234", "40", "6"]
    assert "total" not in printed(stream_table(stream(task())))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width):
    wide = [
        task("t" * 50, source="folder:" + "s" * 60, classes=[f"class number {label}" for label in range(47)], transform="inverted"),
        task("two", image_size=32, train=1_234_567),
    ]
    text = printed(stream_table(stream(*wide)), width)
    assert max(map(len, text.splitlines())) <= width
    assert "1,234,567" in text
    assert "t" * 8 in text


def test_names_are_plain_text(nasty):
    text = printed(stream_table(stream(task(nasty[2], source=nasty[2], classes=nasty, transform="[red]x"), task("two"))), 400)
    assert text.count("[bold red]zebra") >= 2
    assert "[red]x" in text
    assert "<script>" in text
    assert "\x1b" not in text
