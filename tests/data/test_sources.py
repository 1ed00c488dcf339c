import hashlib
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lifelong.data import decoding
from lifelong.data.known_sources import CIFAR10, CIFAR100, CIFAR100_COARSE, DTD, KNOWN_SOURCES
from lifelong.data.sources import Sources
from tests.data.reading import fails, numbers
from tests.parquet_files import made_folder, numbered, png, write_parquet

# -- what is read ----------------------------------------------------------------------------------------------------------------


def test_a_folder_of_ones_own(sources, tmp_path):
    made_folder(tmp_path / "data" / "birds", [300, 5], [4, 3], names=["crow", "owl"])
    source = sources.open("parquet:birds")
    assert source.name == "parquet:birds"
    assert source.classes == ("crow", "owl")
    assert not source.mirror
    assert source.has_split("test")
    assert source.labels("train").bincount().tolist() == [300, 5]
    assert numbers(source.images("train", torch.tensor([304, 0, 7]), 4)) == [304, 0, 7]
    assert numbers(source.images("test", torch.arange(7), 4)) == list(range(305, 312))
    assert source.fingerprint("train") != source.fingerprint("test")
    assert sources.open("parquet:birds") is source


def test_several_files_make_one_split(sources, tmp_path):
    folder = tmp_path / "data" / "own"
    encoded = [png(pixels) for pixels in numbered(10)]
    write_parquet(folder / "train-00001.parquet", encoded[6:], {"label": [1, 1, 1, 0]})
    write_parquet(folder / "train-00000.parquet", encoded[:6], {"label": [0, 0, 0, 1, 1, 2]})
    source = sources.open("parquet:own")
    assert source.classes == ("0", "1", "2")
    assert not source.has_split("test")
    assert source.labels("train").tolist() == [0, 0, 0, 1, 1, 2, 1, 1, 1, 0]
    assert numbers(source.images("train", torch.arange(10), 4)) == list(range(10))


def test_plain_bytes_and_names_as_labels(sources, tmp_path):
    folder = tmp_path / "data" / "own"
    encoded = [png(pixels) for pixels in numbered(3)]
    write_parquet(folder / "train-0.parquet", encoded, {"label": ["owl", "crow", "owl"]}, plain_bytes=True)
    write_parquet(folder / "test-0.parquet", encoded, {"label": pa.array(["owl", "hen", "owl"]).dictionary_encode()}, plain_bytes=True)
    source = sources.open("parquet:own")
    assert source.classes == ("crow", "hen", "owl")
    assert source.labels("train").tolist() == [2, 0, 2]
    assert source.labels("test").tolist() == [2, 1, 2]
    assert numbers(source.images("train", torch.tensor([2, 1]), 4)) == [2, 1]


def test_a_folder_beside_the_stream_file(sources, tmp_path):
    made_folder(tmp_path / "elsewhere" / "birds", [2, 2], None)
    assert sources.open("parquet:birds", tmp_path / "elsewhere").labels("train").shape == (4,)
    made_folder(tmp_path / "data" / "birds", [3, 3], None)  # the data folder comes first
    assert sources.open("parquet:birds", tmp_path / "elsewhere").labels("train").shape == (6,)
    assert sources.open(f"parquet:{tmp_path}/elsewhere/birds").labels("train").shape == (4,)


@pytest.mark.parametrize("beginning", ["valid", "validation"])
def test_a_valid_split_of_its_own(sources, tmp_path, beginning):
    folder = made_folder(tmp_path / "data" / "birds", [3, 3], [2, 2])
    write_parquet(
        folder / f"{beginning}-0.parquet",
        [png(pixels) for pixels in numbered(2, start=50)],
        {"label": [1, 0]},
        names={"label": ["c0", "c1"]},
    )
    source = sources.open("parquet:birds")
    assert source.has_split("valid")
    assert source.labels("valid").tolist() == [1, 0]
    assert numbers(source.images("valid", torch.tensor([1, 0]), 4)) == [51, 50]
    assert len({source.fingerprint(split) for split in ("train", "valid", "test")}) == 3


def test_two_names_for_the_valid_split(sources, tmp_path):
    folder = made_folder(tmp_path / "data" / "birds", [3, 3], None)
    for beginning in ("valid", "validation"):
        (folder / f"{beginning}-0.parquet").write_bytes((folder / "train-00000.parquet").read_bytes())
    fails(sources, "parquet:birds", "valid-0.parquet and validation-0.parquet", "keep one")


