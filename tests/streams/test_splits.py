from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.utils import shuffle

from lifelong.data.known_sources import CIFAR10, CIFAR100, MINI_IMAGENET
from lifelong.data.sources import Sources
from lifelong.data.task import IMAGENET, NO_AUGMENTATION, Augmentation
from lifelong.errors import LifelongError
from lifelong.streams.named_streams import open_stream
from lifelong.streams.spec import TaskSpec
from lifelong.streams.splits import (
    SUPERCLASSES,
    InOrder,
    Shuffled,
    cifar10_5,
    cifar10_order,
    cifar100_20,
    cifar100_coarse,
    cifar100_order,
    miniimagenet_20,
    miniimagenet_order,
)
from tests.parquet_files import numbered, png, write_parquet
from tests.streams.made_sources import check_apart, holdings, made_source, sources

# PAR's class orders of MiniImageNet, measured with its code: blocks of five are the tasks.
MINI_ORDERS = {
    0: """26 86 2 55 75 93 16 73 54 95 53 92 78 13 7 30 22 24 33 8 43 62 3 71 45 48 6 99 82 76 60 80 90 68 51
          27 18 56 63 74 1 61 42 41 4 15 17 40 38 5 91 59 0 34 28 50 11 35 23 52 10 31 66 57 79 85 32 84 14 89
          19 29 49 97 98 69 20 94 72 77 25 37 81 46 39 65 58 12 88 70 87 36 21 83 9 96 67 64 47 44""",
    1: """80 84 33 81 93 17 36 82 69 65 92 39 56 52 51 32 31 44 78 10 2 73 97 62 19 35 94 27 46 38 67 99 54 95 88
          40 48 59 23 34 86 53 77 15 83 41 45 91 26 98 43 55 24 4 58 49 21 87 3 74 30 66 70 42 47 89 8 60 0 90
          57 22 61 63 7 96 13 68 85 14 29 28 11 18 20 50 25 6 71 76 1 16 64 79 5 75 9 72 12 37""",
    2: """83 30 56 24 16 23 2 27 28 13 99 92 76 14 0 21 3 29 61 79 35 11 84 44 73 5 25 77 74 62 65 1 18 48 36
          78 6 89 91 10 12 53 87 54 95 32 19 26 60 55 9 96 17 59 57 41 64 45 97 8 71 94 90 98 86 80 50 52 66 88
          70 46 68 69 81 58 33 38 51 42 4 67 39 37 20 31 63 47 85 93 49 34 7 75 82 43 22 72 15 40""",
}


def rows_of(words: str) -> list[int]:
    return [int(word) for word in words.split()]


# -- cifar10-5 -------------------------------------------------------------------------------------------------------------------


def test_the_order_of_cifar10_5():
    assert cifar10_order(0) == [2, 0, 1, 3, 4]
    assert [cifar10_order(seed) for seed in range(9)] == [shuffle(np.arange(5), random_state=seed).tolist() for seed in range(9)]
    assert [task.name for task in cifar10_5(0).tasks] == ["deer-dog", "airplane-automobile", "bird-cat", "frog-horse", "ship-truck"]
    assert cifar10_5(0).tasks[0].classes == ("deer", "dog")


def test_cifar10_5_on_made_images(tmp_path):
    made_source(tmp_path, "cifar10", {"train": 40, "test": 10}, 10, names=CIFAR10)
    stream = open_stream("cifar10-5", 0, sources(tmp_path))
    assert [(one.train, one.valid, one.test, one.image_size) for one in stream.describe()] == [(72, 8, 20, 32)] * 5
    first = stream[0]
    assert first.augmentation == NO_AUGMENTATION
    assert first.normalization.mean == pytest.approx((125.3 / 255, 123.0 / 255, 113.9 / 255))
    assert first.normalization.std == pytest.approx((63.0 / 255, 62.1 / 255, 66.7 / 255))
    assert check_apart(stream) == {"train": 360, "valid": 40, "test": 100}


def test_cifar10_5_has_the_sizes_of_the_paper():
    """At full size, from labels alone, in 9000, 1000 and 2000 images; what is held out is what the authors' code holds out."""
    spec = cifar10_5(3)
    held = holdings("cifar10", CIFAR10, {"train": 5000, "test": 1000})
    ids = [tuple(CIFAR10.index(word) for word in task.classes) for task in spec.tasks]  # ty: ignore
    taken = spec.draw["cifar10"].divide(spec.tasks, ids, held, 3)
    for one, pair in zip(taken, ids, strict=True):
        assert [len(one.rows[split]) for split in ("train", "valid", "test")] == [9000, 1000, 2000]
        own = np.flatnonzero(np.isin(held.labels["train"], pair))
        mixed = shuffle(np.arange(len(own)), random_state=3)
        assert one.rows["valid"].tolist() == own[mixed[:1000]].tolist()
        assert one.rows["train"].tolist() == own[mixed[1000:]].tolist()
        for split in ("train", "valid", "test"):
            pool = "test" if split == "test" else "train"
            assert (held.labels[pool][one.rows[split]] == one.ids[split]).all()
            assert set(one.ids[split].tolist()) == set(pair)


