"""Folders of pictures and lists of files."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong.data.files import read_file
from lifelong.data.naming import natural, shown
from lifelong.data.sources import Source, Sources
from lifelong.errors import LifelongError
from tests.parquet_files import numbered, png, write_parquet


@pytest.fixture
def sources(tmp_path) -> Sources:
    return Sources(tmp_path / "data", cache=tmp_path / "cache")


def put(root: Path, *names: str, start: int = 0) -> Path:
    """Numbered images in files of these names."""
    for pixels, name in zip(numbered(len(names), start=start), names, strict=True):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(pixels))
    return root


def numbers(source: Source, split="train") -> list[int]:
    """The numbers of all images of a split."""
    pixels = source.images(split, torch.arange(len(source.labels(split))), 4)
    return pixels[:, 0, 0, 0].tolist()


def fails(sources: Sources, name: str, *words: str) -> None:
    with pytest.raises(LifelongError) as caught:
        sources.open(name)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# -- folders ---------------------------------------------------------------------------------------------------------------------


def test_a_folder_of_classes(sources, tmp_path):
    put(tmp_path / "data" / "photos", "owl/img10.png", "owl/img2.PNG", "crow/x.png")
    source = sources.open("folder:photos")
    assert source.classes == ("crow", "owl")
    assert source.labels("train").tolist() == [0, 1, 1]
    assert numbers(source) == [2, 1, 0], "in natural order"
    assert not source.has_split("test")
    assert not source.has_split("valid")
    assert not source.mirror
    assert source.notes == ()
    assert source.folder == tmp_path / "data" / "photos"
    assert sources.open("folder:photos?flip=true").mirror


@pytest.mark.parametrize(
    "words",
    [("train", "valid", "test"), ("train", "val", "test"), ("Train", "Validation", "TEST"), ("training", "dev", "testing")],
)
def test_a_folder_of_splits(sources, tmp_path, words):
    train, valid, test = words
    put(tmp_path / "data" / "photos", f"{train}/a/1.png", f"{train}/b/1.png", f"{valid}/b/1.png", f"{test}/a/1.png", f"{test}/b/1.png")
    source = sources.open("folder:photos")
    assert [source.labels(split).tolist() for split in ("train", "valid", "test")] == [[0, 1], [1], [0, 1]]
    assert [numbers(source, split) for split in ("train", "valid", "test")] == [[0, 1], [2], [3, 4]]


def test_named_splits(sources, tmp_path):
    put(tmp_path / "data" / "photos", "2023/a/1.png", "2023/b/1.png", "2024/a/1.png", "2024/b/1.png", "2025/a/1.png", "2025/b/1.png")
    source = sources.open("folder:photos?train=2023+2024&test=2025")
    assert numbers(source) == [0, 1, 2, 3]
    assert source.labels("train").tolist() == [0, 1, 0, 1]
    assert numbers(source, "test") == [4, 5]
    fails(sources, "folder:photos?train=20233", "no folder '20233' for train", "did you mean '2023'?")


def test_a_class_may_be_called_train(sources, tmp_path):
    put(tmp_path / "data" / "things", "train/1.png", "plane/1.png")
    assert sources.open("folder:things").classes == ("plane", "train")
    put(tmp_path / "data" / "screens", "dev/1.png", "prod/1.png", "test/1.png")
    assert sources.open("folder:screens").classes == ("dev", "prod", "test"), "without train, and next to another"


def test_pictures_in_folders_of_splits_are_no_classes(sources, tmp_path):
    put(tmp_path / "data" / "flat", "train/1.png", "test/1.png")
    fails(sources, "folder:flat", "'test' and 'train' are names of splits", "make them test/CLASS/*", "csv:FILE")
    put(tmp_path / "data" / "half", "train/a/1.png", "train/b/1.png", "test/1.png")
    fails(sources, "folder:half", "half/test: no folders in it", "leave 'test' out by naming the splits that are wanted: ?train=FOLDER")
    assert sources.open("folder:half?train=train").classes == ("a", "b")
    put(tmp_path / "data" / "unclear", "training/a/1.png", "training/b/1.png", "eval/a/1.png")
    fails(sources, "folder:unclear", "'eval' may mean validation or test", "?train=training&test=eval, or &valid=eval")
    assert sources.open("folder:unclear?train=training&valid=eval").labels("valid").tolist() == [0]
    put(tmp_path / "data" / "headless", "valid/a/1.png", "test/a/1.png")
    fails(sources, "folder:headless", "no folder 'train'", "?train=FOLDER")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_image(sources, tmp_path):
    root = put(tmp_path / "data" / "photos", "a/1.png", "b/1.png")
    os.mkfifo(root / "a" / "2.png")
    fails(sources, "folder:photos", "a/2.png: neither a file nor a folder (a pipe or a device)")
    listed(tmp_path, "image,label\na.png,x\nb.png,y\n", "a.png")
    os.mkfifo(tmp_path / "data" / "lists" / "b.png")
    fails(sources, "csv:lists/list.csv", "1 image missing: b.png")
    with pytest.raises(LifelongError, match="a pipe, not a file"):
        read_file(root / "a" / "2.png")


def test_names_of_all_kinds(sources, tmp_path):
    names = ["my cats", 'O\'Hara "x"', "<b>bold & co", "Möwe", "鳥", "50%", "a?b=c"]
    put(tmp_path / "data" / "odd photos #1", *(f"{name}/pic <1> 'ä'.png" for name in names))
    source = sources.open("folder:odd photos #1")
    assert sorted(source.classes) == sorted(names)
    assert [source.classes[number] for number in source.labels("train")] == [names[number] for number in numbers(source)]


def test_the_same_letters_written_in_two_ways_are_one_class(sources, tmp_path):
    put(tmp_path / "data" / "photos", "train/M\u00f6we/1.png", "train/owl/1.png", "test/Mo\u0308we/1.png")
    source = sources.open("folder:photos")
    assert source.classes == ("M\u00f6we", "owl")
    assert source.labels("test").tolist() == [0]
    put(tmp_path / "data" / "photos", "train/Mo\u0308we/1.png")
    fails(Sources(tmp_path / "data", cache=tmp_path / "cache"), "folder:photos", "two folders are called 'M\u00f6we'")


def test_what_is_no_image_is_passed_over_and_counted(sources, tmp_path):
    root = put(tmp_path / "data" / "photos", "a/1.png", "b/1.png", "b/more/2.png", "a/.hidden.png", ".cache/x.png", "__MACOSX/a/1.png")
    for name in ("a/notes.txt", "b/x.TXT", "readme", "b/raw.dng", "a/.DS_Store"):
        (root / name).write_text("x")
    source = sources.open("folder:photos")
    assert len(source.labels("train")) == 2
    assert source.notes == ("Passed over as no images: 1 .dng, 2 .txt, 1 folders, 1 without ending.",)


def test_folders_that_cannot_be_used(sources, tmp_path):
    data = tmp_path / "data"
    fails(sources, "folder:none", "no such folder", str(data / "none"), "--data DIR")
    put(data, "flat/1.png")
    fails(sources, "folder:flat", "no folders in it", "a folder of its own")
    put(data, "one/owl/1.png")
    fails(sources, "folder:one", "one class only, 'owl'")
    (put(data, "empty/owl/1.png", "empty/crow/1.png") / "empty" / "jay").mkdir()
    fails(sources, "folder:empty", "empty/jay holds no images", "remove it")
    put(data, "deep/task/train/owl/1.png", "deep/other/train/owl/1.png")
    fails(sources, "folder:deep", "deep/other holds no images; its folders ('train', ...) are not looked into")
    put(data, "mixed/train/owl/1.png", "mixed/train/crow/1.png", "mixed/jay/1.png")
    fails(sources, "folder:mixed", "holds 'jay' next to 'train'")
    put(data, "twice/train/a/1.png", "twice/train/b/1.png", "twice/val/a/1.png", "twice/valid/a/1.png")
    fails(sources, "folder:twice", "'val' and 'valid', two names for one split")
    put(data, "more/train/a/1.png", "more/train/b/1.png", "more/test/c/1.png")
    fails(sources, "folder:more", "class 'c' of test is not in train")
    put(data, "line/a\nb/1.png", "line/c/1.png")
    fails(sources, "folder:line", "'a?b' has a name that cannot be printed")
    fails(sources, "folder:flat/1.png", "is a file; name its folder: folder:DIR")


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_links_are_followed_and_circles_do_no_harm(sources, tmp_path):
    put(tmp_path, "elsewhere/1.png", "elsewhere/2.png")
    root = put(tmp_path / "data" / "photos", "a/1.png", "b/1.png")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "self.png").symlink_to(root / "b" / "self.png")
    fails(sources, "folder:photos", "self.png: a broken link")
    (root / "b" / "self.png").unlink()
    source = sources.open("folder:photos")
    assert source.labels("train").tolist() == [0, 1, 2, 2]
    assert source.notes == ("Passed over as no images: 1 folders.",)


def test_content_and_fingerprint(sources, tmp_path):
    root = put(tmp_path / "data" / "photos", "a/1.png", "b/1.png", "b/2.png")
    (root / "a" / "copy.png").write_bytes((root / "b" / "2.png").read_bytes())
    encoded = [(root / name).read_bytes() for name in ("a/1.png", "a/copy.png", "b/1.png", "b/2.png")]
    write_parquet(tmp_path / "data" / "stored" / "train-0.parquet", encoded, {"label": [0, 0, 1, 1]})
    source = sources.open("folder:photos")
    contents = source.contents("train")
    assert contents.dtype == np.uint64
    assert contents.tolist() == [int(hashlib.sha256(content).hexdigest()[:16], 16) for content in encoded]
    assert contents.tolist() == sources.open("parquet:stored").contents("train").tolist()

    def fingerprint() -> str:
        return Sources(tmp_path / "data", cache=tmp_path / "cache").open("folder:photos").fingerprint("train")

    before = fingerprint()
    (root / "a" / "copy.png").rename(root / "b" / "copy.png")
    assert fingerprint() != before, "the same bytes in another class"


def test_the_second_time_no_image_file_is_read(sources, tmp_path, monkeypatch):
    put(tmp_path / "data" / "photos", "a/1.png", "b/1.png")
    source = sources.open("folder:photos")
    first = numbers(source), source.contents("train").tolist(), source.fingerprint("train")
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read"))
    monkeypatch.setattr("hashlib.file_digest", lambda *args: pytest.fail("hashed"))
    again = Sources(tmp_path / "data", cache=tmp_path / "cache").open("folder:photos")
    assert (numbers(again), again.contents("train").tolist(), again.fingerprint("train")) == first


def test_a_file_that_changes_between_opening_and_reading(sources, tmp_path):
    root = put(tmp_path / "data" / "photos", "a/1.png", "b/1.png")
    source = sources.open("folder:photos")
    source.fingerprint("train")
    put(root, "a/1.png", start=7)
    with pytest.raises(LifelongError, match="changed while they were read; run again"):
        numbers(source)
    assert numbers(Sources(tmp_path / "data", cache=tmp_path / "cache").open("folder:photos")) == [7, 1]


def test_natural_order():
    assert sorted(["b10", "b9", "a", "10", "9", "b", "B1"], key=natural) == ["9", "10", "B1", "a", "b", "b9", "b10"]
    assert natural("07") != natural("7")
    assert shown("a\n\udcff\u200bb") == "a???b"


# -- lists -----------------------------------------------------------------------------------------------------------------------


def fresh(tmp_path: Path) -> Sources:
    return Sources(tmp_path / "data", cache=tmp_path / "cache")


def listed(tmp_path: Path, text: str, *names: str) -> Path:
    put(tmp_path / "data" / "lists", *names)
    file = tmp_path / "data" / "lists" / "list.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_list(sources, tmp_path):
    listed(tmp_path, "label,image\nowl,a/1.png\n2,b.png\n10,c.png\n", "a/1.png", "b.png", "c.png")
    source = sources.open("csv:lists/list.csv")
    assert source.classes == ("2", "10", "owl")
    assert source.labels("train").tolist() == [2, 0, 1]
    assert numbers(source) == [0, 1, 2]
    assert source.folder == tmp_path / "data" / "lists"


def test_a_list_with_splits_and_columns_of_other_names(sources, tmp_path):
    rows = '\ufefffile;kind;split\n\'a\'.png;"Eule; ""groß""";train\nb.png;crow; Train \nc.png;crow;val\nd.png;crow;TEST\n'
    listed(tmp_path, rows, "'a'.png", "b.png", "c.png", "d.png")
    source = sources.open("csv:lists/list.csv?label=kind")
    assert source.classes == ('Eule; "groß"', "crow")
    assert [source.labels(split).tolist() for split in ("train", "valid", "test")] == [[0, 1], [1], [1]]
    assert numbers(source, "test") == [3]


