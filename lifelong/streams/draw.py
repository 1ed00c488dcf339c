"""Which images of one class go to which task and split.

The images of a class stand in one seeded order. Training images are dealt from its front, held-out ones from its back, task by task,
so that nothing is dealt twice, and so that a task added at the end of a stream leaves the draws of earlier tasks as they were. A task
with `overlap` draws afresh: its training images from everything that no task holds out, its validation and test images from what is
held out for that. So no image that any task trains on is ever one that a task is chosen or judged by.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lifelong.errors import LifelongError
from lifelong.streams.spec import VALID_FRACTION, TaskSpec

CARVED_TEST = 0.2
"""The part of a class that is for tests where the source has no test split and no task says how much."""

Rows = np.ndarray
"""Positions of images in a split of a source, int64."""


@dataclass
class Amount:
    """How many images of a class a task gets."""

    train: int
    valid: int
    test: int


@dataclass(frozen=True)
class Piece:
    """The images of a class that a task gets; `test` counts in the train split where the source has no other."""

    train: Rows
    valid: Rows
    test: Rows


def generator(*words: str | int) -> np.random.Generator:
    """A random generator that depends on nothing but the words."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:16], "big"))


def deal(tasks: Sequence[TaskSpec], name: str, train: Rows, test: Rows | None, seed: int) -> list[Piece]:
    """The images of one class of one source for each task that asks for it.

    Args:
        tasks: those tasks, in stream order; all of one source.
        name: the class.
        train: the class's images in the source's train split.
        test: those in its test split; None where it has none.
        seed: the stream's seed.

    Raises:
        LifelongError: more is asked than there is.
    """
    amounts = budget(tasks, name, len(train), None if test is None else len(test))
    source = tasks[0].source
    order = train[generator(seed, source, name, "train").permutation(len(train))]
    tests = None if test is None else test[generator(seed, source, name, "test").permutation(len(test))]
    front, back, used = 0, len(order), 0
    pieces: dict[int, Piece] = {}
    held: list[Rows] = []
    judged: list[Rows] = []

    def from_back(count: int) -> Rows:
        nonlocal back
        back -= count
        return order[back : back + count]

    for number, (task, amount) in enumerate(zip(tasks, amounts, strict=True)):
        if task.overlap:
            continue
        valid = from_back(amount.valid)
        part = from_back(amount.test) if tests is None else tests[used : used + amount.test]
        used += amount.test
        pieces[number] = Piece(order[front : front + amount.train], valid, part)
        front += amount.train
        held.append(valid)
        judged.append(part)

    shared = [amount for task, amount in zip(tasks, amounts, strict=True) if task.overlap]
    if shared:
        held.append(from_back(max(0, max(amount.valid for amount in shared) - sum(map(len, held)))))
        if tests is None:
            judged.append(from_back(max(0, max(amount.test for amount in shared) - sum(map(len, judged)))))
        valid_pool, test_pool = np.concatenate(held), np.concatenate(judged) if tests is None else tests
        for number, (task, amount) in enumerate(zip(tasks, amounts, strict=True)):
            if task.overlap:
                chance = generator(seed, source, name, "overlap", task.name)
                pools = ((order[:back], amount.train), (valid_pool, amount.valid), (test_pool, amount.test))
                pieces[number] = Piece(*(chance.permutation(pool)[:count] for pool, count in pools))
    return [pieces[number] for number in range(len(tasks))]


