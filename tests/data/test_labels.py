"""mini_imagenet in all its forms: the same images of the same classes, whatever the copy calls them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong.data.known_sources import MINI_IMAGENET
from lifelong.data.naming import unique
from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
from lifelong.streams.named_streams import open_stream
from tests.parquet_files import numbered, png, write_parquet

SORTED = sorted(MINI_IMAGENET)
PARTS = {"train": MINI_IMAGENET[:64], "validation": MINI_IMAGENET[64:80], "test": MINI_IMAGENET[80:]}
EACH = 2


def lay(folder: Path, numbering, names=None) -> None:
    """Two images of each class, in the three files of the pooled form; an image says the place of its class in the usual order."""
    pixels = numbered(100)
    for split, words in PARTS.items():
        shuffled = np.random.default_rng(0).permutation(np.repeat(np.arange(len(words)), EACH)).tolist()
        places = [MINI_IMAGENET.index(words[number]) for number in shuffled]
        labels = [numbering(words[number], words) for number in shuffled]
        given = None if names is None else {"label": names(words)}
        write_parquet(folder / f"{split}-0.parquet", [png(pixels[place]) for place in places], {"label": labels}, names=given)


FORMS = {
    "numbered from 0 in each file": (lambda word, words: words.index(word), None),
    "numbered throughout": (lambda word, words: MINI_IMAGENET.index(word), None),
    "numbered throughout by the alphabet": (lambda word, words: SORTED.index(word), None),
    "names of all": (lambda word, words: SORTED.index(word), lambda words: SORTED),
    "names of its own in each file": (lambda word, words: sorted(words).index(word), sorted),
    "words": (lambda word, words: word, None),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_pooled_form_is_one_set(tmp_path, form):
    lay(tmp_path / "mini_imagenet", *FORMS[form])
    source = Sources(tmp_path, cache=tmp_path / "cache").open("mini_imagenet")
    assert source.classes == MINI_IMAGENET
    assert not source.has_split("test")
    assert not source.has_split("valid")
    labels = source.labels("train")
    assert labels.bincount().tolist() == [EACH] * 100
    pixels = source.images("train", torch.arange(200), 4)
    assert pixels[:, 0, 0, 0].tolist() == labels.tolist()
    assert bool(source.notes) == form.startswith("numbered")


def test_numbers_that_fit_no_form(tmp_path):
    lay(tmp_path / "mini_imagenet", lambda word, words: 99 - MINI_IMAGENET.index(word))
    with pytest.raises(
        LifelongError, match=r"fit no known form of 'mini_imagenet' \(train: 64 classes, valid: 16 classes, test: 20 classes\)"
    ):
        Sources(tmp_path, cache=tmp_path / "cache").open("mini_imagenet")


def test_a_part_is_missing(tmp_path):
    lay(tmp_path / "mini_imagenet", *FORMS["words"])
    (tmp_path / "mini_imagenet" / "validation-0.parquet").unlink()
    with pytest.raises(LifelongError, match="train and test files have no class in common; put the other files"):
        Sources(tmp_path, cache=tmp_path / "cache").open("mini_imagenet")


def test_splits_of_its_own_stay_as_they_are(tmp_path):
    for split in ("train", "test"):
        labels = list(range(100))
        write_parquet(tmp_path / "mini_imagenet" / f"{split}-0.parquet", [b"x"] * 100, {"label": labels}, names={"label": SORTED})
    source = Sources(tmp_path, cache=tmp_path / "cache").open("mini_imagenet")
    assert source.classes == MINI_IMAGENET
    assert [source.classes[number] for number in source.labels("test")] == SORTED


def test_the_other_copy_is_train_and_validation_in_one(tmp_path):
    for split, count in (("train", 3), ("validation", 2), ("test", 1)):
        labels = np.arange(100).repeat(count).tolist()
        file = tmp_path / "mini_imagenet-timm" / f"{split}-0.parquet"
        write_parquet(file, [b"x"] * len(labels), {"label": labels}, names={"label": SORTED})
    source = Sources(tmp_path, cache=tmp_path / "cache").open("mini_imagenet-timm")
    assert source.labels("train").bincount().tolist() == [5] * 100
    assert not source.has_split("test")


def test_the_facts(data_folder):
    """The 100 numbers against a real copy, and the lengths and the order of the three parts."""
    import pyarrow.parquet as pq

    header = pq.read_schema(data_folder / "mini_imagenet" / "train-00000.parquet").metadata[b"huggingface"]
    assert json.loads(header)["info"]["features"]["label"]["names"] == SORTED
    assert all(list(words) == sorted(words) for words in PARTS.values())
    assert "n01855672" in PARTS["validation"]
    assert "n07613480" in PARTS["test"]


def test_two_classes_of_one_name_stay_two(tmp_path):
    """ImageNet has two cranes and two mailots: a bird and a machine are not one class, wherever names are keys."""
    names = ["crane", "dog", "crane", "fox"]
    content = [png(each) for each in numbered(48)]
    for split, part in (("train", content[:40]), ("test", content[40:])):
        labels = [number % 4 for number in range(len(part))]
        write_parquet(tmp_path / "own" / f"{split}-0.parquet", part, {"label": labels}, names={"label": names})
    stream = open_stream(f"parquet:{tmp_path / 'own'}?tasks=2&size=8", 0, Sources(tmp_path, cache=tmp_path / "cache"))
    assert sorted(name for task in stream.describe() for name in task.classes) == ["crane", "crane (2)", "dog", "fox"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a (2)", "a (3)"]),
        (["a", "a", "a (2)"], ["a", "a (3)", "a (2)"]),
        (["a (2)", "a", "a", "a"], ["a (2)", "a", "a (3)", "a (4)"]),
    ],
)
def test_names_are_made_unique(names, found):
    assert list(unique(names)) == found
    assert unique(found) == tuple(found)