def test_named_splits_of_a_list(sources, tmp_path):
    listed(tmp_path, "image,label,split\na.png,x,one\nb.png,y,two\nc.png,x,three\nd.png,y,four\n", "a.png", "b.png", "c.png", "d.png")
    fails(sources, "csv:lists/list.csv", "line 2: split 'one' is not one of train, valid, test", "?train=VALUE")
    source = sources.open("csv:lists/list.csv?train=one+two&test=four")
    assert source.labels("train").tolist() == [0, 1]
    assert numbers(source, "test") == [3]
    fails(sources, "csv:lists/list.csv?train=five", "no images for train")


@pytest.mark.parametrize("column", ["split", "set", "Fold", "partition", "subset"])
def test_the_column_of_splits_has_many_names(sources, tmp_path, column):
    listed(tmp_path, f"image,label,{column}\na.png,x,train\nb.png,y,train\nc.png,x,val\nd.png,y,testing\n", *(f"{n}.png" for n in "abcd"))
    source = sources.open("csv:lists/list.csv")
    assert [source.labels(split).tolist() for split in ("train", "valid", "test")] == [[0, 1], [0], [1]]
    assert source.notes == ()


def test_a_column_of_folds(sources, tmp_path):
    listed(tmp_path, "image,label,fold\na.png,x,0\nb.png,y,1\nc.png,x,2\nd.png,y,2\n", *(f"{name}.png" for name in "abcd"))
    source = sources.open("csv:lists/list.csv")
    assert len(source.labels("train")) == 4
    assert source.notes == (
        "Column 'fold' (0, 1, 2) is not used; say which of its values make which split: ?split=fold&train=...&test=...",
    )
    source = sources.open("csv:lists/list.csv?split=fold&train=0+1&test=2")
    assert numbers(source) == [0, 1]
    assert numbers(source, "test") == [2, 3]
    assert numbers(sources.open("csv:lists/list.csv?train=1&test=0"), "test") == [0], "found by its values"
    fails(sources, "csv:lists/list.csv?split=folds&train=0", "no column 'folds'", "?split=COLUMN")
    listed(tmp_path, "image,label,fold,set\na.png,x,train,test\nb.png,y,test,train\n")
    fails(fresh(tmp_path), "csv:lists/list.csv", "the columns 'fold' and 'set' both name splits", "?split=COLUMN")
    listed(tmp_path, "image,label,set\na.png,x,train\nb.png,y,third\n")
    fails(fresh(tmp_path), "csv:lists/list.csv", "line 3: set 'third' is not one of train, valid, test")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty", "names the columns"]),
        ("image,kind\na.png,x\n", ["no column 'label'", "image, kind", "?label=COLUMN"]),
        ("picture,label\na.png,x\n", ["no column 'image'", "?image=COLUMN"]),
        ("image,label\na.png\n", ["line 2: 1 values where the first line names 2 columns"]),
        ("image,label\na.png,\n", ["line 2: column 'label' is empty"]),
        ("image,label\n ,x\n", ["line 2: column 'image' is empty"]),
        ("image,label\na.png,x\nz.png,y\n", ["1 image missing: z.png"]),
        ("image,label\n/etc/x.png,x\n", ["line 2: '/etc/x.png' is outside the list's folder"]),
        ("image,label\na.png,x\nb/../../x.png,x\n", ["line 3: 'b/../../x.png' is outside"]),
        ("image,label\n..\\x.png,x\n", ["is outside"]),
        ("image,label\n", ["no images: it has only the line that names the columns"]),
        ('image,label\na.png,"x\n', ["line 2: unexpected end of data"]),
    ],
)
def test_lists_that_cannot_be_used(sources, tmp_path, text, words):
    file = listed(tmp_path, text, "a.png")
    fails(sources, "csv:lists/list.csv", str(file), *words)