def test_files_that_make_one_pool(sources, tmp_path):
    """DTD's training and validation images together make train; all of CelebA is one pool in the order of the file numbers."""
    for name, column, labels in (("dtd", "label", [46, 0, 1]), ("celeba", "Smiling", [True, False, True])):
        for start, split in ((0, "train"), (3, "validation"), (6, "test")):
            encoded = [png(pixels) for pixels in numbered(3, start=start)]
            words = {"label": DTD} if name == "dtd" else None
            write_parquet(tmp_path / "data" / name / f"{split}-0.parquet", encoded, {column: labels}, names=words)
    dtd = sources.open("dtd")
    assert not dtd.has_split("valid")
    assert dtd.labels("train").tolist() == [46, 0, 1] * 2
    assert numbers(dtd.images("train", torch.arange(6), 4)) == list(range(6))
    assert numbers(dtd.images("test", torch.arange(3), 4)) == [6, 7, 8]
    celeba = sources.open("celeba")
    assert not celeba.has_split("valid")
    assert not celeba.has_split("test")
    assert celeba.labels("train").tolist() == [1, 0, 1] * 3
    assert numbers(celeba.images("train", torch.arange(9), 4)) == list(range(9))


def test_contents_are_hashes_of_the_stored_bytes_and_remembered(sources, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "own"
    encoded = [png(pixels) for pixels in numbered(5)]
    write_parquet(folder / "train-0.parquet", [encoded[2], encoded[0], encoded[2]], {"label": [0, 1, 0]})
    write_parquet(folder / "test-0.parquet", [encoded[0], encoded[4]], {"label": [0, 1]}, plain_bytes=True)
    source = sources.open("parquet:own")
    train, test = source.contents("train"), source.contents("test")
    assert train.dtype == np.uint64
    assert train.tolist() == [int(hashlib.sha256(encoded[number]).hexdigest()[:16], 16) for number in (2, 0, 2)]
    assert test[0] == train[1]
    assert test[1] not in train

    monkeypatch.setattr("lifelong.data.parquet.ParquetSplit.images", lambda *args: pytest.fail("read again"))
    again = Sources(tmp_path / "data", cache=tmp_path / "cache").open("parquet:own")
    assert np.array_equal(again.contents("train"), train)


@pytest.mark.parametrize("damage", [b"", b"x", "truncated", "another kind"])
def test_damaged_contents_are_made_again(sources, tmp_path, damage):
    made_folder(tmp_path / "data" / "birds", [4, 4], None)
    source = sources.open("parquet:birds")
    good = source.contents("train")
    (file,) = (tmp_path / "cache" / "contents").iterdir()
    if damage == "another kind":
        with file.open("wb") as opened:
            np.save(opened, good.astype(np.int64))
    else:
        file.write_bytes(file.read_bytes()[:-3] if damage == "truncated" else damage)
    assert np.array_equal(source.contents("train"), good)


def test_contents_of_digits():
    contents = Sources().open("digits").contents("train")
    assert len(set(contents.tolist())) == len(contents) == 1797


def test_nothing_is_decoded_before_images_are_asked_for(sources, tmp_path, monkeypatch):
    made_folder(tmp_path / "data" / "birds", [4, 4], [2, 2])
    decoded = []
    monkeypatch.setattr(decoding.Image, "open", lambda *args, **more: decoded.append(args))
    source = sources.open("parquet:birds")
    source.labels("train"), source.labels("test"), source.fingerprint("train")
    assert not decoded


def test_names_of_the_catalogue_hold_by_place(sources, tmp_path):
    words = ["cra" if word == "crab" else word for word in CIFAR100]
    encoded = [png(pixels) for pixels in numbered(3)]
    columns = {"fine_label": [26, 0, 99], "coarse_label": [14, 1, 2]}
    write_parquet(
        tmp_path / "data" / "cifar100" / "train-0.parquet",
        encoded,
        columns,
        names={"fine_label": words, "coarse_label": CIFAR100_COARSE},
        image_column="img",
    )
    fine, coarse = sources.open("cifar100"), sources.open("cifar100-coarse")
    assert fine.classes[int(fine.labels("train")[0])] == "crab"
    assert coarse.classes[int(coarse.labels("train")[0])] == "people"
    assert fine.fingerprint("train") == coarse.fingerprint("train")


def test_another_order_of_the_same_names_becomes_the_usual_one(sources, tmp_path):
    words = CIFAR10[::-1]
    images = [png(pixels) for pixels in numbered(2)]
    write_parquet(tmp_path / "data" / "cifar10" / "train-0.parquet", images, {"label": [0, 3]}, names={"label": words})
    source = sources.open("cifar10")
    assert source.classes == CIFAR10
    assert [source.classes[number] for number in source.labels("train")] == [words[0], words[3]]


def test_celeba_smiles(sources, tmp_path):
    encoded = [png(pixels) for pixels in numbered(3)]
    write_parquet(tmp_path / "data" / "celeba" / "train-0.parquet", encoded, {"celeb_id": [5, 6, 7], "Smiling": [True, False, True]})
    source = sources.open("celeba")
    assert source.classes == ("not smiling", "smiling")
    assert source.labels("train").tolist() == [1, 0, 1]
    assert source.mirror


def test_digits():
    source = Sources().open("digits")
    assert source.classes == tuple("0123456789")
    assert not source.has_split("test")
    assert not source.mirror
    assert source.labels("train").bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    pixels = source.images("train", torch.arange(1797), 8)
    assert pixels.shape == (1797, 3, 8, 8)
    assert pixels[0, :, 0].tolist() == [[0, 0, 80, 207, 143, 16, 0, 0]] * 3  # 0 0 5 13 9 1 0 0 of 16
    assert len(pixels.flatten(1).unique(dim=0)) == 1797, "no image occurs twice, so disjoint places are disjoint images"
    assert source.images("train", torch.tensor([5]), 32).shape == (1, 3, 32, 32)


def test_the_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    known, source = datasets.load_digits(), Sources().open("digits")
    grey = torch.from_numpy((known.images * (255 / 16)).round().astype(np.uint8))
    assert torch.equal(source.images("train", torch.arange(1797), 8), grey[:, None].repeat(1, 3, 1, 1))
    assert torch.equal(source.labels("train"), torch.from_numpy(known.target))


def test_reading_digits_imports_nothing_heavy():
    script = (
        "import sys; from lifelong.data.sources import Sources; Sources().open('digits');"
        " print(*{'sklearn', 'scipy', 'pandas', 'pyarrow', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_catalogue_is_whole():
    assert set(KNOWN_SOURCES) >= {"digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "dtd", "mini_imagenet", "celeba"}
    assert (len(CIFAR100), len(CIFAR100_COARSE), len(DTD)) == (100, 20, 47)
    for words in (CIFAR100, CIFAR100_COARSE, DTD):
        assert list(words) == sorted(set(words))
    assert [name for name, entry in KNOWN_SOURCES.items() if not entry.mirror] == ["digits", "mnist", "svhn"]


# -- real images -----------------------------------------------------------------------------------------------------------------


def test_real_images(data_folder, tmp_path, monkeypatch):
    sources = Sources(data_folder, cache=tmp_path)
    source = sources.open("parquet:dtd10")
    assert source.labels("train").bincount().tolist() == [80] * 10
    picked = torch.tensor([799, 0, 400])
    pixels = source.images("train", picked, 32)
    assert pixels.shape == (3, 3, 32, 32)
    assert len(pixels.flatten(1).unique(dim=0)) == 3
    monkeypatch.setattr(decoding.Image, "open", lambda *args, **more: pytest.fail("decoded again"))
    again = Sources(data_folder, cache=tmp_path).open("parquet:dtd10")
    assert torch.equal(again.images("train", picked, 32), pixels)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "cifar100-coarse", "mini_imagenet"])
def test_real_sources_open(data_folder, tmp_path, name):
    source = Sources(data_folder, cache=tmp_path).open(name)
    counts = source.labels("train").bincount(minlength=len(source.classes))
    assert len(counts) == len(source.classes)
    assert counts.min() > 0
    assert source.has_split("test")
    stored = json.loads(pq.read_schema(next((data_folder / name.removesuffix("-coarse")).glob("train-*"))).metadata[b"huggingface"])
    column = "coarse_label" if name.endswith("coarse") else "label"
    words = stored["info"]["features"][column]["names"]
    assert sorted(source.classes) == sorted(words)
    if name != "mini_imagenet":
        assert source.classes == tuple(words)