# -- cifar100 --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2, 77])
def test_cifar100_20_goes_through_the_same_order_in_fives(seed):
    spec = cifar100_20(seed)
    assert [task.name for task in spec.tasks] == [f"cifar100-{number}" for number in range(20)]
    assert [word for task in spec.tasks for word in task.classes] == cifar100_order(seed)  # ty: ignore
    assert all(len(task.classes) == 5 for task in spec.tasks)  # ty: ignore


def test_the_tasks_of_cifar100_coarse():
    spec = cifar100_coarse(0)
    assert spec == cifar100_coarse(5)
    names = (
        "vehicles-1 vehicles-2 aquatic-mammals fish flowers food-containers fruit-and-vegetables household-electrical-devices"
        " household-furniture insects large-carnivores large-man-made-outdoor-things large-natural-outdoor-scenes"
        " large-omnivores-and-herbivores medium-sized-mammals non-insect-invertebrates people reptiles small-mammals trees"
    )
    assert " ".join(task.name for task in spec.tasks) == names
    assert spec.tasks[0].classes == ("bicycle", "bus", "motorcycle", "pickup_truck", "train")
    assert all(task.source == "cifar100" and list(task.classes) == sorted(task.classes) for task in spec.tasks)  # ty: ignore
    assert sorted(word for classes in SUPERCLASSES.values() for word in classes) == list(CIFAR100)


@pytest.mark.parametrize("name", ["cifar100-20", "cifar100-coarse"])
def test_cifar100_in_fives_on_made_images(tmp_path, name):
    made_source(tmp_path, "cifar100", {"train": 20, "test": 3}, 100, names=CIFAR100)
    stream = open_stream(name, 0, sources(tmp_path))
    described = stream.describe()
    assert [(one.train, one.valid, one.test, one.image_size) for one in described] == [(90, 10, 15, 32)] * 20
    assert sorted(word for one in described for word in one.classes) == list(CIFAR100)
    assert stream[0].augmentation == Augmentation(4, True, 63 / 255)
    assert stream[0].normalization.mean == (0.5071, 0.4867, 0.4408)
    assert stream[0].train.labels.bincount().tolist() == [18] * 5
    assert check_apart(stream) == {"train": 1800, "valid": 200, "test": 300}


# -- miniimagenet-20 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_order_of_miniimagenet_20(seed):
    order = rows_of(MINI_ORDERS[seed])
    assert miniimagenet_order(seed) == order
    spec = miniimagenet_20(seed)
    assert [task.classes for task in spec.tasks] == [
        tuple(MINI_IMAGENET[place] for place in order[low:high]) for low, high in pairwise(range(0, 101, 5))
    ]


def test_the_classes_of_miniimagenet_stand_in_the_order_of_its_three_parts():
    assert len(set(MINI_IMAGENET)) == 100
    parts = MINI_IMAGENET[:64], MINI_IMAGENET[64:80], MINI_IMAGENET[80:]
    assert all(list(part) == sorted(part) for part in parts)
    assert [part[0] for part in parts] == ["n01532829", "n01855672", "n01930112"]
    assert [part[-1] for part in parts] == ["n13133613", "n09256479", "n07613480"]


@pytest.mark.parametrize(
    ("per_class", "sizes"),
    [({"train": 20}, (80, 10, 10)), ({"train": 18, "test": 3}, (80, 10, 15)), ({"train": 6, "valid": 2, "test": 3}, (30, 10, 15))],
)
def test_miniimagenet_20_on_made_images(tmp_path, per_class, sizes):
    """In one pool; with a test split of its own; and with both. The files name their classes in another order."""
    made_source(tmp_path, "mini_imagenet", per_class, 100, names=sorted(MINI_IMAGENET))
    stream = open_stream("miniimagenet-20", 1, sources(tmp_path))
    described = stream.describe()
    assert [(one.train, one.valid, one.test, one.image_size) for one in described] == [(*sizes, 84)] * 20
    assert described[0].classes == tuple(MINI_IMAGENET[place] for place in (80, 84, 33, 81, 93))
    assert (stream[0].augmentation, stream[0].normalization) == (NO_AUGMENTATION, IMAGENET)
    assert check_apart(stream) == dict(zip(("train", "valid", "test"), (20 * size for size in sizes), strict=True))


def test_miniimagenet_20_where_train_valid_and_test_hold_other_classes(tmp_path):
    """The few-shot form, 64, 16 and 20 classes in three files without names: they are merged and divided again."""
    start = 0
    for split, low, high in (("train", 0, 64), ("validation", 64, 80), ("test", 80, 100)):
        labels = np.random.default_rng(0).permutation(np.repeat(np.arange(low, high), 10))
        images = [png(pixels) for pixels in numbered(len(labels), 4, start)]
        start += len(labels)
        write_parquet(tmp_path / "mini_imagenet" / f"{split}-00000.parquet", images, {"label": labels})
    stream = open_stream("miniimagenet-20", 2, sources(tmp_path))
    assert [(one.train, one.valid, one.test) for one in stream.describe()] == [(40, 5, 5)] * 20
    assert stream.describe()[0].classes == tuple(MINI_IMAGENET[place] for place in (83, 30, 56, 24, 16))
    assert check_apart(stream) == {"train": 800, "valid": 100, "test": 100}


