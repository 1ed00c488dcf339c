"""Sources that cannot be read are refused in one line."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
from tests.data.reading import fails
from tests.parquet_files import made_folder, numbered, png, write_parquet


def test_unknown_and_missing_sources(sources, tmp_path, monkeypatch):
    fails(sources, "mnits", "unknown source 'mnits'", "did you mean 'mnist'?")
    fails(sources, "svhn", "'svhn'", str(tmp_path / "data" / "svhn"), "--data DIR", "LIFELONG_DATA", "--download")
    fails(sources, "parquet:nowhere", "'parquet:nowhere'", str(tmp_path / "data" / "nowhere"), "--data DIR")
    monkeypatch.delenv("LIFELONG_DATA", raising=False)
    fails(Sources(cache=tmp_path), "svhn", "no data folder was given", "--data DIR", "--download")
    monkeypatch.setenv("LIFELONG_DATA", str(tmp_path / "env"))
    fails(Sources(cache=tmp_path), "svhn", str(tmp_path / "env" / "svhn"))


def test_a_part_of_a_source_does_not_pass_for_it(sources, tmp_path):
    made_folder(tmp_path / "data" / "dtd", [1] * 10, None)
    fails(sources, "dtd", "10 classes where source 'dtd' has 47", "parquet:dtd")


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -30])
def test_truncated_files(sources, tmp_path, keep):
    file = made_folder(tmp_path / "data" / "birds", [50, 50], None) / "train-00000.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    fails(sources, "parquet:birds", str(file), "truncated or not a parquet file")


def test_damage_inside_a_file(sources, tmp_path):
    file = made_folder(tmp_path / "data" / "birds", [50, 50], None) / "train-00000.parquet"
    content = bytearray(file.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    file.write_bytes(content)
    fails(sources, "parquet:birds", "train-00000.parquet", "truncated or not a parquet file")  # before an image is asked for


def test_a_broken_image_is_named_by_file_and_row(sources, tmp_path):
    encoded = [png(pixels) for pixels in numbered(1500)]
    encoded[1300] = encoded[1300][:50]
    file = write_parquet(tmp_path / "data" / "own" / "train-0.parquet", encoded, {"label": [0, 1] * 750})
    source = sources.open("parquet:own")
    with pytest.raises(LifelongError, match=r"row 1300 of train-0\.parquet \(truncated\)") as caught:
        source.images("train", torch.tensor([0]), 4)
    assert f"1 of 1500 images of 'parquet:own' (train) in {file.parent} cannot be used" in str(caught.value)


def test_wrong_columns_and_labels(sources, tmp_path):
    def own(name: str, columns: dict, **more) -> Path:
        return write_parquet(tmp_path / "data" / name / "train-0.parquet", [png(numbered(1)[0])] * 2, columns, **more)

    own("a", {"class": [0, 1]})
    fails(sources, "parquet:a", "train-0.parquet: no column 'label'", "image, class")
    own("b", {"label": [0, 1]}, image_column="picture")
    fails(sources, "parquet:b", "no column 'image'")
    own("c", {"label": [0.5, 1.0]})
    fails(sources, "parquet:c", "holds double")
    own("d", {"label": [0, None]})
    fails(sources, "parquet:d", "1 rows of column 'label' are empty")
    own("e", {"label": [0, -1]})
    fails(sources, "parquet:e", "row 1 of train has label -1")
    own("f", {"label": [0, 2]}, names={"label": ["x", "y"]})
    fails(sources, "parquet:f", "row 1 of train has label 2, outside 0..1")
    own("g", {"label": [0, 1]}, names={"label": ["x", "y"]})
    write_parquet(tmp_path / "data" / "g" / "test-0.parquet", [png(numbered(1)[0])], {"label": [0]}, names={"label": ["y", "x"]})
    fails(sources, "parquet:g", "g: the classes of test are not those of train")
    own("h", {"label": [0, 1]})
    write_parquet(tmp_path / "data" / "h" / "test-0.parquet", [png(numbered(1)[0])], {"label": ["x"]})
    fails(sources, "parquet:h", "numbers and names")
    pq.write_table(pa.table({"image": ["path"], "label": [0]}), own("i", {"label": [0, 1]}))
    with pytest.raises(LifelongError, match="column 'image' holds string"):
        sources.open("parquet:i").images("train", torch.tensor([0]), 4)
    own("j", {"label": ["x", "cat"]})
    (tmp_path / "data" / "j").rename(tmp_path / "data" / "cifar10")
    fails(sources, "cifar10", "a label of train is 'x'")
    table = pq.read_table(own("k", {"label": [0, 1]})).replace_schema_metadata({b"huggingface": b"{"})
    pq.write_table(table, tmp_path / "data" / "k" / "train-0.parquet")
    fails(sources, "parquet:k", "'huggingface' header")
    pq.write_table(pq.read_table(own("l", {"label": [0, 1]})).slice(0, 0), tmp_path / "data" / "l" / "train-0.parquet")
    fails(sources, "parquet:l", "train-0.parquet: no rows")
