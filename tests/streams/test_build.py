import dataclasses
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.data import decoding
from lifelong.data.sources import Sources
from lifelong.data.task import NO_AUGMENTATION, Augmentation, Normalization, RetiredTaskError, Stream, Task
from lifelong.errors import LifelongError
from lifelong.streams.build import SpecStream
from lifelong.streams.spec import SameAs, StreamSpec, TaskSpec
from lifelong.streams.transforms import Transform
from tests.parquet_files import made_folder

NAMES = ("ant", "bee", "cat", "dog")
TRAIN, TEST = (30, 20, 25, 40), (8, 9, 7, 10)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A data folder with two sources of numbered images: `own`, and `whole` without a test split."""
    folder = tmp_path_factory.mktemp("place")
    made_folder(folder / "own", TRAIN, TEST, names=NAMES)
    made_folder(folder / "whole", [24, 24, 25], None, names=["x", "y", "z"], size=6)  # other files than those of `own`
    return folder


def stream(place: Path, *tasks: TaskSpec, seed: int = 0, name: str = "s") -> SpecStream:
    return SpecStream(StreamSpec(name, tasks), seed, Sources(place, cache=place / "cache"))


def task(name: str, source: str = "own", **more) -> TaskSpec:
    settings_of_it: dict[str, Any] = {"image_size": 4, **more}
    return TaskSpec(name=name, source=f"parquet:{source}", **settings_of_it)


def attempt(make: Callable[[], Any]) -> tuple[Any, str]:
    """What is made, or the line that says why not."""
    try:
        return make(), ""
    except LifelongError as error:
        return None, str(error)


def numbers(split) -> list[int]:
    corner = split.images[:, :, 0, 0].long()
    return (corner[:, 0] + 256 * corner[:, 1]).tolist()


def true_names(place: Path, source: str) -> dict[int, str]:
    """The class name of each numbered image."""
    opened = Sources(place, cache=place / "cache").open(f"parquet:{source}")
    labels = [*opened.labels("train").tolist(), *(opened.labels("test").tolist() if opened.has_split("test") else [])]
    return {number: opened.classes[label] for number, label in enumerate(labels)}


def test_a_task_is_what_was_asked(place):
    made = stream(place, task("a", classes=("dog", 0, "cat"), train_per_class=10, valid_per_class=4, test_per_class=5))
    assert isinstance(made, Stream)
    assert len(made) == 1
    only = made[0]
    assert only.classes == ("dog", "ant", "cat")
    names = true_names(place, "own")
    for split, count in ((only.train, 10), (only.valid, 4), (only.test, 5)):
        assert split.labels.bincount().tolist() == [count] * 3
        assert [names[number] for number in numbers(split)] == [only.classes[label] for label in split.labels.tolist()]
    assert min(numbers(only.test)) >= sum(TRAIN)
    assert max(numbers(only.train) + numbers(only.valid)) < sum(TRAIN)
    assert only.train.labels.tolist() != sorted(only.train.labels.tolist()), "classes are mixed"


def test_all_classes_and_all_images_by_default(place):
    only = stream(place, task("a"))[0]
    assert only.classes == NAMES
    assert len(only.train) + len(only.valid) == sum(TRAIN)
    assert only.valid.labels.bincount().tolist() == [3, 2, 2, 4]
    assert sorted(numbers(only.test)) == list(range(sum(TRAIN), sum(TRAIN) + sum(TEST)))


def test_same_as_and_shifted_labels(place):
    made = stream(
        place,
        task("a", classes=("dog", "ant", "cat"), train_per_class=2, valid_per_class=2, test_per_class=2),
        task("b", classes=SameAs("a"), train_per_class=2, valid_per_class=2, test_per_class=2, transform=Transform(shift_labels=1)),
        task("c", classes=SameAs("b"), train_per_class=2, valid_per_class=2, test_per_class=2),
    )
    # The class with id i gets id i + 1: dog was 0 and is 1.
    assert [one.classes for one in made] == [("dog", "ant", "cat"), ("cat", "dog", "ant"), ("cat", "dog", "ant")]
    names = true_names(place, "own")
    for one in made:
        assert [names[number] for number in numbers(one.train)] == [one.classes[label] for label in one.train.labels.tolist()]


def test_classes_drawn_by_the_seed(place):
    drawn = {seed: stream(place, task("a", classes=3), seed=seed)[0].classes for seed in range(20)}
    assert drawn == {seed: stream(place, task("a", classes=3), seed=seed)[0].classes for seed in range(20)}
    assert all(len(set(classes)) == 3 and set(classes) <= set(NAMES) for classes in drawn.values())
    assert len(set(drawn.values())) > 8  # of 24


def test_the_seed_draws_the_images(place):
    first, again, other = (stream(place, task("a", train_per_class=5), seed=seed)[0] for seed in (0, 0, 1))
    assert numbers(first.train) == numbers(again.train)
    assert set(numbers(first.train)) != set(numbers(other.train))


def test_preparation(place):
    given_normalization = Normalization((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    made = stream(
        place,
        task("a", train_per_class=2, test_per_class=1, image_size=16),
        task("b", train_per_class=2, test_per_class=1, normalization=given_normalization, augmentation=NO_AUGMENTATION),
        task("c", train_per_class=2, test_per_class=1, augmentation=Augmentation(1, True), transform=Transform(invert=True)),
    )
    assert made[0].augmentation == Augmentation(crop=2, flip=False)
    assert made[0].train.images.shape == (8, 3, 16, 16)
    assert made[0].normalization.mean == pytest.approx((float(made[0].train.images[:, 0].double().mean()) / 255, 0, 0), abs=1e-9)
    assert (made[1].normalization, made[1].augmentation) == (given_normalization, NO_AUGMENTATION)
    assert made[2].augmentation == Augmentation(1, True)
    assert (made[2].test.images[:, 2] == 255).all()
    assert [one.transform for one in made.describe()] == ["", "", "inverted"]


def test_it_is_lazy(place, monkeypatch):
    made = stream(place, task("a", train_per_class=7), task("b", classes=2, train_per_class=2))
    opened = []
    original = Sources.open
    monkeypatch.setattr(Sources, "open", lambda self, *args: opened.append(args) or original(self, *args))
    fresh = stream(place, *made.spec.tasks)
    assert (len(fresh), opened) == (2, [])
    monkeypatch.setattr(decoding.Image, "open", lambda *args, **more: pytest.fail("decoded"))
    monkeypatch.setattr("lifelong.data.sources.FilePool.images", lambda *args: pytest.fail("decoded"))
    described = fresh.describe()
    assert fresh.fingerprint()
    list(fresh)
    assert (described[0].train, described[0].valid, described[0].image_size, described[0].source) == (28, 4, 4, "parquet:own")


def test_what_is_prepared_is_not_decoded_again(place, tmp_path, monkeypatch):
    made = SpecStream(StreamSpec("s", (task("a"), task("b", "whole", image_size=8))), 0, Sources(place, cache=tmp_path))
    made.prepare()
    monkeypatch.setattr(decoding, "_open", lambda *words: pytest.fail("an image was decoded"))
    for one in made:
        assert len(one.train) + len(one.valid) + len(one.test) > 0


def test_a_stream_keeps_no_images(place):
    made = stream(place, task("a", train_per_class=3))
    only = made[0]
    images_of_it = weakref.ref(only.train.images)
    assert images_of_it() is not None
    only.retire()
    with pytest.raises(RetiredTaskError):
        only.train  # noqa: B018
    gc.collect()
    assert images_of_it() is None


def test_fewer_tests_than_asked_are_noted(place):
    made = stream(
        place, task("a", train_per_class=3, test_per_class=9), task("b", train_per_class=3, classes=("bee", "dog"), test_per_class=1)
    )
    first, second = made.describe()
    assert first.notes == ("9 test images per class were asked for; 7 to 9 are there.",)
    assert second.notes == ()
    assert made[0].test.labels.bincount().tolist() == [8, 8, 7, 9]


def test_the_fingerprint_tells_streams_apart(place, tmp_path):
    base = task("a", train_per_class=3)
    prints = [stream(place, base).fingerprint()]
    assert stream(place, base, name="another name").fingerprint() == prints[0]
    changes: list[dict[str, Any]] = [
        {"train_per_class": 4},
        {"name": "b"},
        {"classes": ("bee", "ant", "cat", "dog")},
        {"image_size": 8},
        {"transform": Transform(invert=True)},
        {"augmentation": Augmentation(1)},
        {"normalization": Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))},
    ]
    prints += [stream(place, dataclasses.replace(base, **change)).fingerprint() for change in changes]
    prints += [stream(place, base, seed=1).fingerprint(), stream(place, base, task("b", train_per_class=3)).fingerprint()]
    made_folder(tmp_path / "own", TRAIN, TEST, names=NAMES, size=5)  # the same numbers and labels, other pixels
    prints.append(stream(tmp_path, base).fingerprint())
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    ("tasks", "line"),
    [
        ([task("a", classes=("ant", "bea"))], "task 'a': source 'parquet:own' has no class 'bea'; did you mean 'bee'?"),
        ([task("a", classes=("ant", 4))], "task 'a', class 4: source 'parquet:own' has the class ids 0..3"),
        ([task("a", classes=("ant", -1))], "task 'a', class -1"),
        ([task("a", classes=("ant", 0))], "task 'a': class 'ant' is named twice, by its name and by its id"),
        ([task("a", classes=5)], "task 'a', classes = 5: source 'parquet:own' has 4 classes"),
        ([task("a", train_per_class=18, valid_per_class=4)], "task 'a', class 'bee' of source 'parquet:own': asks for 18 training and 4"),
        ([task("a", train_per_class=10), task("b", train_per_class=12)], "task 'b', class 'bee'"),
        ([task("a"), task("b", "whole", classes=SameAs("a"))], "task 'b': source 'parquet:whole' has no class 'ant'"),
        ([TaskSpec("a", "mnits")], "unknown source 'mnits'; did you mean 'mnist'?"),
        ([TaskSpec("a", "svhn")], "no images for source 'svhn'"),
    ],
)
def test_bad_specifications(place, tasks, line):
    with pytest.raises(LifelongError) as caught:
        stream(place, *tasks).describe()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_names_of_the_same_images(place, tmp_path):
    made_folder(tmp_path / "one", [9, 9], [3, 3])
    made_folder(tmp_path / "two", [9, 9], [3, 3])
    with pytest.raises(LifelongError, match="sources 'parquet:one' and 'parquet:two' hold the same images"):
        stream(tmp_path, task("a", "one"), task("b", "two")).describe()


held_out = st.fixed_dictionaries({"valid_per_class": st.none() | st.integers(1, 8)}) | st.just({"valid_fraction": 0.3})
words = st.fixed_dictionaries(
    {
        "source": st.sampled_from(["own", "whole"]),
        "classes": st.none() | st.integers(2, 3) | st.sampled_from([(0, 1), (2, 1), ("same",)]),
        "train_per_class": st.none() | st.integers(1, 15),
        "test_per_class": st.none() | st.integers(1, 6),
        "overlap": st.booleans(),
        "shift": st.integers(0, 3),
    }
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(words, held_out), min_size=1, max_size=4), st.integers(0, 3))
def test_whatever_is_specified(place, asked, seed):
    """What is asked is what is built, nothing is judged by what anything was learned from; or there is one clear line."""
    tasks: list[TaskSpec] = []
    for number, (word, held) in enumerate(asked):
        more = {key: value for key, value in word.items() if key not in ("source", "shift", "classes")}
        classes = word["classes"]
        if classes == ("same",):
            earlier = [one.name for one in tasks if one.source.endswith(word["source"])]
            classes = SameAs(earlier[-1]) if earlier else None
        tasks.append(task(f"t{number}", word["source"], classes=classes, transform=Transform(shift_labels=word["shift"]), **more, **held))
    made = stream(place, *tasks, seed=seed)
    described, problem = attempt(made.describe)
    if described is None:
        assert "per class, but" in problem or "no test image is left" in problem
        assert "\n" not in problem
        return
    for source in ("own", "whole"):
        built = [(spec, text, one) for spec, text, one in zip(tasks, described, made, strict=True) if spec.source.endswith(source)]
        _check_built(built, true_names(place, source))


def _check_built(built: list[tuple], names: dict[int, str]) -> None:
    seen: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    own: list[int] = []
    for spec, text, one in built:
        assert isinstance(one, Task)
        for split in ("train", "valid", "test"):
            part = getattr(one, split)
            pictured = numbers(part)
            assert len(part) == getattr(text, split) > 0
            assert len(set(pictured)) == len(pictured)
            assert [names[number] for number in pictured] == [one.classes[label] for label in part.labels.tolist()]
            asked = getattr(spec, f"{split}_per_class")
            counts = part.labels.bincount(minlength=len(one.classes))
            assert counts.min() >= 1
            if asked is not None:
                assert counts.max() <= asked if split == "test" else (counts == asked).all()
            seen[split] += pictured
            if not spec.overlap:
                own += pictured
    assert len(set(own)) == len(own)
    assert not set(seen["train"]) & (set(seen["valid"]) | set(seen["test"]))
    assert not set(seen["valid"]) & set(seen["test"])
