import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.errors import LifelongError
from lifelong.streams.deal import budget, deal, even, fair
from lifelong.streams.selection import generator
from lifelong.streams.spec import TaskSpec


def task(name: str = "a", **more) -> TaskSpec:
    return TaskSpec(name=name, source="s", **more)


def counts(tasks: list[TaskSpec], available: int, tests: int | None, valids: int | None = None) -> list[tuple[int, int, int]]:
    return [(amount.train, amount.valid, amount.test) for amount in budget(tasks, "cat", available, tests, valids)]


def test_what_is_asked_is_given():
    tasks = [task(train_per_class=40, valid_per_class=10, test_per_class=5), task("b", train_per_class=30, valid_per_class=20)]
    assert counts(tasks, 100, 12) == [(40, 10, 5), (30, 20, 7)]


def test_all_that_remains_is_shared_evenly():
    tasks = [task("a"), task("b", train_per_class=27, valid_per_class=13, test_per_class=4), task("c", valid_per_class=9)]
    # 100 - 27 - 13 - 9 = 51 remain: 26 and 25; of the first's, a tenth is held out. 9 tests remain.
    assert counts(tasks, 100, 13) == [(23, 3, 5), (27, 13, 4), (25, 9, 4)]


def test_a_fraction_is_of_training_and_validation_together():
    assert counts([task(valid_fraction=0.1)], 500, 100) == [(450, 50, 100)]
    assert counts([task(train_per_class=90, valid_fraction=0.1)], 500, 100) == [(90, 10, 100)]
    assert counts([task(train_per_class=3)], 500, 100) == [(3, 1, 100)]  # at least one
    assert counts([task(valid_fraction=0.75)], 2, 100) == [(1, 1, 100)]  # and one to learn from


def test_overlapping_tasks_need_no_images_of_their_own():
    tasks = [task("a", train_per_class=80, valid_per_class=20), task("b", train_per_class=80, valid_per_class=20, overlap=True)]
    assert counts(tasks, 100, 10) == [(80, 20, 10), (80, 20, 10)]
    tasks = [task("a", train_per_class=50, valid_per_class=20), task("b", overlap=True, valid_per_class=30)]
    assert counts(tasks, 100, 10) == [(50, 20, 10), (70, 30, 10)]


def test_tests_are_carved_where_there_is_no_test_split():
    assert counts([task()], 100, None) == [(72, 8, 20)]
    assert counts([task(train_per_class=50, valid_per_class=20, test_per_class=30)], 100, None) == [(50, 20, 30)]
    assert counts([task(train_per_class=50, valid_per_class=20, test_per_class=60)], 100, None) == [(50, 20, 30)]
    assert counts([task("a"), task("b")], 100, None) == [(36, 4, 10), (36, 4, 10)]


def test_validation_images_of_the_sources_own():
    assert counts([task()], 100, 10, 30) == [(100, 30, 10)]
    assert counts([task("a", train_per_class=50), task("b", valid_per_class=20)], 100, 10, 30) == [(50, 10, 5), (50, 20, 5)]
    assert counts([task(valid_per_class=50)], 100, 10, 30) == [(100, 30, 10)]  # fewer where fewer exist, as for tests
    assert counts([task(overlap=True), task("b", overlap=True)], 100, None, 30) == [(80, 30, 20), (80, 30, 20)]
    with pytest.raises(LifelongError, match="class 'cat' of source 's': has no validation image, while others have; give it some"):
        budget([task()], "cat", 100, 10, 0)
    with pytest.raises(LifelongError, match="no validation image is left of 0 that are free"):
        budget([task(valid_per_class=3)], "cat", 100, 10, 0)


def test_a_class_with_fewer_images_than_splits_is_told_so():
    for tasks, available, tests, line in [
        ([task()], 2, None, r"has 2 images, and needs at least 3 \(training, validation, test\); add images, or leave the class out"),
        ([task()], 1, 5, r"has 1 image, and needs at least 2 \(training, validation\)"),
        ([task(), task("b")], 5, None, r"needs at least 6 \(training, validation, test, for each of 2 tasks\)"),
    ]:
        with pytest.raises(LifelongError, match=line):
            budget(tasks, "cat", available, tests)
    with pytest.raises(LifelongError, match=r"valid_fraction = 0\.2: source 's' has validation images of its own"):
        budget([task(valid_fraction=0.2)], "cat", 100, 10, 30)


@pytest.mark.parametrize(
    ("tasks", "available", "tests", "line"),
    [
        ([task(train_per_class=90, valid_per_class=20)], 100, 5, "asks for 90 training and 20 validation images per class, but 100 of 100"),
        ([task(train_per_class=60), task("b", train_per_class=60)], 100, 5, "task 'b', class 'cat' of source 's': asks for 60 training"),
        ([task(train_per_class=90, valid_per_class=10), task("b")], 100, 5, "task 'b', class 'cat' of source 's': asks for all training"),
        ([task(train_per_class=9, valid_per_class=1, overlap=True)], 9, 5, "task 'a'"),
        ([task(train_per_class=9, valid_per_class=1, overlap=True)], 0, 5, "but 0 of 0 are free"),
        ([task(train_per_class=5, valid_per_class=1)], 9, 0, "no test image is left of 0 that are free"),
        ([task(train_per_class=5, valid_per_class=4)], 9, None, "no test image is left of 0 that are free"),
        ([task(test_per_class=5), task("b")], 9, 5, "task 'b', class 'cat' of source 's': no test image is left of 5"),
    ],
)
def test_too_much_is_asked(tasks, available, tests, line):
    with pytest.raises(LifelongError) as caught:
        budget(tasks, "cat", available, tests)
    assert line in str(caught.value)
    assert "overlap = true" in str(caught.value)


