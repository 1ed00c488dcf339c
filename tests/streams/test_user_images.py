"""Streams named by where a person's images lie."""

import itertools
import shutil
from pathlib import Path

import pytest

from lifelong.api import configure, default_out
from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
from lifelong.streams.named_streams import open_stream
from tests.parquet_files import made_folder, numbered, png, write_parquet
from tests.photographs import TASKS, make_photographs, picture


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return make_photographs(tmp_path_factory.mktemp("my photos") / "album")


def opened(name: str, cache: Path, seed: int = 0, **more):
    return open_stream(name, seed, Sources(None, cache=cache, **more))


def test_a_folder_of_tasks(photographs, tmp_path):
    stream = opened(f"folder:{photographs}?size=16", tmp_path)
    assert stream.name == "album"
    described = stream.describe()
    assert [one.name for one in described] == sorted(TASKS)
    for one in described:
        assert sorted(one.classes) == sorted(TASKS[one.name])
        assert one.image_size == 16
        # A tenth for validation and a fifth for tests, made because there are none.
        total = one.train + one.valid + one.test
        assert total == (48 if one.name != "pets 2" else 48 + 10)
        assert abs(one.test - total / 5) <= 2
        assert one.valid >= 2
    birds = stream[next(index for index, one in enumerate(described) if one.name.startswith("birds"))]
    assert birds.train.images.shape[1:] == (3, 16, 16)
    assert not birds.augmentation.flip


def test_the_same_images_are_drawn_wherever_the_folder_is(photographs, tmp_path, monkeypatch):
    def drawn(name: str, seed: int = 0) -> tuple:
        stream = opened(f"{name}?size=16", tmp_path, seed)
        return stream.fingerprint(), stream.checksum()

    monkeypatch.chdir(photographs.parent)
    whole = drawn(f"folder:{photographs}")
    assert drawn("folder:album") == whole
    assert drawn("folder:album", seed=1) != whole
    moved = photographs.rename(tmp_path / "album")
    try:
        assert drawn(f"folder:{moved}") == whole
    finally:
        moved.rename(photographs)


def test_problem_images_are_counted_or_left_out(photographs, tmp_path):
    number = sorted(TASKS).index("pets 2")
    with pytest.raises(
        LifelongError, match=r"2 of 58 images .*broken 'file'.jpg.*moving.gif|2 of 58 images .*moving.gif.*broken"
    ) as caught:
        _ = opened(f"folder:{photographs}?size=16", tmp_path)[number].train
    assert "--skip-broken" in str(caught.value)
    assert "\n" not in str(caught.value)
    stream = opened(f"folder:{photographs}?size=16", tmp_path, skip_broken=True)
    described = stream.describe()[number]
    assert described.train + described.valid + described.test == 56
    assert len(stream[number].train) == described.train
    assert any("2" in note and "moving.gif" in note for note in described.notes)


def test_a_task_may_be_called_test(tmp_path):
    for number, (task, label) in enumerate(itertools.product(("birds", "dev", "test"), "ab")):
        (tmp_path / "s" / task / label).mkdir(parents=True)
        for each in range(4):
            picture(10 * number + each, 1).save(tmp_path / "s" / task / label / f"{each}.png")
    assert [one.name for one in opened(f"folder:{tmp_path / 's'}", tmp_path / "cache").describe()] == ["birds", "dev", "test"]


def test_splits_that_are_there_are_taken(tmp_path):
    counter = itertools.count()
    for task, (split, count), label in itertools.product(("one", "two"), (("train", 5), ("val", 2), ("test", 3)), ("a", "b")):
        place = tmp_path / "s" / task / split / label
        place.mkdir(parents=True)
        for number in range(count):
            picture(next(counter), 1).save(place / f"{number}.png")
    described = opened(f"folder:{tmp_path / 's'}?flip=true", tmp_path / "cache").describe()
    assert [(one.train, one.valid, one.test) for one in described] == [(10, 4, 6)] * 2
    assert opened(f"folder:{tmp_path / 's'}?flip=true", tmp_path / "cache")[0].augmentation.flip


def test_classes_cut_into_tasks(tmp_path):
    made_folder(tmp_path / "own", [20] * 7, [5] * 7)
    name = f"parquet:{tmp_path / 'own'}?tasks=3&size=8"
    first, again, other = (opened(name, tmp_path / "cache", seed).describe() for seed in (0, 0, 1))
    assert [len(one.classes) for one in first] == [3, 2, 2]
    assert sorted(label for one in first for label in one.classes) == [f"c{number}" for number in range(7)]
    assert first == again
    assert [one.classes for one in other] != [one.classes for one in first]
    assert [one.name for one in first] == ["own 1", "own 2", "own 3"]
    with pytest.raises(LifelongError, match="7 classes make at most 3 tasks of 2 or more; lower tasks=4"):
        opened(f"parquet:{tmp_path / 'own'}?tasks=4", tmp_path / "cache")


