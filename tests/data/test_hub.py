"""Sources of the hub, through a made `datasets` library; and what happens without a network."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from lifelong.data import hub
from lifelong.data.known_sources import CIFAR10, CIFAR100, CIFAR100_COARSE, DIGITS, DTD, FASHION, KNOWN_SOURCES, MINI_IMAGENET
from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
from tests.parquet_files import numbered, png

ROOT = Path(__file__).parents[2]

# What the hub holds, written down from the facts apart from the catalogue: id, configuration, image column, label columns with their
# class names (None: whole numbers, "bool": truth values), splits; then what must come of it: splits of the source and the hub's parts.
MISSPELT = tuple("cra" if word == "crab" else word for word in CIFAR100)
SPACED = ("T - shirt / top", *FASHION[1:])
TABLE = {
    "cifar10": ("uoft-cs/cifar10", "plain_text", "img", {"label": CIFAR10}, {"train": ["train"], "test": ["test"]}),
    "cifar100": (
        "uoft-cs/cifar100",
        None,
        "img",
        {"fine_label": MISSPELT, "coarse_label": CIFAR100_COARSE},
        {"train": ["train"], "test": ["test"]},
    ),
    "cifar100-coarse": (
        "uoft-cs/cifar100",
        None,
        "img",
        {"fine_label": MISSPELT, "coarse_label": CIFAR100_COARSE},
        {"train": ["train"], "test": ["test"]},
    ),
    "mnist": ("ylecun/mnist", "mnist", "image", {"label": DIGITS}, {"train": ["train"], "test": ["test"]}),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", None, "image", {"label": SPACED}, {"train": ["train"], "test": ["test"]}),
    "svhn": ("ufldl-stanford/svhn", "cropped_digits", "image", {"label": DIGITS}, {"train": ["train"], "test": ["test"]}),
    "dtd": ("mcimpoi/dtd_split_1", None, "image", {"label": DTD}, {"train": ["train", "validation"], "test": ["test"]}),
    "mini_imagenet": ("GATE-engine/mini_imagenet", None, "image", {"label": None}, {"train": ["train", "validation", "test"]}),
    "mini_imagenet-timm": (
        "timm/mini-imagenet",
        None,
        "image",
        {"label": tuple(sorted(MINI_IMAGENET))},
        {"train": ["train", "validation"]},
    ),
    "celeba": (
        "flwrlabs/celeba",
        "img_align+identity+attr",
        "image",
        {"celeb_id": None, "Male": "bool", "Smiling": "bool"},
        {"train": ["train", "valid", "test"]},
    ),
}
RULING = {"cifar100": "fine_label", "cifar100-coarse": "coarse_label", "celeba": "Smiling"}
COUNTS = {"train": 6, "validation": 4, "valid": 4, "test": 2}
GATE = {"train": 64, "validation": 16, "test": 20}


def made(name: str, split: str, start: int) -> datasets.Dataset:
    """A split of a data set of the hub: small, of the same columns, its images numbered from `start`."""
    _, _, image, columns, _ = TABLE[name]
    count = GATE[split] if name == "mini_imagenet" else COUNTS[split]
    features: dict = {image: datasets.Image()}
    rows: dict = {image: [{"bytes": png(pixels), "path": None} for pixels in numbered(count, 4, start)]}
    for column, names in columns.items():
        if names is None:
            features[column], rows[column] = datasets.Value("int64"), list(range(count))
        elif names == "bool":
            features[column], rows[column] = datasets.Value("bool"), [number % 3 == 0 for number in range(count)]
        else:
            assert isinstance(names, tuple)
            features[column] = datasets.ClassLabel(names=list(names))
            rows[column] = [(start + 7 * number) % len(names) for number in range(count)]
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


@pytest.fixture
def fake_hub(monkeypatch) -> Callable[[str], list]:
    """Put a data set of the table onto the hub; what is asked of it is noted."""

    def put(name: str) -> list:
        asked: list = []

        def load(hub_id, config, split):
            asked.append((hub_id, config, split))
            assert (hub_id, config) == TABLE[name][:2]
            return made(name, split, 100 * list(COUNTS).index(split))

        monkeypatch.setattr(datasets, "load_dataset", load)
        monkeypatch.setattr(hub, "_knock", lambda hub_id: None)
        return asked

    datasets.disable_progress_bars()
    return put


@pytest.mark.parametrize("name", TABLE)
def test_every_source_of_the_catalogue(fake_hub, tmp_path, name):
    hub_id, config, _, _, splits = TABLE[name]
    asked = fake_hub(name)
    with pytest.raises(LifelongError, match="allow the download with --download"):
        Sources(tmp_path / "data", cache=tmp_path / "cache").open(name)
    assert not asked
    source = Sources(tmp_path / "data", download=True, cache=tmp_path / "cache").open(name)
    assert sorted(asked) == sorted((hub_id, config, part) for parts in splits.values() for part in parts)
    assert [split for split in ("train", "valid", "test") if source.has_split(split)] == list(splits)
    for split, parts in splits.items():
        wanted = [made(name, part, 100 * list(COUNTS).index(part)) for part in parts]
        images = source.images(split, torch.arange(len(source.labels(split))), 4)
        starts = [100 * list(COUNTS).index(part) for part in parts]
        order = [start + number for start, rows in zip(starts, wanted, strict=True) for number in range(len(rows))]
        assert (images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long()).tolist() == order
        stored = np.concatenate([rows[RULING.get(name, "label")] for rows in wanted]).astype(int).tolist()
        labels = source.labels(split).tolist()
        if name == "mini_imagenet":
            assert labels == list(range(100)), "numbered from 0 in each part"
        elif name == "mini_imagenet-timm":
            assert [source.classes[label] for label in labels] == [sorted(MINI_IMAGENET)[label] for label in stored]
        else:
            assert labels == stored
    assert source.classes == KNOWN_SOURCES[name].classes

    again = Sources(tmp_path / "data", cache=tmp_path / "cache").open(name)
    assert again.fingerprint("train") == source.fingerprint("train")
    assert len(asked) == sum(map(len, splits.values())), "fetched once"


def test_every_source_of_the_catalogue_is_in_the_table():
    assert {name for name, entry in KNOWN_SOURCES.items() if entry.hub is not None} == set(TABLE)


def birds(monkeypatch, splits: dict[str, int]) -> list:
    asked: list = []
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["crow", "owl"])})

    def load(hub_id, config, split):
        asked.append((hub_id, config, split))
        images = [{"bytes": png(pixels), "path": None} for pixels in numbered(splits[split], 4, 10 * list(splits).index(split))]
        return datasets.Dataset.from_dict({"picture": images, "kind": [number % 2 for number in range(splits[split])]}, features=features)

    datasets.disable_progress_bars()
    monkeypatch.setattr(hub, "_knock", lambda hub_id: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda hub_id, config: list(splits))
    return asked


def test_any_data_set_of_the_hub(monkeypatch, tmp_path):
    asked = birds(monkeypatch, {"train": 4, "validation": 2, "extra": 3, "test": 2})
    name = "hub:me/birds?image=picture&label=kind&flip=true"
    with pytest.raises(LifelongError, match=r"hub:me/birds.*: it is not in the cache, or allow the download with --download"):
        Sources(cache=tmp_path).open(name)
    source = Sources(download=True, cache=tmp_path).open(name)
    assert [split for *_, split in asked] == ["validation", "test", "train"]
    assert source.classes == ("crow", "owl")
    assert source.mirror
    assert "huggingface.co/datasets/me/birds" in source.licence
    assert [len(source.labels(split)) for split in ("train", "valid", "test")] == [4, 2, 2]
    assert source.images("valid", torch.arange(2), 4)[:, 0, 0, 0].tolist() == [10, 11]
    Sources(cache=tmp_path).open("hub:me/birds?image=picture&label=kind")
    assert len(asked) == 3, "other columns of the same files"

    other = Sources(download=True, cache=tmp_path).open("hub:me/birds?config=big&train=train+extra&image=picture&label=kind")
    assert asked[3:] == [("me/birds", "big", "train"), ("me/birds", "big", "extra")]
    assert other.images("train", torch.arange(7), 4)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 20, 21, 22]
    assert not other.has_split("test")
    with pytest.raises(LifelongError, match=r"no column 'image' for the images; its columns: picture, kind .*\?image=COLUMN"):
        Sources(cache=tmp_path).open("hub:me/birds")


def test_splits_of_other_names(monkeypatch, tmp_path):
    birds(monkeypatch, {"all": 4})
    assert len(Sources(download=True, cache=tmp_path).open("hub:me/birds?image=picture&label=kind").labels("train")) == 4
    birds(monkeypatch, {"north": 4, "south": 2})
    with pytest.raises(LifelongError, match=r"its splits are north, south; say which of them form train: hub:a/b\?train=SPLIT"):
        Sources(download=True, cache=tmp_path).open("hub:a/b?image=picture&label=kind")


@pytest.mark.parametrize("place", ["../../etc", "/etc/passwd", "a/b/c", "a b/c", "..", "a/..", "https://x"])
def test_ids_are_checked(tmp_path, place):
    with pytest.raises(LifelongError, match="is not a valid Hub id; write hub:OWNER/NAME"):
        Sources(download=True, cache=tmp_path).open(f"hub:{place}")


def test_a_folder_does_not_pass_for_the_hub(monkeypatch, tmp_path):
    (tmp_path / "me" / "birds").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LifelongError, match="there is a folder 'me/birds' here"):
        Sources(download=True, cache=tmp_path / "cache").open("hub:me/birds")


SCRIPT = """
import sys, time
from pathlib import Path
from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
for name in ("svhn", "hub:me/birds"):
    start = time.perf_counter()
    try:
        Sources(None, download=True, cache=Path(sys.argv[1])).open(name)
    except LifelongError as error:
        print(time.perf_counter() - start, error, sep="|")
"""


@pytest.mark.parametrize(
    ("variables", "reason"),
    [({"HF_ENDPOINT": "http://127.0.0.1:9"}, "refused"), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set")],
    ids=["no network", "offline on purpose"],
)
def test_offline_is_said_within_a_second(tmp_path, variables, reason):
    """The real libraries in a process of its own, whose hub is a port that nobody listens at."""
    plain = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY") and name != "LIFELONG_DATA"}
    environment = plain | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)} | variables
    for _ in range(3):  # the first reads the libraries from the disk; a busy machine is given another chance
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], env=environment, capture_output=True, text=True, timeout=60)
        lines = done.stdout.splitlines()
        assert len(lines) == 2, done.stderr
        for line in lines:
            assert reason in line
            assert "cannot download source" in line
        if max(float(line.partition("|")[0]) for line in lines) < 1:
            return
    pytest.fail(f"{done.stdout}in {time.perf_counter() - start:.1f} s")