def test_even_and_fair():
    assert even(11, 3) == [4, 4, 3]
    assert even(5, 0) == []
    assert fair([5, 5], 20) == [5, 5]
    assert fair([10, 2, 10], 12) == [5, 2, 5]
    assert fair([10, 10], 3) == [1, 2]
    assert fair([], 3) == []


def test_a_task_at_the_end_leaves_earlier_draws_alone():
    first = task("a", train_per_class=10, valid_per_class=5, test_per_class=3)
    second = task("b", train_per_class=7, valid_per_class=2, test_per_class=4)
    third = task("c", train_per_class=30, valid_per_class=9, test_per_class=5, overlap=True)
    rows, tests = np.arange(100), np.arange(40)
    for carved in (tests, None):
        alone = deal([first], "cat", rows, carved, 0)[0]
        together = deal([first, second, third], "cat", rows, carved, 0)[0]
        for one, other in zip((alone.train, alone.valid, alone.test), (together.train, together.valid, together.test), strict=True):
            assert np.array_equal(one, other)


def test_draws_depend_on_seed_source_and_class():
    rows = np.arange(100)
    dealt = {
        (seed, name): tuple(deal([task(train_per_class=10)], name, rows, rows, seed)[0].train) for seed in (0, 1) for name in ("cat", "dog")
    }
    assert len(set(dealt.values())) == 4
    assert dealt == {key: tuple(deal([task(train_per_class=10)], key[1], rows, rows, key[0])[0].train) for key in dealt}


def test_the_generator_is_pinned():
    """Draws must be the same on every machine and for ever: a stream's seed names its images."""
    assert generator(0, "mnist", "3", "train").integers(0, 1000, 5).tolist() == PINNED


PINNED = [454, 494, 914, 862, 204]

few = st.none() | st.integers(1, 12)


held_out = st.fixed_dictionaries({"valid_per_class": few}) | st.fixed_dictionaries({"valid_fraction": st.floats(0.05, 0.9)})
asked = st.tuples(st.fixed_dictionaries({"train_per_class": few, "test_per_class": few, "overlap": st.booleans()}), held_out)


def clearly_enough(tasks: list[TaskSpec], available: int, tests: int | None, valids: int | None) -> bool:
    """Whether there is more than enough for everybody, by a rough count, and nothing that excludes each other is asked."""
    train = sum(one.train_per_class or 2 for one in tasks)
    largest = max(one.valid_fraction or 0.1 for one in tasks)
    valid = sum(one.valid_per_class or 1 + round((one.train_per_class or available) * largest / (1 - largest)) for one in tasks)
    if valids is not None:
        if any(one.valid_fraction for one in tasks) or sum(one.valid_per_class or 1 for one in tasks) > valids:
            return False
        valid = 0
    judged = sum(one.test_per_class or available // 5 + 1 for one in tasks)
    if tests is None:
        return train + valid + judged <= available
    return train + valid <= available and sum(one.test_per_class or 1 for one in tasks) <= tests


@settings(max_examples=800, deadline=None)
@given(st.lists(asked, min_size=1, max_size=5), st.integers(0, 80), *[st.none() | st.integers(0, 40)] * 2, st.integers(0, 5))
def test_whatever_is_asked(words, available, tests, valids, seed):
    """Either one clear line, or what was asked, and nothing that is learned from is ever judged by."""
    tasks = [task(f"t{number}", **counts, **held) for number, (counts, held) in enumerate(words)]
    rows = 1000 + np.arange(available)
    test_rows = None if tests is None else np.arange(tests)
    valid_rows = None if valids is None else 5000 + np.arange(valids)
    try:
        pieces = deal(tasks, "cat", rows, test_rows, seed, valid_rows)
    except LifelongError as error:
        problem = str(error)
    else:
        problem = ""
    if problem:
        assert "\n" not in problem
        assert not clearly_enough(tasks, available, tests, valids)
        return
    everything = set(rows)
    for one, piece in zip(tasks, pieces, strict=True):
        assert len(piece.train) == one.train_per_class or (one.train_per_class is None and len(piece.train) >= 1)
        if valid_rows is None:
            assert len(piece.valid) == one.valid_per_class or (one.valid_per_class is None and len(piece.valid) >= 1)
        else:
            assert 1 <= len(piece.valid) <= (one.valid_per_class or len(valid_rows))
            assert set(piece.valid) <= set(valid_rows)
        assert 1 <= len(piece.test) <= (one.test_per_class or available + (tests or 0))
        for part in (piece.train, *([piece.valid] if valids is None else []), *([piece.test] if tests is None else [])):
            assert len(set(part)) == len(part)
            assert set(part) <= everything
        if test_rows is not None:
            assert set(piece.test) <= set(test_rows)
    trained = set().union(*(set(piece.train) for piece in pieces))
    for piece in pieces:
        assert not trained & set(piece.valid)
        if tests is None:
            assert not trained & set(piece.test)
    valid, test = (set().union(*(set(getattr(piece, split)) for piece in pieces)) for split in ("valid", "test"))
    assert tests is not None or not valid & test
    own = [piece for one, piece in zip(tasks, pieces, strict=True) if not one.overlap]
    for split in ("train", "valid", "test"):
        parts = [getattr(piece, split) for piece in own]
        assert len(set().union(*map(set, parts))) == sum(map(len, parts))
