import csv
import re
from pathlib import Path

import numpy as np
import pytest

from lifelong.data.known_sources import CIFAR100
from lifelong.data.sources import Sources
from lifelong.data.task import NO_AUGMENTATION
from lifelong.errors import LifelongError
from lifelong.streams.celeba import ALL_IMAGES, LIST_FILE, FederatedFaces, cifar100_fceleba, read_list, task_order
from lifelong.streams.named_streams import open_stream
from lifelong.streams.selection import Selection, SourceLabels
from lifelong.streams.spec import TaskSpec
from tests.parquet_files import numbered, png, write_parquet
from tests.streams.made_sources import check_apart, holdings, made_source, sources

# The lines of the authors' file for their five runs: c is a task of CIFAR-100, f a group of faces.
PUBLISHED = {
    0: "c7 f1 f4 c2 c4 c8 c0 c9 f6 f5 f7 c6 c3 c5 f0 f2 f8 f3 c1 f9",
    1: "f3 f1 f5 c5 f2 c9 c6 c4 f4 c8 f0 f6 c7 c3 c1 c2 c0 f8 f7 f9",
    2: "c0 f1 f6 f2 c7 f0 c5 f8 c6 c8 f3 f4 c3 c2 c4 f9 f7 c9 f5 c1",
    3: "f9 c7 c1 c5 c3 c9 f0 f3 c8 c6 c0 f2 f6 f4 c4 f1 c2 f5 f8 f7",
    4: "c7 f0 c5 c0 c4 c2 f9 c6 f4 f8 c9 f2 f7 c3 c1 f6 f3 f1 c8 f5",
}
FACES = tuple(TaskSpec(f"celeba-{number}", "celeba", ("not smiling", "smiling")) for number in range(10))
BOTH = [(0, 1)] * 10
SPLITS = ("train", "valid", "test")


def divide(held: SourceLabels, seed: int = 0, tasks: tuple[TaskSpec, ...] = FACES) -> list[Selection]:
    return FederatedFaces().divide(tasks, BOTH[: len(tasks)], held, seed)


