"""Parquet files that end their reader or fill its memory, read in a process of their own."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lifelong.data import cache, columns, vetting
from lifelong.data.parquet import ParquetSplit
from lifelong.errors import LifelongError
from tests.parquet_files import made_folder

COLUMNS = ("image",), ("label",)


def repeated(file: Path, column: str, value: bytes | str, rows: int) -> Path:
    """A file whose rows all have one large value, which is stored once."""
    once = pa.concat_arrays([pa.array([value])] * 8)
    plenty = pa.chunked_array([once] * (rows // 8))
    small = pa.array([b"x"] * len(plenty)) if column == "label" else pa.array([0, 1] * (len(plenty) // 2))
    table = pa.table({column: plenty, {"image": "label", "label": "image"}[column]: small})
    pq.write_table(table, file, compression="zstd", dictionary_pagesize_limit=2**30, row_group_size=2**24)
    return file


def test_a_good_file_passes_once(tmp_path, monkeypatch):
    file = made_folder(tmp_path / "birds", [5, 5], None) / "train-00000.parquet"
    asked = []
    kept = cache.Cache(tmp_path / "cache")
    for _ in range(2):
        kept.vetted([file], "first", lambda news: (asked.append(len(news)), vetting.read_apart(news, *COLUMNS))[0])
    assert asked == [1]
    file.write_bytes(file.read_bytes())  # other times
    kept.vetted([file], "first", lambda news: asked.append(len(news)))
    kept.vetted([file], "another check", lambda news: asked.append(len(news)))
    assert asked == [1, 1, 1]


def test_what_ends_the_reader_ends_it_elsewhere(tmp_path, monkeypatch):
    good = made_folder(tmp_path / "birds", [5, 5], None) / "train-00000.parquet"
    bad = good.with_name("train-00001.parquet")
    bad.write_bytes(good.read_bytes())
    # A Python whose reader aborts on one file, as one that was made to do so would.
    aborting = f"import os; from lifelong.data import columns; old = columns.read_labels\n{vetting._MAIN}"
    aborting = aborting.replace("; main()", "; from lifelong.data import vetting; read = vetting._read\n")
    aborting += f"vetting._read = lambda file, *rest: os.abort() if file.name == {bad.name!r} else read(file, *rest)\nvetting.main()"
    monkeypatch.setattr(vetting, "_MAIN", f"import sys, json; sys.path[:] = json.loads(sys.argv[1])\n{aborting}")
    vetting.read_apart([good], *COLUMNS)
    with pytest.raises(LifelongError, match=rf"{bad}: the process that read it was ended by SIGABRT; it is damaged") as caught:
        vetting.read_apart([good, bad], *COLUMNS)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no other system counts the address space")
def test_what_fills_the_memory_fills_that_of_another_process(tmp_path, monkeypatch):
    small = "; from lifelong.data import vetting; vetting.MEMORY = 2**28; main()"
    monkeypatch.setattr(vetting, "_MAIN", vetting._MAIN.replace("; main()", small))
    file = repeated(tmp_path / "train.parquet", "label", "a" * 2**20, 1000)
    assert file.stat().st_size < 3000  # and a GB unpacked
    with pytest.raises(LifelongError, match="takes more than"):
        vetting.read_apart([file], *COLUMNS)


def test_images_that_unpack_to_far_more_than_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "MOST_UNPACKED", 2**25)
    file = repeated(tmp_path / "train.parquet", "image", bytes(2**20), 64)
    assert file.stat().st_size < 10_000
    with pytest.raises(LifelongError, match="its images unpack to more than 100 times its size"):
        list(columns.read_images(file, "image"))
    monkeypatch.setattr(columns, "MOST_UNPACKED", 2**30)
    assert sum(len(batch) for batch in columns.read_images(file, "image")) == 64


def test_more_rows_than_bytes(tmp_path, monkeypatch):
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": pa.nulls(100_000, pa.binary()), "label": pa.array([0] * 100_000)}), file)
    vetting.read_apart([file], *COLUMNS)  # few enough, whatever the file's size
    monkeypatch.setattr(columns, "MOST_ROWS", 1000)
    assert file.stat().st_size < 100_000
    with pytest.raises(LifelongError, match=r"claims 100000 rows in \d+ bytes"):
        ParquetSplit([file], *COLUMNS)


@pytest.mark.parametrize("column", ["label", "split"])
def test_text_that_is_no_utf8(tmp_path, column):
    torn = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    table = pa.table({"image": pa.array([b"x", b"y"]), "label": pa.array(["a", "b"]), column: torn})
    file = tmp_path / "train.parquet"
    pq.write_table(table, file)
    with pytest.raises(LifelongError, match="holds text that is not UTF-8") as caught:
        columns.read_labels(file, "label") if column == "label" else columns.read_words(file)
    assert str(file) in str(caught.value)
