"""No image to learn from is one to be judged by, copies included."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.data.sources import Source, Sources
from lifelong.data.split_names import SPLITS
from lifelong.errors import LifelongError
from lifelong.streams.build import SpecStream
from lifelong.streams.leakage import Learned, remove_leakage, remove_leakage_from_learned
from lifelong.streams.selection import Selection
from lifelong.streams.spec import StreamSpec, TaskSpec
from tests.parquet_files import numbered, png, write_parquet


class Numbers:
    """A pool of images that are only numbers."""

    def __init__(self, contents: list[int]) -> None:
        self._contents = np.array(contents, np.uint64)
        self.labels = torch.zeros(len(contents), dtype=torch.int64)

    def contents(self) -> np.ndarray:
        return self._contents

    def images(self, indices, size):
        raise AssertionError("no image is needed")

    def fingerprint(self) -> str:
        return str(self._contents)


def source(**pools: list[int]) -> Source:
    return Source("s", ("a", "b"), False, "", {name: Numbers(contents) for name, contents in pools.items()})  # ty: ignore


def taken(**rows: list[int]) -> Selection:
    return Selection(*({split: np.array(rows[split]) * factor for split in SPLITS} for factor in (1, 0)))


TASK = TaskSpec("t", "s")

pool = st.lists(st.integers(0, 12), min_size=1, max_size=12)
one_task = st.tuples(pool, pool, pool)


@settings(max_examples=300, deadline=None)
@given(st.lists(one_task, min_size=1, max_size=4))
def test_as_a_plain_loop_does_it(tasks):
    sources = [source(train=train, valid=valid, test=test) for train, valid, test in tasks]
    everything = [taken(train=range(len(a)), valid=range(len(b)), test=range(len(c))) for a, b, c in tasks]  # ty: ignore
    judged = {number for _, valid, test in tasks for number in (*valid, *test)}
    tests = {number for _, _, test in tasks for number in test}
    want = [([n for n in train if n not in judged], [n for n in valid if n not in tests], test) for train, valid, test in tasks]
    if not all(train and valid for train, valid, _ in want):
        with pytest.raises(LifelongError, match=r"\A.*every one of its .*\Z"):
            remove_leakage([TASK] * len(tasks), sources, everything)
        return
    kept = remove_leakage([TASK] * len(tasks), sources, everything)
    got = [
        tuple([int(one.contents(split)[row]) for row in part.rows[split]] for split in SPLITS)
        for one, part in zip(sources, kept, strict=True)
    ]
    assert got == want
    for part, before, after in zip(kept, tasks, want, strict=True):
        assert len(part.ids["train"]) == len(after[0])
        assert len(part.notes) == (len(before[0]) > len(after[0])) + (len(before[1]) > len(after[1]))


@settings(max_examples=200, deadline=None)
@given(one_task, st.lists(one_task, min_size=1, max_size=3))
def test_a_new_task_is_kept_off_what_was_learned_as_a_plain_loop_does_it(new, before):
    contents = {split: np.array(numbers, np.uint64) for split, numbers in zip(SPLITS, new, strict=True)}
    learned = [
        Learned(str(at), {split: np.array(numbers, np.uint64) for split, numbers in zip(SPLITS, task, strict=True)})
        for at, task in enumerate(before)
    ]
    seen, chosen, judged = ({number for task in before for number in task[split]} for split in range(3))
    want = (
        [number for number in new[0] if number not in chosen | judged],
        [number for number in new[1] if number not in judged],
        [number for number in new[2] if number not in seen | chosen],
    )
    part = taken(train=range(len(new[0])), valid=range(len(new[1])), test=range(len(new[2])))  # ty: ignore
    if not all(want):
        with pytest.raises(LifelongError, match="image is left"):
            remove_leakage_from_learned(TASK, contents, part, learned)
        return
    kept = remove_leakage_from_learned(TASK, contents, part, learned)
    assert tuple(contents[split][kept.rows[split]].tolist() for split in SPLITS) == want
    assert all(len(kept.ids[split]) == len(kept.rows[split]) for split in SPLITS)
    said = sum(int(note.split()[0]) for note in kept.notes if "left out" in note)
    assert said == sum(map(len, new)) - sum(map(len, want))


def test_what_was_left_out_is_said():
    """One picture is a training image of the first task and a test image of the second, another a validation and a test image."""
    sources = [source(train=[1, 2, 3], valid=[4, 5], test=[6]), source(train=[7], valid=[8], test=[2, 5, 9])]
    first, second = remove_leakage(
        [TASK] * 2, sources, [taken(train=[0, 1, 2], valid=[0, 1], test=[0]), taken(train=[0], valid=[0], test=[0, 1, 2])]
    )
    assert first.rows["train"].tolist() == [0, 2]
    assert first.rows["valid"].tolist() == [0]
    assert second.notes == ()
    assert first.notes == (
        "1 training image left out: the source holds the same content among the stream's validation or test images.",
        "1 validation image left out: the source holds the same content among the stream's test images.",
    )
    with pytest.raises(LifelongError, match="every one of its 1 training images is also a validation or test image"):
        remove_leakage([TASK], [source(train=[1], valid=[2], test=[1])], [taken(train=[0], valid=[0], test=[0])])


def test_copies_in_files(tmp_path):
    """The same file stands in train and test: it stays in test, and the description counts it."""
    images = [png(pixels) for pixels in numbered(40)]
    write_parquet(tmp_path / "s" / "train-0.parquet", images, {"label": [0, 1] * 20})
    write_parquet(
        tmp_path / "s" / "test-0.parquet", [images[6], images[7], png(numbered(1, start=50)[0]), images[8]], {"label": [0, 1, 0, 1]}
    )
    spec = StreamSpec("s", (TaskSpec("t", "parquet:s", image_size=4, valid_per_class=5),))
    stream = SpecStream(spec, 0, Sources(tmp_path, cache=tmp_path / "cache"))
    parts = {split: {tuple(image.flatten().tolist()) for image in getattr(stream[0], split).images} for split in SPLITS}
    assert not parts["train"] & (parts["valid"] | parts["test"])
    assert not parts["valid"] & parts["test"]
    described = stream.describe()[0]
    assert described.test == 4
    assert described.train + described.valid == 37
    assert sum(int(note.split()[0]) for note in described.notes) == 3


def test_a_class_whose_training_images_are_all_judged_is_named(tmp_path):
    """It could not be learned; the other class keeps its images."""
    images = [png(pixels) for pixels in numbered(40)]
    write_parquet(tmp_path / "s" / "train-0.parquet", images, {"label": [0] * 36 + [1] * 4})
    write_parquet(tmp_path / "s" / "test-0.parquet", [*images[36:], images[0]], {"label": [1] * 4 + [0]})
    spec = StreamSpec("s", (TaskSpec("t", "parquet:s", image_size=4, valid_per_class=1),))
    with pytest.raises(LifelongError, match=r"class '1' of source 'parquet:s': no training image is left, since what it had \(3\) is also"):
        SpecStream(spec, 0, Sources(tmp_path, cache=tmp_path / "cache")).describe()