def made_faces(data: Path, count: int) -> Path:
    """Pictures of a face's proportions in the columns of the hub's CelebA, in its three files."""
    chance = np.random.default_rng(0)
    parts = (("train", int(0.8 * count)), ("valid", int(0.1 * count)), ("test", count - int(0.8 * count) - int(0.1 * count)))
    start = 0
    for split, size in parts:
        images = [png(np.repeat(pixels, 2, 0)[:5]) for pixels in numbered(size, 4, 10_000 + start)]
        columns = {"celeb_id": np.arange(size) // 20, "Male": chance.random(size) < 0.5, "Smiling": chance.random(size) < 0.5}
        write_parquet(data / "celeba" / f"{split}-00000.parquet", images, columns)
        start += size
    return data / "celeba"


# -- the stream ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", PUBLISHED)
def test_the_published_orders(seed):
    spec = cifar100_fceleba(seed)
    assert [task.name.replace("cifar100-", "c").replace("celeba-", "f") for task in spec.tasks] == PUBLISHED[seed].split()
    for task in spec.tasks:
        number = int(task.name[-1])
        things = task.name.startswith("c") and "100" in task.name
        assert task.source == ("cifar100" if things else "celeba")
        assert task.classes == (CIFAR100[10 * number : 10 * number + 10] if things else ("not smiling", "smiling"))


def test_other_seeds_shuffle():
    orders = [task_order(seed) for seed in range(5, 30)]
    assert orders == [task_order(seed) for seed in range(5, 30)]
    assert all(sorted(order) == sorted(PUBLISHED[0].split()) for order in orders)
    assert len(set(map(tuple, orders))) == 25


def test_the_stream_on_made_images(tmp_path):
    made_source(tmp_path, "cifar100", {"train": 20, "test": 4}, 100, column="fine_label", names=CIFAR100)
    made_faces(tmp_path, 1300)
    stream = open_stream("cifar100-fceleba", 0, sources(tmp_path))
    described = {one.name: one for one in stream.describe()}
    for name, one in described.items():
        things = name.startswith("cifar100")
        assert (one.train, one.valid, one.test, one.image_size) == ((180, 20, 40, 32) if things else (87, 9, 11, 32))
    assert described["cifar100-3"].classes == CIFAR100[30:40]
    assert described["celeba-1"].notes == (
        "Images drawn by the seed, not those of the authors: there is no fceleba_10tasks.csv next to the images of 'celeba'.",
    )
    assert not any(one.notes for name, one in described.items() if name != "celeba-1"), "said once, at the first such task"
    for task in (stream[0], stream[1]):
        assert task.augmentation == NO_AUGMENTATION
        assert task.normalization.mean == pytest.approx((125.3 / 255, 123.0 / 255, 113.9 / 255))
        assert task.normalization.std == pytest.approx((63.0 / 255, 62.1 / 255, 66.7 / 255))
    assert check_apart(stream) == {"train": 1800 + 870, "valid": 200 + 90, "test": 400 + 110}
    again = open_stream("cifar100-fceleba", 0, sources(tmp_path))
    other = open_stream("cifar100-fceleba", 1, sources(tmp_path))
    assert stream.fingerprint() == again.fingerprint() != other.fingerprint()


def test_labels_of_faces_are_those_of_the_files(tmp_path):
    made_source(tmp_path, "cifar100", {"train": 10, "test": 1}, 100)
    made_faces(tmp_path, 1070)
    opened = sources(tmp_path)
    whole = opened.open("celeba")
    assert len(whole.labels("train")) == 1070, "the three files are one pool"
    assert not whole.has_split("test")
    stream = open_stream("cifar100-fceleba", 0, opened)
    faces = stream[1].test
    numbers = faces.images[:, 0, 0, 0].long() + 256 * faces.images[:, 1, 0, 0].long() - 10_000
    assert faces.labels.tolist() == whole.labels("train")[numbers].tolist()


# -- groups drawn by the seed ----------------------------------------------------------------------------------------------------


def test_ten_groups_of_107_faces_without_regard_to_class():
    held = holdings("celeba", ("not smiling", "smiling"), {"train": 3000})
    taken = divide(held)
    assert [[len(one.rows[split]) for split in SPLITS] for one in taken] == [[87, 9, 11]] * 10
    everything = np.concatenate([one.rows[split] for one in taken for split in SPLITS])
    assert len(set(everything.tolist())) == 1070
    assert everything.max() > 5000, "from everywhere"
    assert all((held.labels["train"][one.rows[split]] == one.ids[split]).all() for one in taken for split in SPLITS)
    smiling = {int(one.ids["train"].sum()) for one in taken}
    assert len(smiling) > 3, "the classes are not balanced"
    assert 30 < min(smiling) <= max(smiling) < 58


def test_groups_depend_on_the_seed_alone():
    held = holdings("celeba", ("not smiling", "smiling"), {"train": 2000})
    first, again, other = (divide(held, seed)[4].rows["train"].tolist() for seed in (0, 0, 1))
    assert first == again
    assert len(set(first) & set(other)) < 20
    assert divide(held, 0, FACES[:5])[4].rows["train"].tolist() == first, "a task at the end changes nothing"


def test_splits_of_the_source_are_kept():
    held = holdings("celeba", ("not smiling", "smiling"), {"train": 500, "valid": 60, "test": 60})
    taken = divide(held)
    for split, count in zip(SPLITS, (87, 9, 11), strict=True):
        rows = [set(one.rows[split].tolist()) for one in taken]
        assert [len(each) for each in rows] == [count] * 10
        assert len(set().union(*rows)) == 10 * count
        assert all((held.labels[split][one.rows[split]] == one.ids[split]).all() for one in taken)


@pytest.mark.parametrize(
    ("per_class", "line"),
    [
        ({"train": 500}, "source 'celeba' has 1000 images in its train split, but 10 F-CelebA tasks need 1070; give the whole data set"),
        ({"train": 600, "valid": 60, "test": 10}, "source 'celeba' has 20 images in its test split, but 10 F-CelebA tasks need 110"),
    ],
)
def test_a_celeba_that_is_too_small(per_class, line):
    with pytest.raises(LifelongError, match=line):
        divide(holdings("celeba", ("not smiling", "smiling"), per_class))


# -- the authors' images ---------------------------------------------------------------------------------------------------------


def write_list(folder: Path, rows: list[tuple[str, str, int, int]]) -> Path:
    """A list in the columns of the authors' one."""
    file = folder / LIST_FILE
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(("task", "leaf_user", "split", "celeba_file", "smiling"))
        writer.writerows((task, "0", split, f"{number:06}.jpg", smiles) for task, split, number, smiles in rows)
    return file


@pytest.fixture
def listed(tmp_path) -> SourceLabels:
    """The labels of a whole CelebA, and a list next to it: 96 and 11 images for each task."""
    labels = np.random.default_rng(1).integers(0, 2, ALL_IMAGES)
    numbers = 1 + np.random.default_rng(2).permutation(ALL_IMAGES)[:1070]
    rows = [
        (f"celeba-{place // 107}", "train" if place % 107 < 96 else "test", int(number), int(labels[number - 1]))
        for place, number in enumerate(numbers)
    ]
    write_list(tmp_path, rows)
    return SourceLabels("celeba", ("not smiling", "smiling"), {"train": labels}, tmp_path)


def test_the_list_is_taken_where_it_fits(listed):
    taken = divide(listed)
    assert taken[0].notes == ("The authors' images, from fceleba_10tasks.csv.",)
    assert not any(one.notes for one in taken[1:])
    with (listed.folder / LIST_FILE).open() as opened:  # ty: ignore
        lines = list(csv.DictReader(opened))
    for task, one in zip(FACES, taken, strict=True):
        assert [len(one.rows[split]) for split in SPLITS] == [87, 9, 11]
        mine = [line for line in lines if line["task"] == task.name]
        wanted = {
            split: {int(line["celeba_file"][:6]) - 1: int(line["smiling"]) for line in mine if line["split"] == split}
            for split in ("train", "test")
        }
        got = {split: dict(zip(one.rows[split].tolist(), one.ids[split].tolist(), strict=True)) for split in SPLITS}
        assert got["test"] == wanted["test"]
        assert got["train"] | got["valid"] == wanted["train"]
    held_out = {seed: divide(listed, seed)[0].rows["valid"].tolist() for seed in (0, 0, 1)}
    assert held_out[0] == taken[0].rows["valid"].tolist() != held_out[1]


def test_tasks_get_their_own_images_in_any_order(listed):
    straight, turned = divide(listed), divide(listed, 0, FACES[::-1])
    assert [one.rows["test"].tolist() for one in turned[::-1]] == [one.rows["test"].tolist() for one in straight]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("order", r"\d+ of 1070 labels are others, so its images stand in another order"),
        ("one", "1 of 1070 labels are others"),
        ("fewer", "it has 202598 images, not the 202599 of CelebA"),
        ("splits", "it has the splits train, test, not all images in one"),
    ],
)
def test_the_list_is_not_taken_where_it_does_not_fit(listed, change, why):
    labels = listed.labels["train"]
    if change == "order":
        labels = labels[::-1].copy()
    elif change == "one":
        labels = labels.copy()
        labels[next(iter(read_list(listed.folder / LIST_FILE)["celeba-3"].smiling)) - 1] ^= 1
    pools = {"train": labels[:-1] if change == "fewer" else labels}
    if change == "splits":
        pools = {"train": labels[:100_000], "test": labels[100_000:]}
    held = SourceLabels("celeba", listed.classes, pools, listed.folder)  # ty: ignore
    (note,) = divide(held)[0].notes
    assert note.startswith("Images drawn by the seed, not those of the authors: fceleba_10tasks.csv does not fit 'celeba': ")
    plain = divide(SourceLabels("celeba", held.classes, held.labels))
    assert [one.rows["train"].tolist() for one in divide(held)] == [one.rows["train"].tolist() for one in plain]
    assert re.search(why, note)


