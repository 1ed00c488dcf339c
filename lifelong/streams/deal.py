"""Deal the images of a source among tasks, unless a stream says otherwise.

The images of a class stand in one seeded order. Training images are dealt from its front, held-out ones from its back, task by task,
so that nothing is dealt twice, and so that a task added at the end of a stream leaves the draws of earlier tasks as they were. A task
with `overlap` draws afresh: its training images from everything that no task holds out, its validation and test images from what is
held out for that. So no task trains on an image that any task validates or tests on.

Validation and test images come from the source's own splits where it has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lifelong.data.split_names import IN_WORDS, SPLITS, SplitName
from lifelong.errors import LifelongError
from lifelong.streams.selection import Rows, Selection, SourceLabels, generator
from lifelong.streams.spec import VALID_FRACTION, TaskSpec

CARVED_TEST = 0.2
"""The part of a class that is for tests where the source has no test split and no task says how much."""


@dataclass
class Amount:
    """How many images of a class a task gets."""

    train: int
    valid: int
    test: int


@dataclass(frozen=True)
class Piece:
    """The images of a class that a task gets; valid and test ones count in the train pool where the source has no other."""

    train: Rows
    valid: Rows
    test: Rows


@dataclass(frozen=True)
class Deal:
    """Every class is dealt for itself."""

    def divide(self, tasks: Sequence[TaskSpec], ids: Sequence[tuple[int, ...]], held: SourceLabels, seed: int) -> list[Selection]:
        """Divide the images among the tasks; see `Draw`."""
        pieces: list[dict[int, Piece]] = [{} for _ in tasks]
        for number, name in enumerate(held.classes):
            asking = [index for index, wanted in enumerate(ids) if number in wanted]
            if asking:
                train, valid, test = (held.rows(pool, number) if held.has(pool) else None for pool in SPLITS)
                assert train is not None
                if not len(train):
                    raise _none_to_learn_from(tasks[asking[0]], name, held, number)
                dealt = deal([tasks[index] for index in asking], name, train, test, seed, valid)
                for index, piece in zip(asking, dealt, strict=True):
                    pieces[index][number] = piece
        return [_together(task, wanted, piece) for task, wanted, piece in zip(tasks, ids, pieces, strict=True)]


def _together(task: TaskSpec, wanted: tuple[int, ...], pieces: dict[int, Piece]) -> Selection:
    """Join one task's pieces, class by class."""
    parts: dict[SplitName, list[Rows]] = {
        "train": [pieces[number].train for number in wanted],
        "valid": [pieces[number].valid for number in wanted],
        "test": [pieces[number].test for number in wanted],
    }
    rows = {split: np.concatenate(part) for split, part in parts.items()}
    ids = {split: np.repeat(wanted, [len(each) for each in part]) for split, part in parts.items()}
    notes = [
        *_shortfall("validation", task.valid_per_class, parts["valid"]),
        *_shortfall("test", task.test_per_class, parts["test"]),
    ]
    return Selection(rows, ids, tuple(notes))


def _shortfall(kind: str, asked: int | None, parts: Sequence[Rows]) -> list[str]:
    """Note that a class has fewer validation or test images than were asked for."""
    counts = [len(part) for part in parts]
    if asked is None or min(counts) >= asked:
        return []
    got = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    return [f"{asked} {kind} images per class were asked for; {got} are there."]


