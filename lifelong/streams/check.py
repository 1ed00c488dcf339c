"""Check the images of a stream: what to know before trusting a number, with one line for each kind of problem."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from lifelong.data.address import parse_address
from lifelong.data.decoding import ONE_COLOUR
from lifelong.data.naming import shown
from lifelong.data.sources import Source
from lifelong.data.split_names import SPLITS
from lifelong.data.task import Stream
from lifelong.streams.build import Drawn, SpecStream

BEGINNING = "data check: "
"""The prefix of its lines among a run's notes."""

FEW_TO_LEARN = 10
FEW_TO_JUDGE = 5
"""A class with fewer images gets a remark, unless the stream asks for so few."""

UNEVEN = 10
"""The ratio of the training images of two classes of a task above which they get a remark."""

_NAMED = 3  # examples in a line
_LONGEST = 28  # letters of a name


def data_check(stream: Stream, *, look_at_named: bool = True) -> list[str]:
    """Check the images of a stream, and return one sentence for each kind of problem; none unless it is a `SpecStream`.

    Decoding an image shows whether it can be used and what it loses. Images that were never decoded are checked now; the result is cached
    as long as the files stay the same.

    Args:
        stream: whose images to check.
        look_at_named: whether to check images of known sources too.

    Returns:
        The sentences, about images that cannot be used, have one colour or lose something when read, images with two labels or twice in the
        source, class names that hardly differ, classes with few images, and tasks with very uneven classes.
    """
    if not isinstance(stream, SpecStream):
        return []
    sources = {drawn.spec.source: drawn.source for drawn in stream.drawn}
    said: dict[str, list[str]] = {}
    for name, source in sources.items():
        look = look_at_named or parse_address(name).kind != "named"
        for kind, line in (*_of_single_images(source, look), *_of_contents(source), *_of_names(source)):
            said.setdefault(kind, []).append(line)
    lines = [line for kind, some in said.items() for line in _first_of(kind, some)]
    return [*lines, *_of_few(stream.drawn), *_of_uneven(stream.drawn)]


Line = tuple[str, str]
"""A kind of problem, and the sentence about it in one source."""


def _first_of(kind: str, lines: Sequence[str]) -> list[str]:
    """Keep the sentences about the first few sources with a kind of problem, and count the others."""
    more = len(lines) - _NAMED
    return [*lines[:_NAMED], *([f"{kind}: {more} more source{'s' * (more > 1)} of the stream too."] if more > 0 else [])]


def _of_single_images(source: Source, look: bool) -> list[Line]:
    """Report images that cannot be used, those of one colour, and those that lose something else."""
    problems: list[str] = []
    flat: list[str] = []
    lossy: list[str] = []
    total = 0
    for split in SPLITS:
        if not source.has_split(split):
            continue
        found = source.findings(split, look)
        if found is None:
            continue
        total += len(source.labels(split))
        problems += map(str, found.problems)
        for one in found.remarks:
            if one.reason == ONE_COLOUR:
                flat.append(one.name)
            else:
                lossy.append(str(one))
    said = []
    for kind, some, what in (
        ("Images that cannot be used", problems, "cannot be used (repair or remove them, or leave them out with --skip-broken)"),
        ("Images of one colour", flat, "of one colour"),
        ("Images that are changed by being read", lossy, "changed by being read"),
    ):
        if some:
            verb = "" if some is problems else "is " if len(some) == 1 else "are "
            said.append((kind, f"{len(some)} of {total} images of '{source.name}' {verb}{what}: {_some(some)}."))
    return said


