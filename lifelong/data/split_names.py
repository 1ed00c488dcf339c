"""Define the names of splits, and the words that folders, files, rows and the Hub use for them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from lifelong.data.naming import shown
from lifelong.errors import LifelongError

SplitName = Literal["train", "valid", "test"]

SPLITS: tuple[SplitName, ...] = get_args(SplitName)

IN_WORDS: Mapping[SplitName, str] = {"train": "training", "valid": "validation", "test": "test"}
"""What the images of a split are called in messages."""

MEANINGS: Mapping[str, SplitName] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
"""What each word means, in small letters."""

UNCLEAR = ("eval", "evaluation", "holdout")
"""Words that mean validation to some and test to others; the user is asked which."""

COLUMNS = ("split", "set", "subset", "partition", "fold", "usage")
"""Names of a list's column that holds such words."""


def split_of(word: str) -> SplitName | None:
    """Return the split that a word means; None for any other word."""
    return MEANINGS.get(word.strip().lower())


def is_word(word: str) -> bool:
    """Return whether a word names a split, even if it is ambiguous which."""
    return split_of(word) is not None or word.strip().lower() in UNCLEAR


def are_splits(names: Sequence[str]) -> bool:
    """Return whether sibling names are those of splits: at least two different ones, with train among them or with no other name."""
    words = {split_of(name) or name for name in names if is_word(name)}
    return len(words) > 1 and ("train" in words or all(map(is_word, names)))


def usual_splits(place: object, names: Iterable[str]) -> dict[SplitName, str]:
    """Return, for each split, the name that means it; names that mean no split are ignored.

    Args:
        place: where the names are, for error lines.
        names: for example of folders.

    Raises:
        LifelongError: two names mean one split, or a name may mean validation or test.
    """
    found: dict[SplitName, str] = {}
    names = list(names)
    for name in names:
        split = split_of(name)
        if split is None:
            continue
        if split in found:
            raise LifelongError(
                f"{place}: holds '{found[split]}' and '{name}', two names for one split; keep one of them, or say which: ?{_example(names)}"
            )
        found[split] = name
    for name in names:
        if name.strip().lower() in UNCLEAR:
            raise LifelongError(
                f"{place}: '{shown(name)}' may mean validation or test; say which parts make which split:"
                f" ?{_example(names)}{'' if 'test' in found else f'&test={name}'}" + (f", or &valid={name}" if "valid" not in found else "")
            )
    return {split: found[split] for split in SPLITS if split in found}


def _example(names: Iterable[str]) -> str:
    """Return the options of an address that name each split by the first of its names."""
    first: dict[SplitName, str] = {}
    for name in names:
        split = split_of(name)
        if split is not None:
            first.setdefault(split, name)
    return "&".join(f"{split}={first[split]}" for split in SPLITS if split in first) or "train=NAME"