def test_a_list_without_one_of_the_tasks(tmp_path, listed):
    rows = [
        (name, split, int(number), int(task.smiling[int(number)]))
        for name, task in read_list(tmp_path / LIST_FILE).items()
        for split, numbers in (("train", task.train), ("test", task.test))
        for number in numbers
        if name != "celeba-6"
    ]
    write_list(tmp_path, rows)
    with pytest.raises(LifelongError, match=r"fceleba_10tasks.csv: too few images of task 'celeba-6'; give the whole list"):
        divide(listed)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (("celeba-0", "dev", 1, 0), "line 2: a row must be like celeba-0,train,000001.jpg,0"),
        (("celeba-0", "train", 0, 0), "line 2: a row must be like"),
        (("celeba-0", "train", 202_600, 0), "line 2: a row must be like"),
        (("celeba-0", "train", 5, 2), "line 2: a row must be like"),
        (("celeba-0", "test", 7, 0), "line 3: an image is listed twice"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path, row, line):
    file = write_list(tmp_path, [row, ("celeba-1", "train", 7, 0)])
    with pytest.raises(LifelongError, match=f"{file}, {line}"):
        read_list(file)


def test_a_list_without_a_column(tmp_path):
    file = tmp_path / LIST_FILE
    file.write_text("task,split,file\n")
    with pytest.raises(LifelongError, match="the column 'celeba_file' is missing"):
        read_list(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LifelongError, match=f"cannot read {file}"):
        read_list(file)


# -- real images -----------------------------------------------------------------------------------------------------------------


def test_real_things_with_made_faces(data_folder, tmp_path):
    (tmp_path / "cifar100").symlink_to(data_folder / "cifar100")
    made_faces(tmp_path, 1100)
    stream = open_stream("cifar100-fceleba", 0, Sources(tmp_path, cache=tmp_path / "cache"))
    described = stream.describe()
    assert {one.valid for one in described} == {450, 9}
    assert all(one.train in (4050, 87) or "left out" in one.notes[0] for one in described), "an image that the source holds twice"
    assert sum(one.test for one in described) == 9999 + 110
    assert described[0].name == "cifar100-7"
    assert described[0].classes == CIFAR100[70:80]
    assert stream[1].test.images.shape == (11, 3, 32, 32)
