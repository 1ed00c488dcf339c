"""The six streams of the CTrL benchmark.

Classes, their order, sizes and colours are drawn by the same calls of the same generators as in CTrL's code, so that a seed gives
CTrL's own stream: numpy's `default_rng(seed)` hands an integer to every component, which seeds a `random.Random` of its own. Two
things are particular:

- CTrL walks Python sets of classes. Their order is fixed by the md5 of the class names, given how CPython lays out a set.
- The sources of S_long come from numpy's global generator, which CTrL leaves to its user to seed. Here it is a generator of its own,
  `RandomState(seed)`: what CTrL does after `np.random.seed(seed)`.

Which images a task gets is drawn from CTrL's fixed pools (see `pools.py`) by this library's generators. Every task is normalized by
its own training images, and augmented as in PAR: a crop with 4 pixels of padding and a flip, digits too. CTrL itself does not
augment: set `augment = false` for a run without.

Source: Veniat, Denoyer & Ranzato, "Efficient Continual Learning with Modular Networks and Task-Driven Priors", ICLR 2021, and its
public code; augmentation: PAR's public code, dataloaders/ctrl.py.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from lifelong.data.known_sources import CIFAR10, DIGITS, DTD, FASHION
from lifelong.data.task import Augmentation
from lifelong.streams.pools import FixedPools
from lifelong.streams.spec import SameAs, StreamSpec, TaskSpec
from lifelong.streams.splits import SUPERCLASSES
from lifelong.streams.transforms import COLOURS, Transform


@dataclass(frozen=True)
class _Source:
    """A data set of CTrL.

    Attributes:
        classes: in CTrL's order, by our names.
        valid: validation images per class in the fixed pools.
        name: CTrL's name of the data set, if it is not ours.
        words: what CTrL puts after a class name, class by class.
        groups: the names of its superclasses.
    """

    classes: tuple[str, ...]
    valid: int
    name: str = ""
    words: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


_GROUPS = tuple(sorted(SUPERCLASSES))
_NUMBERS = tuple(f" - {word}" for word in ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])

_SOURCES = {
    "mnist": _Source(DIGITS, 500, words=_NUMBERS),
    "svhn": _Source(DIGITS, 500, words=_NUMBERS),
    "cifar10": _Source(CIFAR10, 500),
    "fashion_mnist": _Source(FASHION, 500, name="fashion-mnist"),
    "dtd": _Source(DTD, 27),
    "cifar100": _Source(tuple(label for group in _GROUPS for label in SUPERCLASSES[group]), 50, groups=_GROUPS),
}
"""CTrL's data sets in the order in which it builds them."""

AUGMENTATION = Augmentation(crop=4, flip=True)
TESTS = 1000


@dataclass(frozen=True)
class _Row:
    """A task of a short stream.

    Attributes:
        source: where its images come from.
        sizes: training and validation images per class.
        again: whether it has the classes of the first task, in the same label order.
        shift: by how much its labels are shifted.
        coloured: whether its background has a colour; no two tasks have the same.
    """

    source: str
    sizes: tuple[int, int] = (40, 20)
    again: bool = False
    shift: int = 0
    coloured: bool = False


_LARGE = (400, 200)
_MIDDLE = (_Row("mnist"), _Row("dtd"), _Row("fashion_mnist"), _Row("svhn"))

_SHORT = {
    "ctrl-s-minus": (_Row("cifar10", _LARGE), *_MIDDLE, _Row("cifar10", again=True)),
    "ctrl-s-plus": (_Row("cifar10"), *_MIDDLE, _Row("cifar10", _LARGE, again=True)),
    "ctrl-s-in": (
        _Row("mnist", _LARGE, coloured=True),
        _Row("cifar10"),
        *_MIDDLE[1:],
        _Row("mnist", (5, 3), again=True, coloured=True),
    ),
    "ctrl-s-out": (_Row("cifar10", _LARGE), *_MIDDLE, _Row("cifar10", again=True, shift=1)),
    "ctrl-s-pl": (*_MIDDLE, _Row("cifar10", _LARGE)),
}

_LONG_SOURCES = tuple(source for source in _SOURCES if source != "dtd")
_LONG_LARGE, _LONG_SMALL = (1000, 500), (5, 3)
_LONG_SIZES = ((_LONG_LARGE, _LONG_SMALL), (_LONG_LARGE, *3 * (_LONG_SMALL,)), (_LONG_SMALL,))
"""What the size of a task of S_long is chosen from: in its first 33 tasks, its next 33, and the rest."""

_DEFAULT_CLASSES = 5
"""Classes of the task that CTrL makes at first and then overwrites: it costs random numbers all the same."""


def s_minus(seed: int) -> StreamSpec:
    """Specify S-: the last task is the first one with a tenth of the data. Can what was learned be used?

    Args:
        seed: CTrL's seed, in 0..2^32-1.
    """
    return _short("ctrl-s-minus", seed)


def s_plus(seed: int) -> StreamSpec:
    """Specify S+: the last task is the first one with ten times the data. Can what was learned be improved?

    Args:
        seed: CTrL's seed, in 0..2^32-1.
    """
    return _short("ctrl-s-plus", seed)


def s_in(seed: int) -> StreamSpec:
    """Specify S_in: the last task is the first one with 5 images per class and another background colour.

    Args:
        seed: CTrL's seed, in 0..2^32-1.
    """
    return _short("ctrl-s-in", seed)