@pytest.mark.parametrize(
    ("labels", "names"),
    [([1, 2, 3, 4], None), ([0, 3, 7, 20], None), ([3_000_000_000, 10_000_001, 10_000_002, 5], None), ([5, 1, 2, 4], "abcdef")],
)
def test_classes_that_are_not_numbered_through(labels, names, tmp_path):
    encoded = [png(pixels) for pixels in numbered(80)]
    given = None if names is None else {"label": names}
    write_parquet(tmp_path / "own" / "train.parquet", encoded, {"label": [labels[number % 4] for number in range(80)]}, names=given)
    stream = opened(f"parquet:{tmp_path / 'own'}?tasks=2&size=8", tmp_path / "cache")
    called = [str(label) if names is None else names[label] for label in labels]
    assert sorted(name for one in stream.describe() for name in one.classes) == sorted(called)
    for task in stream:
        for image, label in zip(task.train.images, task.train.labels, strict=True):
            assert task.classes[int(label)] == called[int(image[0, 0, 0]) % 4], "each image under its own label"


@pytest.mark.parametrize(
    ("make", "name", "line"),
    [
        ([], "folder:{}", "holds no folders"),
        (["a/1.png", "b/1.png"], "folder:{}", "holds classes ('a', ...) where a stream holds tasks"),
        (["train/a/1.png", "test/a/1.png"], "folder:{}", "holds splits ('test', ...) where a stream holds tasks"),
        (["a/x/1.png", "b/1.png"], "folder:{}", "the task 'b' in"),
        ([], "folder:{}/none", "no such folder"),
        (
            [],
            "parquet:{}",
            "one data set is not a stream yet; say into how many tasks to cut its classes, for example 'parquet:{}?tasks=5'",
        ),
        ([], "csv:{}?label=x", "for example 'csv:{}?label=x&tasks=5'"),
        ([], "hub:some/one", "for example 'hub:some/one?tasks=5'"),
        ([], "folder:{}?tasks=none", "'none': expected an integer >= 1"),
        ([], "folder:{}?taks=3&flip=true", "unknown option 'taks'; did you mean 'tasks'?"),
        ([], "foldr:{}", "unknown stream 'foldr:"),
        (["a/x/1.png"], "{}", "'{}' is a folder: write folder:{}"),
        (["a/x/1.png"], "{}?tasks=2", "write folder:{}?tasks=2"),
        (["training/x/1.png", "eval/x/1.png"], "folder:{}", "holds splits ('eval', ...) where a stream holds tasks"),
    ],
)
def test_what_makes_no_stream(make, name, line, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for number, file in enumerate(make):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        picture(number, 1).save(root / file)
    with pytest.raises(LifelongError) as caught:
        opened(name.format(root), tmp_path / "cache").describe()
    assert line.replace("{}", str(root)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stream", "out"),
    [
        ("digits", "runs/digits-par-seed0"),
        ("folder:/home/me/My photos?size=64", "runs/My-photos-par-seed0"),
        ("folder:../../..", "runs/stream-par-seed0"),
        ("hub:some/one?tasks=5", "runs/some-one-par-seed0"),
        ("lists/my list.toml", "runs/my-list-par-seed0"),
        ("lists/my list.toml?tasks=2", "runs/my-list-tasks-2-par-seed0"),
        ("csv:lists/birds.v1.csv?tasks=2", "runs/birds.v1-par-seed0"),
        ("folder:data/dataset.v1?tasks=2", "runs/dataset.v1-par-seed0"),
        ("folder:data/dataset.v2?tasks=2", "runs/dataset.v2-par-seed0"),
    ],
)
def test_the_folder_of_a_run_stays_below_runs(stream, out):
    assert default_out(configure(stream)).as_posix() == out


def test_what_a_stream_is_made_of_depends_neither_on_the_seed_nor_on_the_place(photographs, tmp_path):
    """But on its images, and on what its tasks ask for."""

    def content(name: str, seed: int = 0) -> dict:
        return opened(name, tmp_path / "cache", seed).content()

    moved = Path(shutil.copytree(photographs, tmp_path / "elsewhere" / "album"))
    whole = content(f"folder:{photographs}?size=16")
    assert content(f"folder:{photographs}?size=16", seed=1) == content(f"folder:{moved}?size=16") == whole
    assert content(f"folder:{photographs}?size=8")["definition"] != whole["definition"]
    made_folder(tmp_path / "own", [20] * 4, [5] * 4)
    cut = f"parquet:{tmp_path / 'own'}?tasks=2&size=16"
    assert content(cut) == content(cut, seed=1) != content(cut.replace("=2", "=1"))
    lines = f"[[task]]\nname = 'a'\nsource = 'folder:{photographs / next(iter(TASKS))}'\nimage_size = 16\n"
    (tmp_path / "my.toml").write_text(lines)
    before = content(str(tmp_path / "my.toml"))
    assert content(str(tmp_path / "my.toml"), seed=1) == before
    (tmp_path / "my.toml").write_text(f"{lines}test_per_class = 1\n")
    assert content(str(tmp_path / "my.toml"))["definition"] != before["definition"]
    picture(0, 200).save(next(file for file in (moved / sorted(TASKS)[0]).rglob("*") if file.is_file()).with_name("more.png"))
    other = content(f"folder:{moved}?size=16")
    assert (other["definition"], len(set(other["sources"].items()) ^ set(whole["sources"].items()))) == (whole["definition"], 2)


def test_names_keep_what_tells_folders_apart(tmp_path):
    for version in ("set.v1", "set.v2"):
        made_folder(tmp_path / version, [20] * 4, [5] * 4)
    assert [opened(f"parquet:{tmp_path / name}?tasks=2", tmp_path / "cache").name for name in ("set.v1", "set.v2")] == ["set.v1", "set.v2"]