def _of_contents(source: Source) -> list[Line]:
    """Report files that have two labels, or occur more than once."""
    splits = [split for split in SPLITS if source.has_split(split)]
    each = [(source.contents(split), source.labels(split).numpy()) for split in splits]
    contents, labels = (np.concatenate(arrays) for arrays in zip(*each, strict=True))
    starts = np.cumsum([0, *(len(source.labels(split)) for split in splits)])
    order = np.lexsort((labels, contents))
    same = contents[order][1:] == contents[order][:-1]
    torn = same & (labels[order][1:] != labels[order][:-1])

    def called(position: int) -> str:
        split = int(np.searchsorted(starts, position, side="right")) - 1
        return source.called(splits[split], position - int(starts[split]))

    said = []
    if torn.any():
        pictures = len(np.unique(contents[order][1:][torn]))
        at = min(np.flatnonzero(torn).tolist(), key=lambda place: order[place])
        one, other = (f"{called(place)} as '{_short(source.classes[labels[place]])}'" for place in order[at : at + 2].tolist())
        subject = "1 picture of" if pictures == 1 else f"{pictures} pictures of"
        have = "has" if pictures == 1 else "have"
        line = f"{subject} '{source.name}' {have} more than one label, for example {one} and {other}."
        said.append(("Pictures of more than one label", line))
    doubled = [_doubled(*of_split) for of_split in each]
    count = sum(map(len, doubled))
    if count >= max(1, len(contents) // 50):
        split, pair = next((split, pairs[0]) for split, pairs in zip(splits, doubled, strict=True) if pairs)
        names = " and ".join(source.called(split, position) for position in pair)
        line = f"{count} of {len(contents)} images of '{source.name}' are there twice in one split, such as {names}."
        said.append(("Images that are there twice", line))
    return said


def _doubled(contents: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """Return the positions of pairs of equal images that have the same label."""
    order = np.lexsort((labels, contents))
    same = (contents[order][1:] == contents[order][:-1]) & (labels[order][1:] == labels[order][:-1])
    return sorted((int(order[at]), int(order[at + 1])) for at in np.flatnonzero(same))


def _of_names(source: Source) -> list[Line]:
    """Report class names that a person would take for the same."""
    alike: dict[str, list[str]] = {}
    for name in source.classes:
        alike.setdefault(_normal_form(name), []).append(name)
    pairs = [" and ".join(f"'{_short(name)}'" for name in names) for names in alike.values() if len(names) > 1]
    return (
        [("Class names that hardly differ", f"Class names of '{source.name}' that hardly differ: {_some(pairs, '; ')}.")] if pairs else []
    )


def _normal_form(name: str) -> str:
    """Normalize a class name's spelling: case, separators between words, `1.0` for 1, invisible characters."""
    text = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf").strip()
    number = re.fullmatch(r"([+-]?[0-9]+)(?:[.,]([0-9]*))?", text)
    if number:
        return f"{int(number[1])}.{(number[2] or '').rstrip('0')}"
    return re.sub(r"[\s_.-]+", " ", text.casefold()).strip()


def _of_few(tasks: Sequence[Drawn]) -> list[str]:
    """Report classes with few images, unless the stream asks for so few."""
    said = []
    for split, least, asked, words in (
        ("train", FEW_TO_LEARN, lambda task: task.spec.train_per_class, "to learn from"),
        ("test", FEW_TO_JUDGE, lambda task: task.spec.test_per_class, "to be tested on"),
    ):
        few = [
            f"'{_short(name)}' of '{_short(task.spec.name)}' ({count})"
            for task in tasks
            if asked(task) is None
            for name, count in zip(task.classes, _counts(task, split), strict=True)
            if count < least
        ]
        if few:
            classes = "1 class has" if len(few) == 1 else f"{len(few)} classes have"
            said.append(f"{classes} fewer than {least} images {words}: {_some(few)}.")
    return said


def _of_uneven(tasks: Sequence[Drawn]) -> list[str]:
    """Report tasks in which one class has many times the images of another."""
    uneven = []
    for task in tasks:
        counts = _counts(task, "train")
        if max(counts) >= UNEVEN * max(1, min(counts)):
            small, large = (_short(task.classes[counts.index(extreme(counts))]) for extreme in (min, max))
            uneven.append(f"'{_short(task.spec.name)}' ('{small}' {min(counts)}, '{large}' {max(counts)})")
    tasks_have = "1 task has" if len(uneven) == 1 else f"{len(uneven)} tasks have"
    return [f"{tasks_have} classes of very uneven size: {_some(uneven)}."] if uneven else []


def _counts(task: Drawn, split: str) -> list[int]:
    return np.bincount(task.labels[split], minlength=len(task.classes)).tolist()  # ty: ignore[invalid-argument-type]


def _some(names: Sequence[str], mark: str = ", ") -> str:
    """Join the first few names, and count the others."""
    return mark.join(names[:_NAMED]) + (f"{mark}and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _short(name: str) -> str:
    """Shorten a name for a line of text."""
    return shown(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…")


def as_notes(lines: Iterable[str]) -> list[str]:
    """Format lines of a data check for the notes of a run."""
    return [f"{BEGINNING}{line}" for line in lines]