def test_miniimagenet_20_has_the_sizes_of_the_paper():
    """At full size: of each class's 600 images in file order the first 480, the next 60 and the last 60."""
    spec = miniimagenet_20(0)
    held = holdings("mini_imagenet", MINI_IMAGENET, {"train": 600})
    ids = [tuple(MINI_IMAGENET.index(str(word)) for word in task.classes) for task in spec.tasks]  # ty: ignore
    for one, wanted in zip(spec.draw["mini_imagenet"].divide(spec.tasks, ids, held, 0), ids, strict=True):
        assert [len(one.rows[split]) for split in ("train", "valid", "test")] == [2400, 300, 300]
        for number in wanted:
            parts = [one.rows[split][one.ids[split] == number] for split in ("train", "valid", "test")]
            assert [len(part) for part in parts] == [480, 60, 60]
            assert np.concatenate(parts).tolist() == np.flatnonzero(held.labels["train"] == number).tolist()


# -- the draws -------------------------------------------------------------------------------------------------------------------

PAIR = (TaskSpec("one", "animals", ("ant", "bee")), TaskSpec("two", "animals", ("bee", "cat")))


@pytest.mark.parametrize("draw", [Shuffled(), InOrder()])
def test_a_class_goes_to_one_task(draw):
    held = holdings("animals", ("ant", "bee", "cat"), {"train": 20, "test": 5})
    with pytest.raises(LifelongError, match="task 'two': class 'bee' of source 'animals' is already used by task 'one'"):
        draw.divide(PAIR, [(0, 1), (1, 2)], held, 0)


@pytest.mark.parametrize(("draw", "what"), [(Shuffled(), "source 'animals'"), (InOrder(), "class 'ant' of source 'animals'")])
def test_too_few_images(draw, what):
    held = holdings("animals", ("ant", "bee", "cat"), {"train": 1, "test": 5})
    with pytest.raises(LifelongError, match=f"task 'one': {what} has too few images .* to give any to valid"):
        draw.divide(PAIR[:1], [(0, 1)], held, 0)


def test_a_shuffled_task_needs_a_test_split():
    held = holdings("animals", ("ant", "bee", "cat"), {"train": 20})
    with pytest.raises(LifelongError, match="source 'animals' has no test split"):
        Shuffled().divide(PAIR[:1], [(0, 1)], held, 0)


def test_a_validation_split_of_the_source_is_used():
    held = holdings("animals", ("ant", "bee", "cat"), {"train": 20, "valid": 4, "test": 5})
    for draw in (Shuffled(), InOrder()):
        (one,) = draw.divide(PAIR[:1], [(0, 1)], held, 0)
        assert {split: len(rows) for split, rows in one.rows.items()} == {"train": 40, "valid": 8, "test": 10}
        assert (held.labels["valid"][one.rows["valid"]] == one.ids["valid"]).all()


# -- real images -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(data_folder, tmp_path_factory) -> Sources:
    return Sources(data_folder, cache=tmp_path_factory.mktemp("cache"))


def test_real_cifar10(real):
    stream = open_stream("cifar10-5", 0, real)
    assert [(one.train, one.valid, one.test) for one in stream.describe()] == [(1800, 200, 1000)] * 5
    assert check_apart(stream) == {"train": 9000, "valid": 1000, "test": 5000}


def test_real_miniimagenet(real):
    stream = open_stream("miniimagenet-20", 0, real)
    assert [(one.train, one.valid, one.test) for one in stream.describe()] == [(135, 15, 75)] * 20
    assert check_apart(stream) == {"train": 2700, "valid": 300, "test": 1500}


@pytest.mark.parametrize("name", ["cifar100-20", "cifar100-coarse"])
def test_real_cifar100_in_fives(real, name):
    described = open_stream(name, 0, real).describe()
    assert {one.valid for one in described} == {225}
    # The source holds some images twice: one that is also a test image is not learned from, and the description says so.
    left_out = [one for one in described if one.train < 2025]
    assert len(left_out) < 4
    assert all("left out" in one.notes[0] for one in left_out)
    assert sum(one.train for one in described) > 40_490
    assert sum(one.test for one in described) == 9999


def test_the_superclasses_are_those_of_the_real_labels(data_folder: Path):
    """CIFAR-100's own coarse labels group the fine ones as the table does."""
    table = pq.read_table(data_folder / "cifar100" / "test-00000.parquet", columns=["label", "coarse_label"])
    groups: dict[int, set[str]] = {}
    for fine, coarse in zip(table["label"].to_pylist(), table["coarse_label"].to_pylist(), strict=True):
        groups.setdefault(coarse, set()).add(CIFAR100[fine])
    assert sorted(map(sorted, groups.values())) == sorted(map(list, SUPERCLASSES.values()))