def s_out(seed: int) -> StreamSpec:
    """Specify S_out: the last task is the first one with its labels shifted by one and a tenth of the data.

    Args:
        seed: CTrL's seed, in 0..2^32-1.
    """
    return _short("ctrl-s-out", seed)


def s_pl(seed: int) -> StreamSpec:
    """Specify S_pl: five unrelated tasks, the last with ten times the data of the others. Can it still be learned well?

    Args:
        seed: CTrL's seed, in 0..2^32-1.
    """
    return _short("ctrl-s-pl", seed)


def s_long(seed: int) -> StreamSpec:
    """Specify S_long: 100 tasks of five classes from five sources, with ever fewer images.

    Its validation images are the drawn images alone. CTrL adds four augmented copies of each, and PAR's loader keeps just as many
    rows as there were images, all of them such copies.

    Args:
        seed: CTrL's seed, in 0..2^32-1.
    """
    parts = _parts(seed, (*_LONG_SOURCES, "classes", "transforms", "split", "sizes"))
    sources = np.random.RandomState(seed)
    _default_task(parts["classes"], _LONG_SOURCES)
    tasks = []
    for number in range(100):
        source = _LONG_SOURCES[int(sources.choice(len(_LONG_SOURCES), p=[0.2] * 5))]
        classes = _choose(parts["classes"], 5, source, siblings=False)
        sizes = parts["sizes"].choice(_LONG_SIZES[(number >= 33) + (number >= 66)])
        tasks.append(_task(f"{number + 1:03}-{source}", source, sizes, classes, Transform()))
    return _stream("ctrl-s-long", tasks)


def _short(name: str, seed: int) -> StreamSpec:
    """Specify one of the streams of `_SHORT`."""
    parts = _parts(seed, (*_SOURCES, "classes", "colours"))
    _default_task(parts["classes"], tuple(_SOURCES))
    parts["colours"].choice(range(len(COLOURS)))  # the default task's
    colours = list(COLOURS)
    tasks: list[TaskSpec] = []
    for number, row in enumerate(_SHORT[name], start=1):
        words = [str(number), row.source]
        classes = SameAs(tasks[0].name) if row.again else _choose(parts["classes"], 10, row.source, siblings=True)
        background = None
        if row.coloured:
            colour = parts["colours"].choice(colours)
            colours.remove(colour)
            words.append(colour)
            background = COLOURS[colour]
        elif row.again:
            words.append("shifted" if row.shift else "again")
        tasks.append(_task("-".join(words), row.source, row.sizes, classes, Transform(background=background, shift_labels=row.shift)))
    return _stream(name, tasks)


def _task(name: str, source: str, sizes: tuple[int, int], classes: tuple[str, ...] | SameAs, transform: Transform) -> TaskSpec:
    return TaskSpec(
        name,
        source,
        classes,
        train_per_class=sizes[0],
        valid_per_class=sizes[1],
        test_per_class=TESTS,
        transform=transform,
        augmentation=AUGMENTATION,
    )


def _stream(name: str, tasks: Sequence[TaskSpec]) -> StreamSpec:
    used = dict.fromkeys(task.source for task in tasks)
    return StreamSpec(name, tuple(tasks), draw={source: FixedPools(_SOURCES[source].valid, _SOURCES[source].classes) for source in used})


def _parts(seed: int, names: Sequence[str]) -> dict[str, random.Random]:
    """Seed the generators of CTrL's components, one after the other."""
    seeds = np.random.default_rng(seed)
    return {name: random.Random(int(seeds.integers(10**9))) for name in names}


def _default_task(chance: random.Random, sources: Sequence[str]) -> None:
    """Use up the random numbers of a task that is drawn from all classes of all sources, and overwritten."""
    total = sum(len(_SOURCES[source].classes) for source in sources)
    for drawn in range(_DEFAULT_CLASSES):
        chance.choice(range(total - drawn))


class _Node(str):
    """A name that sets order as CTrL's are ordered."""

    __slots__ = ()

    def __hash__(self) -> int:
        return int(hashlib.md5(self.encode(), usedforsecurity=False).hexdigest(), 16)


def _choose(chance: random.Random, count: int, source: str, *, siblings: bool) -> tuple[str, ...]:
    """Choose random classes of a source in random order.

    Args:
        chance: CTrL's generator of classes.
        count: how many.
        source: its name.
        siblings: whether each must have the parent of the one before, as CTrL asks in the short streams. There it leaves out nothing,
            but every time the rest is put into a new set, which changes its order.
    """
    about = _SOURCES[source]
    name = about.name or source
    words = about.words or ("",) * len(about.classes)
    nodes = {_Node(f"{name} {label}{word}"): label for label, word in zip(about.classes, words, strict=True)}
    groups = [_Node(f"{name} {group}") for group in about.groups]
    left = {node for node in set(chain(groups, nodes)) if node in nodes}
    chosen: list[_Node] = []
    while True:
        chosen.append(chance.choice(list(left)))
        if len(chosen) == count:
            return tuple(nodes[node] for node in reversed(chosen))  # CTrL's recursion comes back from the last one
        left = left.difference(chosen[-1:])
        if siblings:
            left = left.intersection(nodes)