def deal(tasks: Sequence[TaskSpec], name: str, train: Rows, test: Rows | None, seed: int, valid: Rows | None = None) -> list[Piece]:
    """Deal the images of one class of one source to the tasks that ask for it.

    Args:
        tasks: those tasks, in stream order; all of one source.
        name: the class.
        train: the class's images in the source's train split.
        test: those in its test split; None where it has none.
        seed: the stream's seed.
        valid: those in its validation split; None where it has none.

    Raises:
        LifelongError: tasks ask for more images than there are.
    """
    amounts = budget(tasks, name, len(train), *(None if pool is None else len(pool) for pool in (test, valid)))
    order, tests, valids = (
        None if pool is None else pool[generator(seed, tasks[0].drawn_by, name, word).permutation(len(pool))]
        for pool, word in ((train, "train"), (test, "test"), (valid, "valid"))
    )
    assert order is not None
    front, back = 0, len(order)
    used = {"valid": 0, "test": 0}
    pieces: dict[int, Piece] = {}
    held: list[Rows] = []
    judged: list[Rows] = []

    def from_back(count: int) -> Rows:
        nonlocal back
        back -= count
        return order[back : back + count]

    def take(own: Rows | None, word: str, count: int) -> Rows:
        """Take the next images of the source's own split, or the next from the back."""
        if own is None:
            return from_back(count)
        used[word] += count
        return own[used[word] - count : used[word]]

    for number, (task, amount) in enumerate(zip(tasks, amounts, strict=True)):
        if task.overlap:
            continue
        held.append(take(valids, "valid", amount.valid))
        judged.append(take(tests, "test", amount.test))
        pieces[number] = Piece(order[front : front + amount.train], held[-1], judged[-1])
        front += amount.train

    shared = [amount for task, amount in zip(tasks, amounts, strict=True) if task.overlap]
    if shared:
        if valids is None:
            held.append(from_back(max(0, max(amount.valid for amount in shared) - sum(map(len, held)))))
        if tests is None:
            judged.append(from_back(max(0, max(amount.test for amount in shared) - sum(map(len, judged)))))
        valid_pool = np.concatenate(held) if valids is None else valids
        test_pool = np.concatenate(judged) if tests is None else tests
        for number, (task, amount) in enumerate(zip(tasks, amounts, strict=True)):
            if task.overlap:
                chance = generator(seed, task.drawn_by, name, "overlap", task.name)
                pools = ((order[:back], amount.train), (valid_pool, amount.valid), (test_pool, amount.test))
                pieces[number] = Piece(*(chance.permutation(pool)[:count] for pool, count in pools))
    return [pieces[number] for number in range(len(tasks))]


