"""Which parquet files make which split, and that each is there once."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lifelong.data.shards import gaps
from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
from lifelong.streams.named_streams import open_stream
from tests.parquet_files import numbered, png, write_parquet


def lay(folder, *names: str) -> None:
    """Files of two images each, numbered through."""
    for number, name in enumerate(names):
        write_parquet(folder / name, [png(pixels) for pixels in numbered(2, start=2 * number)], {"label": [0, 1]})


def opened(tmp_path, options: str = ""):
    return Sources(None, cache=tmp_path / "cache").open(f"parquet:{tmp_path / 'own'}{options}")


def numbers(source, split="train") -> list[int]:
    return source.images(split, torch.arange(len(source.labels(split))), 4)[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"], "train 0123 test 45"),
        (["train-00000-of-00001-0123456789abcdef.parquet"], "train 01"),
        (["train.parquet", "val.parquet", "test.parquet"], "train 01 valid 23 test 45"),
        (["train/0000.parquet", "train/0001.parquet", "validation/0000.parquet"], "train 0123 valid 45"),
        (["training-0.parquet", "testing-0.parquet", "dev-0.parquet"], "train 01 valid 45 test 23"),
        (["train-1-of-2.parquet", "train-2-of-2.parquet"], "train 0123"),
        (["train-0.parquet", "._train-1.parquet", "notes.parquet", "train/._0.parquet"], "train 01"),
    ],
)
def test_every_usual_layout_is_read(tmp_path, names, splits):
    lay(tmp_path / "own", *names)
    source, words = opened(tmp_path), splits.split()
    assert {split: numbers(source, split) for split in words[::2]} == {
        split: [int(digit) for digit in digits] for split, digits in zip(words[::2], words[1::2], strict=True)
    }
    assert [split for split in ("train", "valid", "test") if source.has_split(split)] == words[::2]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"], ["1 of 3 shards missing, the first is number 1"]),
        (["train-00000-of-00001.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], ["two copies of one split"]),
        (["train-00000-of-00001-aaaa.parquet", "train-00000-of-00001-bbbb.parquet"], ["two copies", "train-00000-of-00001-bbbb.parquet"]),
        (["train-0-of-1.parquet", "train-1-of-1.parquet"], ["more than 1 shards"]),
        (["train-00000-of-00001.parquet", "train-0.parquet"], ["two copies"]),
        (["train.parquet", "train/0.parquet"], ["train.parquet", "train/0.parquet", "two names for one split"]),
        (["train-0.parquet", "test/0.parquet", "testing.parquet"], ["two names for one split"]),
        (["train-0.parquet", "eval-0.parquet"], ["'eval' may mean validation or test", "?train=train&test=eval, or &valid=eval"]),
        (["data.parquet"], ["no train-*.parquet", "?train=data.parquet"]),
        (["data/train-0.parquet"], ["name its folder: parquet:", "own/data)"]),
        (["default/train/0.parquet"], ["name its folder: parquet:", "own/default)"]),
    ],
)
def test_what_is_missing_or_doubled_is_refused_with_the_way_out(tmp_path, names, words):
    lay(tmp_path / "own", *names)
    with pytest.raises(LifelongError) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_named_files_are_read_as_they_are_named(tmp_path):
    lay(tmp_path / "own", "train-0-of-3.parquet", "train-2-of-3.parquet", "eval/0.parquet")
    source = opened(tmp_path, "?train=train-0-of-3.parquet+train-2-of-3.parquet&test=eval")
    assert (numbers(source), numbers(source, "test")) == ([0, 1, 2, 3], [4, 5])
    with pytest.raises(LifelongError, match="1 of 3 shards missing"):
        opened(tmp_path, "?train=train&test=eval")
    for twice in ("?train=eval+eval", "?train=eval&test=eval"):
        with pytest.raises(LifelongError, match="'eval' is named twice"):
            opened(tmp_path, twice)


def test_a_hole_in_the_numbers_is_noted(tmp_path):
    lay(tmp_path / "own", "train-00000.parquet", "train-00003.parquet")
    assert opened(tmp_path).notes == ("Files seem to be missing, by their numbers: train-00001.parquet, train-00002.parquet.",)
    assert gaps([tmp_path / "train-1.parquet", tmp_path / "train-2.parquet", tmp_path / "train-0-of-9.parquet"]) == []


def test_views_are_read(tmp_path):
    """The newer string and binary types of Arrow."""
    encoded = [png(pixels) for pixels in numbered(3)]
    table = pa.table({"image": pa.array(encoded, pa.binary_view()), "label": pa.array(["b", "a", "b"], pa.string_view())})
    (tmp_path / "own").mkdir()
    pq.write_table(table, tmp_path / "own" / "train.parquet")
    source = opened(tmp_path)
    assert source.classes == ("a", "b")
    assert source.labels("train").tolist() == [1, 0, 1]
    assert numbers(source) == [0, 1, 2]


def test_a_column_of_splits_divides_the_rows(tmp_path):
    encoded = [png(pixels) for pixels in numbered(6)]
    words = ["train", "test", "train", "val", "test", "train"]
    write_parquet(tmp_path / "own" / "all.parquet", encoded, {"label": list("abbaba"), "split": words})
    source = opened(tmp_path, "?train=all.parquet")
    assert [numbers(source, split) for split in ("train", "valid", "test")] == [[0, 2, 5], [3], [1, 4]]
    assert [source.labels(split).tolist() for split in ("train", "valid", "test")] == [[0, 1, 0], [0], [1, 1]]
    assert len({source.fingerprint(split) for split in ("train", "valid", "test")}) == 3
    broken = [*encoded[:2], encoded[2][:45], *encoded[3:]]
    write_parquet(tmp_path / "own" / "all.parquet", broken, {"label": list("abbaba"), "split": words})
    source = Sources(None, cache=tmp_path / "cache", skip_broken=True).open(f"parquet:{tmp_path / 'own'}?train=all.parquet")
    assert [numbers(source, split) for split in ("train", "valid", "test")] == [[0, 5], [3], [1, 4]]
    (note,) = source.notes
    assert "(train) cannot be used and are left out: row 2 of all.parquet (truncated)." in note


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "eval"], "'eval' may mean validation or test"),
        (["valid", "test"], "no row of column 'split' is for train"),
    ],
)
def test_a_column_of_splits_that_cannot_be_used(tmp_path, words, line):
    write_parquet(tmp_path / "own" / "train.parquet", [png(pixels) for pixels in numbered(2)], {"label": [0, 1], "split": words})
    with pytest.raises(LifelongError, match=line):
        opened(tmp_path)


def test_a_column_of_other_words_is_not_used(tmp_path):
    columns = {"label": [0, 1, 0], "usage": ["Training", "PublicTest", None]}
    write_parquet(tmp_path / "own" / "train.parquet", [png(pixels) for pixels in numbered(3)], columns)
    source = opened(tmp_path)
    assert len(source.labels("train")) == 3
    (note,) = source.notes
    assert note.startswith("Column 'usage' of train.parquet is not used: it holds 'PublicTest'")
    columns = {"label": [0, 1, 0], "set": ["a", "b", "c"]}
    write_parquet(tmp_path / "own" / "train.parquet", [png(pixels) for pixels in numbered(3)], columns)
    assert opened(tmp_path).notes == (), "no word of a split in it"


def test_a_stream_calls_classes_by_their_numbers(tmp_path):
    encoded = [png(pixels) for pixels in numbered(40)]
    write_parquet(tmp_path / "own" / "train.parquet", encoded, {"label": [[0, 3, 7, 20][number % 4] for number in range(40)]})
    file = tmp_path / "own.toml"
    file.write_text('[[task]]\nname = "a"\nsource = "parquet:own"\nclasses = [20, 3]\n')
    stream = open_stream(str(file), 0, Sources(None, cache=tmp_path / "cache"))
    assert stream[0].classes == ("20", "3")
    assert {int(number) % 4 for number in stream[0].train.images[stream[0].train.labels == 0][:, 0, 0, 0]} == {3}
    file.write_text(file.read_text().replace("20, 3", "20, 2"))
    with pytest.raises(LifelongError, match="class 2: source 'parquet:own' has the class ids 0, 3, 7, 20"):
        open_stream(str(file), 0, Sources(None, cache=tmp_path / "cache")).describe()


def test_a_class_of_test_alone(tmp_path):
    write_parquet(tmp_path / "own" / "train.parquet", [png(pixels) for pixels in numbered(20)], {"label": ["a", "b"] * 10})
    write_parquet(tmp_path / "own" / "test.parquet", [png(pixels) for pixels in numbered(3, start=20)], {"label": ["a", "b", "c"]})
    with pytest.raises(LifelongError, match=r"class 'c' of source .*: no training image \(1 in test\)"):
        open_stream(f"parquet:{tmp_path / 'own'}?tasks=1", 0, Sources(None, cache=tmp_path / "cache")).describe()


def test_a_column_of_splits_against_the_files(tmp_path):
    two = [png(pixels) for pixels in numbered(2)]
    write_parquet(tmp_path / "own" / "train.parquet", two, {"label": [0, 1], "split": ["train", "train"]})
    write_parquet(tmp_path / "own" / "test.parquet", two, {"label": [0, 1], "split": ["test", "train"]})
    with pytest.raises(LifelongError, match=r"row 1 of test\.parquet is for train by its column 'split', but the file is read as test"):
        opened(tmp_path)


# -- classes are the values that are there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([1, 2, 3, 4], ("1", "2", "3", "4")),
        ([0, 3, 7, 20], ("0", "3", "7", "20")),
        ([10_000_007, 10_000_009, 9_999_999, 12], ("12", "9999999", "10000007", "10000009")),
        ([3_000_000_000, 2**62, 1, 3_000_000_001], ("1", "3000000000", "3000000001", str(2**62))),
    ],
)
def test_numbers_are_classes_as_they_occur(tmp_path, labels, classes):
    write_parquet(tmp_path / "own" / "train.parquet", [png(pixels) for pixels in numbered(4)], {"label": labels})
    source = opened(tmp_path)
    assert source.classes == classes
    assert [int(source.classes[number]) for number in source.labels("train")] == labels
    assert source.numbers == tuple(sorted(labels))


def test_of_the_names_of_a_header_those_that_occur_are_classes(tmp_path):
    names = {"label": ["ant", "bee", "cow", "dog", "elk", "fox"]}
    write_parquet(tmp_path / "own" / "train.parquet", [png(pixels) for pixels in numbered(4)], {"label": [5, 1, 2, 1]}, names=names)
    write_parquet(tmp_path / "own" / "test.parquet", [png(pixels) for pixels in numbered(2, start=9)], {"label": [2, 4]}, names=names)
    source = opened(tmp_path)
    assert source.classes == ("bee", "cow", "elk", "fox")
    assert source.labels("train").tolist() == [3, 0, 1, 0]
    assert source.labels("test").tolist() == [1, 2]
    assert source.numbers == (1, 2, 4, 5)
    assert source.notes == ("2 of the 6 classes that the files name have no image and are left out: ant, dog.",)
