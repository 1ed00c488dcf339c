"""CTrL's fixed pools, against a plain version and against the sizes that are known of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.data.split_names import SPLITS
from lifelong.errors import LifelongError
from lifelong.streams.pools import FixedPools
from lifelong.streams.selection import SourceLabels
from lifelong.streams.spec import TaskSpec


def held(train: list[int], test: list[int], valid: list[int] | None = None) -> SourceLabels:
    """A source `s` with so many images of the classes a, b, ..., mixed."""
    counts = {"train": train, "test": test} | ({} if valid is None else {"valid": valid})
    labels = {pool: np.random.default_rng(1).permutation(np.repeat(np.arange(len(each)), each)) for pool, each in counts.items()}
    return SourceLabels("s", tuple("abcdefghij"[: len(train)]), labels)  # ty: ignore


def sizes(pools) -> dict[str, list[int]]:
    return {split: [len(rows) for rows in pools[split]] for split in SPLITS}


def test_the_pools_are_those_of_a_plain_loop():
    """One generator with CTrL's seed; class by class in the given order, first those it names."""
    source = held([7, 9, 8, 6], [2, 2, 2, 2])
    pools = FixedPools(2, order=("c", "a")).pools(source)
    chance = np.random.RandomState(17)
    for number in (2, 0, 1, 3):
        rows = [place for place, label in enumerate(source.labels["train"]) if label == number]
        order = chance.permutation(len(rows))
        assert pools["valid"][number].tolist() == [rows[place] for place in order[-2:]]
        assert pools["train"][number].tolist() == [rows[place] for place in order[:-2]]
        assert sorted(pools["test"][number]) == [place for place, label in enumerate(source.labels["test"]) if label == number]


@pytest.mark.parametrize(
    ("per_class", "valid", "expected"),
    [
        (5000, 500, (4500, 500)),  # CIFAR-10
        (500, 50, (450, 50)),  # CIFAR-100
        (5421, 500, (4921, 500)),  # MNIST's rarest class
        (4659, 500, (4159, 500)),  # SVHN's
        (80, 27, (53, 27)),  # DTD
        (1000, 500, (500, 500)),  # reduced copies: never more than a half
        (999, 500, (500, 499)),
        (3, 500, (2, 1)),
        (2, 27, (1, 1)),
    ],
)
def test_sizes(per_class, valid, expected):
    pools = FixedPools(valid).pools(held([per_class, per_class], [4, 5]))
    assert sizes(pools) == {"train": [expected[0]] * 2, "valid": [expected[1]] * 2, "test": [4, 5]}


def test_a_validation_split_of_its_own_is_kept():
    source = held([6, 6], [3, 3], valid=[2, 4])
    pools = FixedPools(3).pools(source)
    assert sizes(pools) == {"train": [6, 6], "valid": [2, 4], "test": [3, 3]}
    assert set(source.labels["valid"][pools["valid"][1]]) == {1}


wishes = st.none() | st.integers(1, 12)
asked_task = st.tuples(st.lists(st.integers(0, 3), min_size=2, max_size=4, unique=True), wishes, wishes, wishes)


def task(name, asked) -> TaskSpec:
    classes, train, valid, test = asked
    return TaskSpec(name, "s", classes=tuple(classes), train_per_class=train, valid_per_class=valid, test_per_class=test)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(2, 14), min_size=4, max_size=4), st.integers(1, 9), st.lists(asked_task, min_size=1, max_size=4), st.integers(0, 9)
)
def test_every_task_gets_what_it_asks_for_from_the_pools(counts, valid, asked, seed):
    source = held(counts, [5, 3, 1, 2])
    draw = FixedPools(valid)
    pools = draw.pools(source)
    tasks = [task(f"t{number}", each) for number, each in enumerate(asked)]
    ids = [tuple(classes) for classes, *_ in asked]
    taken = draw.divide(tasks, ids, source, seed)
    for spec, wanted, part in zip(tasks, ids, taken, strict=True):
        for split, wish in zip(SPLITS, (spec.train_per_class, spec.valid_per_class, spec.test_per_class), strict=True):
            assert len(part.rows[split]) == len(part.ids[split])
            for number in wanted:
                rows = part.rows[split][part.ids[split] == number].tolist()
                pool = pools[split][number].tolist()
                assert len(rows) == (len(pool) if wish is None else min(wish, len(pool)))
                assert len(set(rows)) == len(rows)
                assert set(rows) <= set(pool)
    last = draw.divide(tasks[-1:], ids[-1:], source, seed)[0]
    assert all(np.array_equal(last.rows[split], taken[-1].rows[split]) for split in SPLITS), "whatever other tasks there are"


def test_tasks_and_seeds_draw_for_themselves():
    source = held([60, 60], [30, 30])
    asked = ([0, 1], 10, 8, 12)
    tasks = [task("a", asked), task("b", asked)]
    draws = [FixedPools(20).divide(tasks, [(0, 1), (0, 1)], source, seed) for seed in (0, 0, 1)]
    for split in SPLITS:
        first, again, other = ([part.rows[split].tolist() for part in draw] for draw in draws)
        assert first == again
        assert first[0] != first[1]
        assert first[0] != other[0]


def test_what_is_capped_is_said():
    source = held([10, 12], [30, 4])
    part = FixedPools(5).divide([task("a", ([0, 1], 6, 5, 20))], [(0, 1)], source, 0)[0]
    assert part.notes == (
        "6 training images per class were asked for; 5 to 6 are there.",
        "20 test images per class were asked for; 4 to 20 are there.",
    )
    assert FixedPools(5).divide([task("a", ([0, 1], 5, 5, 4))], [(0, 1)], source, 0)[0].notes == ()


def test_what_cannot_be_drawn_is_one_clear_line():
    with pytest.raises(LifelongError, match="source 's' has no test split"):
        FixedPools(1).pools(SourceLabels("s", ("a", "b"), {"train": np.array([0, 1])}))
    with pytest.raises(LifelongError, match=r"task 't', class 'b' of source 's': there is no validation image"):
        FixedPools(1).divide([task("t", ([0, 1], 1, 1, 1))], [(0, 1)], held([2, 1], [1, 1]), 0)