def budget(tasks: Sequence[TaskSpec], name: str, available: int, tests: int | None) -> list[Amount]:
    """How many images of one class each task gets: what it asks for, or its share of what remains.

    Args:
        tasks: the tasks that ask for the class, in stream order; all of one source.
        name: the class.
        available: its images in the source's train split.
        tests: its images in the test split; None where the source has none, and tests are held out of the train split.

    Raises:
        LifelongError: more is asked than there is; the line names the task.
    """
    amounts = [_fixed(task, available) for task in tasks]
    own = [(task, amount) for task, amount in zip(tasks, amounts, strict=True) if not task.overlap]
    shared = [(task, amount) for task, amount in zip(tasks, amounts, strict=True) if task.overlap]
    open_tasks = [(task, amount) for task, amount in own if task.train_per_class is None]
    valid = max(sum(amount.valid for _, amount in own), max((amount.valid for _, amount in shared), default=0))
    # An image or two for each task that takes what remains: that is the least it can do with.
    least = sum(1 if amount.valid else 2 for _, amount in open_tasks)
    taken = sum(amount.train for _, amount in own) + valid
    _check_fit(own, shared, name, available)
    if tests is None:
        _share_tests(own, shared, name, available - taken - least, max(1, round(CARVED_TEST * available)))
        held = max(sum(amount.test for _, amount in own), max((amount.test for _, amount in shared), default=0))
        taken += held
    else:
        _share_tests(own, shared, name, tests, tests)
        held = 0
    shares = even(max(0, available - taken), len(open_tasks))
    for (task, amount), share in zip(open_tasks, shares, strict=True):
        if share < (1 if amount.valid else 2):
            raise _too_many(task, name, "all training images that remain", share, available)
        if not amount.valid:
            amount.valid = min(max(1, round(_fraction(task) * share)), share - 1)
            share -= amount.valid
            valid += amount.valid
        amount.train = share
    for task, amount in shared:
        free = available - valid - held
        if task.train_per_class is None:
            amount.train = free
        if not 1 <= amount.train <= free:
            raise _too_many(task, name, f"{max(1, amount.train)} training images", max(0, free), available)
    return amounts


def even(total: int, parts: int) -> list[int]:
    """A total in equal parts; the first ones get what is over."""
    return [total // parts + (number < total % parts) for number in range(parts)]


def fair(asked: Sequence[int], total: int) -> list[int]:
    """What each gets of a total: all it asks where that is enough; else those who ask for much get less, alike."""
    got, left = [0] * len(asked), total
    order = sorted(range(len(asked)), key=lambda number: (asked[number], number))
    for position, number in enumerate(order):
        got[number] = min(asked[number], left // (len(order) - position))
        left -= got[number]
    return got


def _fraction(task: TaskSpec) -> float:
    return VALID_FRACTION if task.valid_fraction is None else task.valid_fraction


def _fixed(task: TaskSpec, available: int) -> Amount:
    """What a task's own numbers say; 0 where it depends on what the others leave."""
    train = task.train_per_class or 0
    valid = task.valid_per_class or 0
    if not valid and (train or task.overlap):
        fraction = _fraction(task)
        valid = max(1, round(train * fraction / (1 - fraction) if train else available * fraction))
    return Amount(train, valid, task.test_per_class or 0)


Asked = list[tuple[TaskSpec, Amount]]


def _check_fit(own: Asked, shared: Asked, name: str, available: int) -> None:
    """Fixed training and validation counts must fit, in stream order."""
    left = available
    for task, amount in own:
        if amount.train + amount.valid > left:
            raise _too_many(task, name, _both(amount), left, available)
        left -= amount.train + amount.valid
    held = sum(amount.valid for _, amount in own)
    for task, amount in shared:
        if amount.valid - held > left or amount.train + amount.valid > available:
            raise _too_many(task, name, _both(amount), max(0, left), available)


def _both(amount: Amount) -> str:
    asked = [f"{count} {kind}" for count, kind in ((amount.train, "training"), (amount.valid, "validation")) if count]
    return f"{' and '.join(asked)} images"


def _share_tests(own: Asked, shared: Asked, name: str, available: int, unasked: int) -> None:
    """Test images: fewer than asked where fewer exist, but none is an error.

    Args:
        available: how many there are.
        unasked: how many tasks that name no number get together, at most.
    """
    for (_, amount), got in zip(own, fair([amount.test for _, amount in own], max(0, available)), strict=True):
        amount.test = got
    rest = available - sum(amount.test for _, amount in own)
    openly = [amount for task, amount in own if task.test_per_class is None]
    for amount, share in zip(openly, even(max(0, min(rest, unasked)), len(openly)), strict=True):
        amount.test = share
    for task, amount in shared:
        amount.test = min(unasked if task.test_per_class is None else amount.test, available)
    for task, amount in (*own, *shared):
        if amount.test < 1:
            raise LifelongError(
                f"task '{task.name}', class '{name}' of source '{task.source}': no test image is left of {max(0, available)}"
                " that are free; ask for fewer in this task and the others, or set overlap = true"
            )


def _too_many(task: TaskSpec, name: str, asked: str, left: int, available: int) -> LifelongError:
    return LifelongError(
        f"task '{task.name}', class '{name}' of source '{task.source}': asks for {asked} per class, but {left} of {available}"
        " are free; lower train_per_class or valid_per_class here or in the stream's other tasks, or set overlap = true"
    )