def budget(tasks: Sequence[TaskSpec], name: str, available: int, tests: int | None, valids: int | None = None) -> list[Amount]:
    """Compute how many images of one class each task gets: what it asks for, or its share of what remains.

    Args:
        tasks: the tasks that ask for the class, in stream order; all of one source.
        name: the class.
        available: its images in the source's train split.
        tests: its images in the test split; None where the source has none, and tests are held out of the train split.
        valids: its images in the validation split; None where the source has none, and they are held out of the train split.

    Raises:
        LifelongError: tasks ask for more images than there are; the line names the task.
    """
    carved = valids is None
    _check_enough(tasks, name, available, carved, tests is None)
    amounts = [_fixed(task, available, carved) for task in tasks]
    own = [(task, amount) for task, amount in zip(tasks, amounts, strict=True) if not task.overlap]
    shared = [(task, amount) for task, amount in zip(tasks, amounts, strict=True) if task.overlap]
    open_tasks = [(task, amount) for task, amount in own if task.train_per_class is None]
    if valids is not None:
        _share(own, shared, name, "valid", valids, valids)
    valid = max(sum(amount.valid for _, amount in own), max((amount.valid for _, amount in shared), default=0)) if carved else 0
    # An image or two for each task that takes what remains: that is the least it can do with.
    least = sum(1 if amount.valid else 2 for _, amount in open_tasks)
    taken = sum(amount.train for _, amount in own) + valid
    _check_fit(own, shared, name, available, carved)
    if tests is None:
        _share(own, shared, name, "test", available - taken - least, max(1, round(CARVED_TEST * available)))
        held = max(sum(amount.test for _, amount in own), max((amount.test for _, amount in shared), default=0))
        taken += held
    else:
        _share(own, shared, name, "test", tests, tests)
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
    """Divide a total into equal parts; the first ones get the remainder."""
    return [total // parts + (number < total % parts) for number in range(parts)]


def fair(asked: Sequence[int], total: int) -> list[int]:
    """Share a total: everyone gets what they ask for if it suffices; else the largest requests are cut to the same amount."""
    got, left = [0] * len(asked), total
    order = sorted(range(len(asked)), key=lambda number: (asked[number], number))
    for position, number in enumerate(order):
        got[number] = min(asked[number], left // (len(order) - position))
        left -= got[number]
    return got


def _fraction(task: TaskSpec) -> float:
    return VALID_FRACTION if task.valid_fraction is None else task.valid_fraction


def _fixed(task: TaskSpec, available: int, carved: bool) -> Amount:
    """Return the amounts that a task fixes itself; 0 where they depend on what the others leave.

    Args:
        task: the task.
        available: images of the class in the train split.
        carved: whether validation images come from there too.
    """
    train = task.train_per_class or 0
    valid = task.valid_per_class or 0
    if carved:
        if not valid and (train or task.overlap):
            fraction = _fraction(task)
            valid = max(1, round(train * fraction / (1 - fraction) if train else available * fraction))
    elif task.valid_fraction is not None:
        raise LifelongError(
            f"task '{task.name}', valid_fraction = {task.valid_fraction}: source '{task.source}' has validation images of its own;"
            " drop it, or say valid_per_class"
        )
    return Amount(train, valid, task.test_per_class or 0)


Asked = list[tuple[TaskSpec, Amount]]


def _check_enough(tasks: Sequence[TaskSpec], name: str, available: int, carved: bool, judged: bool) -> None:
    """Check that a class has an image for each split of each task, if none of them says how many it wants.

    Args:
        tasks: those that ask for the class.
        name: the class.
        available: its images in the train split.
        carved, judged: whether validation and test images come from there too.
    """
    kinds = ["training", *(["validation"] if carved else []), *(["test"] if judged else [])]
    if available < len(kinds) * len(tasks) and not any(_asks(task) for task in tasks):
        each = f"{len(kinds) * len(tasks)} ({', '.join(kinds)}{f', for each of {len(tasks)} tasks' if len(tasks) > 1 else ''})"
        raise LifelongError(
            f"task '{tasks[0].name}', class '{name}' of source '{tasks[0].source}': has {available} image{'' if available == 1 else 's'},"
            f" and needs at least {each}; add images, or leave the class out"
        )


def _asks(task: TaskSpec) -> bool:
    """Return whether a task says how many images it wants, or shares them."""
    return task.overlap or any(count is not None for count in (task.train_per_class, task.valid_per_class, task.test_per_class))


def _check_fit(own: Asked, shared: Asked, name: str, available: int, carved: bool) -> None:
    """Check that the fixed counts of images from the train split fit, in stream order."""
    left = available
    for task, amount in own:
        valid = amount.valid if carved else 0
        if amount.train + valid > left:
            raise _too_many(task, name, _both(amount.train, valid), left, available)
        left -= amount.train + valid
    held = sum(amount.valid for _, amount in own) if carved else 0
    for task, amount in shared:
        valid = amount.valid if carved else 0
        if valid - held > left or amount.train + valid > available:
            raise _too_many(task, name, _both(amount.train, valid), max(0, left), available)


def _both(train: int, valid: int) -> str:
    asked = [f"{count} {kind}" for count, kind in ((train, "training"), (valid, "validation")) if count]
    return f"{' and '.join(asked)} images"


def _share(own: Asked, shared: Asked, name: str, split: Literal["valid", "test"], available: int, unasked: int) -> None:
    """Share the images of a validation or test split: fewer than asked for if fewer exist, but none is an error.

    Args:
        own: the tasks that share no image, and their amounts, which are filled in.
        shared: those that may.
        name: the class.
        split: which of the two.
        available: how many there are.
        unasked: how many tasks that name no number get together, at most.
    """
    for (_, amount), got in zip(own, fair([getattr(amount, split) for _, amount in own], max(0, available)), strict=True):
        setattr(amount, split, got)
    rest = available - sum(getattr(amount, split) for _, amount in own)
    openly = [amount for task, amount in own if getattr(task, f"{split}_per_class") is None]
    for amount, share in zip(openly, even(max(0, min(rest, unasked)), len(openly)), strict=True):
        setattr(amount, split, share)
    for task, amount in shared:
        named = getattr(task, f"{split}_per_class") is not None
        setattr(amount, split, min(getattr(amount, split) if named else unasked, available))
    for task, amount in (*own, *shared):
        if getattr(amount, split) < 1:
            if available < 1 and not _asks(task):
                raise LifelongError(
                    f"task '{task.name}', class '{name}' of source '{task.source}': has no {IN_WORDS[split]} image, while others have;"
                    " give it some, or leave the class out"
                )
            raise LifelongError(
                f"task '{task.name}', class '{name}' of source '{task.source}': no {IN_WORDS[split]} image is left of {max(0, available)}"
                " that are free; ask for fewer in this task and the others, or set overlap = true"
            )


def _none_to_learn_from(task: TaskSpec, name: str, held: SourceLabels, number: int) -> LifelongError:
    others = [f"{len(held.rows(pool, number))} in {pool}" for pool in ("valid", "test") if held.has(pool)]
    return LifelongError(
        f"task '{task.name}', class '{name}' of source '{task.source}': no training image ({', '.join(others)});"
        " if its name is a misspelling of another class, correct it; else list the wanted classes in a TOML file: classes = [...]"
    )


def _too_many(task: TaskSpec, name: str, asked: str, left: int, available: int) -> LifelongError:
    return LifelongError(
        f"task '{task.name}', class '{name}' of source '{task.source}': asks for {asked} per class, but {left} of {available}"
        " are free; lower train_per_class or valid_per_class here or in the stream's other tasks, or set overlap = true"
    )