def test_a_list_that_is_no_text(sources, tmp_path):
    listed(tmp_path, "", "a.png").write_bytes(b"image,label\na.png,\xff\n")
    fails(sources, "csv:lists/list.csv", "not UTF-8 text", "save it as UTF-8")
    fails(sources, "csv:lists/none.csv", "no such file", "none.csv")


def test_parquet_with_columns_and_files_of_other_names(sources, tmp_path):
    folder = tmp_path / "data" / "own"
    encoded = [png(pixels) for pixels in numbered(4)]
    write_parquet(folder / "first.parquet", encoded[:2], {"kind": ["x", "y"]}, image_column="picture")
    write_parquet(folder / "rest-0.parquet", encoded[2:3], {"kind": ["y"]}, image_column="picture")
    write_parquet(folder / "held-0.parquet", encoded[3:], {"kind": ["x"]}, image_column="picture")
    source = sources.open("parquet:own?image=picture&label=kind&train=first.parquet+rest&valid=held&flip=true")
    assert source.labels("train").tolist() == [0, 1, 1]
    assert numbers(source) == [0, 1, 2]
    assert numbers(source, "valid") == [3]
    assert source.mirror
    fails(sources, "parquet:own?train=first.parquet", "no column 'image'", "?image=COLUMN", "picture, kind")
    fails(sources, "parquet:own?train=last", "no last-*.parquet for train", "first.parquet, held-0.parquet, rest-0.parquet")
    fails(sources, "parquet:own/first.parquet", "is a file", "parquet:DIR?train=FILE.parquet")
