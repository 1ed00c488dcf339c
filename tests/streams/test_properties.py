"""Whatever a stream asks of whatever sources: it gets that, or one clear line. Sources are labels; an image says where it lies."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.data.sources import Source, Sources
from lifelong.data.split_names import SplitName
from lifelong.data.task import Task
from lifelong.errors import LifelongError
from lifelong.streams.build import SpecStream
from lifelong.streams.deal import Deal
from lifelong.streams.pools import FixedPools
from lifelong.streams.spec import Draw, SameAs, StreamSpec, TaskSpec
from lifelong.streams.splits import InOrder, Shuffled
from lifelong.streams.transforms import Transform

SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
SOURCES = ("zoo", "fleet")
WORDS = ("ant", "bee", "cat", "dog", "eel")

Place = tuple[str, str, int]
"""Where an image lies: source, pool, row."""


class LabelPool:
    """Labels without files: the colour of an image is its place."""

    def __init__(self, number: int, labels: np.ndarray, contents: np.ndarray) -> None:
        self.labels = torch.from_numpy(labels)
        self._number, self._contents = number, contents

    def images(self, indices: Tensor, size: int) -> Tensor:
        """Colour images (source and pool, row // 256, row % 256)."""
        colours = torch.stack([torch.full_like(indices, self._number), indices // 256, indices % 256], 1).to(torch.uint8)
        return colours[:, :, None, None].expand(-1, 3, size, size).contiguous()

    def contents(self) -> np.ndarray:
        """Equal numbers where the drawn example says that a file is there twice."""
        return self._contents

    def fingerprint(self) -> str:
        """Each pool is another."""
        return str(self._number)


class LabelSources(Sources):
    """Opens what it was given."""

    def __init__(self, opened: dict[str, Source]) -> None:
        self.opened = opened

    def open(self, name: str, base: Any = None) -> Source:
        """One of them."""
        return self.opened[name]


@dataclasses.dataclass(frozen=True)
class World:
    """Sources for a stream: for each the images per class in each pool, and which files are copies of others."""

    counts: dict[str, dict[str, tuple[int, ...]]]
    copies: tuple[tuple[int, int], ...]

    def labels(self, source: str, pool: str) -> np.ndarray:
        """The class of each row, mixed."""
        counts = self.counts[source][pool]
        return np.random.default_rng(len(counts)).permutation(np.repeat(np.arange(len(counts)), counts))

    def places(self) -> list[Place]:
        """All images there are."""
        return [(name, pool, row) for name, pools in self.counts.items() for pool in pools for row in range(sum(pools[pool]))]

    def contents(self) -> dict[Place, int]:
        """The content of each image; most have their own."""
        places = self.places()
        contents = list(range(len(places)))
        for one, other in self.copies if places else ():
            contents[one % len(places)] = contents[other % len(places)]
        return dict(zip(places, contents, strict=True))

    def open(self) -> Sources:
        """The sources themselves."""
        contents, opened = self.contents(), {}
        for first, (name, pools) in enumerate(self.counts.items()):
            made = {}
            for number, pool in enumerate(pools):
                labels = self.labels(name, pool)
                numbers = np.array([contents[name, pool, row] for row in range(len(labels))], dtype=np.uint64)
                made[pool] = LabelPool(10 * first + number, labels, numbers)
            opened[name] = Source(name, WORDS[: len(pools["train"])], True, "made", made)
        return LabelSources(opened)

    def place(self, source: str, colour: tuple[int, int, int]) -> Place:
        """Where an image of that colour lies."""
        number, high, low = colour
        assert list(self.counts)[number // 10] == source
        return source, list(self.counts[source])[number % 10], 256 * high + low


# -- what is asked ---------------------------------------------------------------------------------------------------------------


@st.composite
def worlds(draw: Callable[..., Any], low: int = 0, high: int = 60, copies: int = 3) -> World:
    """One or two sources of two to five classes, with or without validation and test splits of their own."""
    counts: dict[str, dict[str, tuple[int, ...]]] = {}
    for name in draw(st.sampled_from([SOURCES[:1], SOURCES])):
        classes = draw(st.integers(2, 5))
        pools = ["train", *draw(st.sampled_from([(), ("test",), ("valid",), ("valid", "test")]))]
        few = {"train": (low, high), "valid": (low // 4, 18), "test": (low // 4, 18)}
        counts[name] = {pool: tuple(draw(st.lists(st.integers(*few[pool]), min_size=classes, max_size=classes))) for pool in pools}
    number = st.integers(0, 10**6)
    return World(counts, tuple(draw(st.lists(st.tuples(number, number), max_size=copies))))


some = st.none() | st.integers(1, 8)


@st.composite
def tasks(draw: Callable[..., Any], world: World, number: int, wrong: bool) -> dict[str, Any]:
    """The fields of one task; mostly sensible, and where `wrong` is set at times not."""
    source = draw(st.sampled_from(list(world.counts)))
    words = WORDS[: len(world.counts[source]["train"])]
    names = st.permutations(words).flatmap(lambda order: st.integers(2, len(order)).map(lambda count: tuple(order[:count])))
    kinds = [st.none(), st.integers(2, len(words)), names, names.map(lambda chosen: tuple(words.index(word) for word in chosen))]
    if number:
        kinds.append(st.integers(0, number - 1).map(lambda earlier: SameAs(f"t{earlier}")))
    if wrong:
        kinds.append(st.sampled_from([1, 6, ("ant", 0), ("ant", "gnu"), ("bee", 7), ("ant", "ant"), ("cat",), SameAs("t9")]))
    held = st.fixed_dictionaries({"valid_per_class": some}) | st.fixed_dictionaries({"valid_fraction": st.sampled_from([0.1, 0.3, 0.7])})
    numbers = st.fixed_dictionaries({"train_per_class": some, "test_per_class": some, "overlap": st.booleans()})
    shift = draw(st.integers(0, 3))
    return {"source": source, "classes": draw(st.one_of(kinds)), "transform": Transform(shift_labels=shift), **draw(numbers), **draw(held)}


@st.composite
def asked(draw: Callable[..., Any], draws: tuple[Draw, ...] = (Deal(),)) -> tuple[World, list[dict[str, Any]], dict[str, Draw]]:
    """Sources, the tasks of a stream over them, and how each source is divided."""
    scarce = draw(st.integers(0, 3)) == 0
    world = draw(worlds(low=0 if scarce else 20))
    wrong = draw(st.integers(0, 4)) == 0
    fields = [draw(tasks(world, number, wrong=wrong)) for number in range(draw(st.integers(1, 5)))]
    return world, fields, {name: draw(st.sampled_from(draws)) for name in world.counts}


def build(world: World, fields: list[dict[str, Any]], divided: dict[str, Draw], seed: int) -> SpecStream:
    """The stream; its first use may fail."""
    specs = tuple(TaskSpec(name=f"t{number}", image_size=4, **each) for number, each in enumerate(fields))
    return SpecStream(StreamSpec("made", specs, draw=divided), seed, world.open())


def attempt(make: Callable[[], SpecStream]) -> SpecStream | None:
    """A stream whose tasks are settled; None where one clear line says why there is none."""
    try:
        made = make()
        made.describe()
    except LifelongError as error:
        line = str(error)
        event("refused")
        assert line
        assert "\n" not in line
        assert len(line) < 400
        assert "task 't" in line or "source '" in line, line
        return None
    event("built")
    return made


# -- what must hold --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Got:
    """A task that was built, with where each of its images lies."""

    task: Task
    spec: TaskSpec
    notes: tuple[str, ...]
    places: dict[SplitName, list[Place]]
    labels: dict[SplitName, list[int]]


def load(world: World, made: SpecStream) -> list[Got]:
    """All tasks of a stream; what they hold is what the description says."""
    result = []
    for task, spec, described in zip(made, made.spec.tasks, made.describe(), strict=True):
        splits = {"train": task.train, "valid": task.valid, "test": task.test}
        places = {
            name: [world.place(spec.source, tuple(image)) for image in split.images[:, :, 0, 0].tolist()] for name, split in splits.items()
        }
        assert [len(places[name]) for name in SPLITS] == [described.train, described.valid, described.test]
        assert described.classes == task.classes
        result.append(Got(task, spec, described.notes, places, {name: split.labels.tolist() for name, split in splits.items()}))
    return result


def check_classes(world: World, got: list[Got]) -> None:
    """Each task has the classes it asks for, in its label order, and each image the label of its class."""
    final: dict[str, tuple[str, ...]] = {}
    for one in got:
        words = WORDS[: len(world.counts[one.spec.source]["train"])]
        wanted = final[one.spec.classes.task] if isinstance(one.spec.classes, SameAs) else one.spec.classes
        if wanted is None:
            wanted = words
        classes = one.task.classes
        if isinstance(wanted, int):
            assert len(classes) == wanted
        else:
            named = [word if isinstance(word, str) else words[word] for word in wanted]
            shift = one.spec.transform.shift_labels
            assert all(classes[(label + shift) % len(named)] == word for label, word in enumerate(named))
        assert len(set(classes)) == len(classes)
        assert set(classes) <= set(words)
        final[one.spec.name] = classes
        stored = {pool: world.labels(one.spec.source, pool) for pool in world.counts[one.spec.source]}
        for split in SPLITS:
            for (_, pool, row), label in zip(one.places[split], one.labels[split], strict=True):
                assert classes[label] == words[stored[pool][row]]


def check_apart(world: World, got: list[Got]) -> None:
    """By content: what is learned from is nowhere judged by; no split holds an image twice; splits come from the pools of their names."""
    contents = world.contents()
    seen = {split: {contents[place] for one in got for place in one.places[split]} for split in SPLITS}
    assert not seen["train"] & (seen["valid"] | seen["test"])
    assert not seen["valid"] & seen["test"]
    for one in got:
        pools = world.counts[one.spec.source]
        for split in SPLITS:
            assert len(one.places[split]) >= 1
            assert len(set(one.places[split])) == len(one.places[split])
            assert {pool for _, pool, _ in one.places[split]} == {split if split in pools else "train"}


def check_counts(got: list[Got]) -> None:
    """Each class has as many images as were asked for; where it has fewer, a note says so."""
    for one in got:
        for split in SPLITS:
            wanted = getattr(one.spec, f"{split}_per_class")
            per_class = Counter(one.labels[split])
            if wanted is not None:
                assert all(count <= wanted for count in per_class.values())
            if not one.notes:
                assert len(per_class) == len(one.task.classes)
                assert wanted is None or set(per_class.values()) == {wanted}


def check_sharing(got: list[Got]) -> None:
    """Only tasks with `overlap` have images of others."""
    for split in SPLITS:
        own = [place for one in got if not one.spec.overlap for place in one.places[split]]
        assert len(set(own)) == len(own)


RULES = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(RULES, max_examples=150)
@given(asked(), st.integers(0, 3))
def test_what_is_asked_is_what_is_built(what, seed):
    world, fields, divided = what
    made = attempt(lambda: build(world, fields, divided, seed))
    if made is None:
        return
    got = load(world, made)
    check_classes(world, got)
    check_apart(world, got)
    check_counts(got)
    check_sharing(got)
    assert build(world, fields, divided, seed).checksum() == made.checksum()


@settings(RULES, max_examples=150)
@given(asked((Deal(), Shuffled(), Shuffled(0.4), InOrder(), InOrder(2, 1, 3), FixedPools(2), FixedPools(7))), st.integers(0, 3))
def test_however_a_source_is_divided(what, seed):
    """Every way to divide keeps what is learned from what is judged by, and images with their labels."""
    world, fields, divided = what
    made = attempt(lambda: build(world, fields, divided, seed))
    if made is None:
        return
    got = load(world, made)
    check_classes(world, got)
    check_apart(world, got)


@st.composite
def modest(draw: Callable[..., Any]) -> tuple[World, list[dict[str, Any]]]:
    """Much of everything, and tasks that ask for a little of it in so many words."""
    world = draw(worlds(low=60, high=70, copies=0))
    fields = [draw(tasks(world, 0, wrong=False)) for _ in range(draw(st.integers(1, 4)))]
    few = st.integers(1, 3)
    asks = {"train_per_class": st.integers(1, 8), "valid_per_class": few, "test_per_class": few, "valid_fraction": st.none()}
    return world, [{**each, **draw(st.fixed_dictionaries(asks))} for each in fields]


@settings(RULES, max_examples=60)
@given(modest(), st.integers(0, 3))
def test_what_is_there_is_never_refused(what, seed):
    world, fields = what
    made = build(world, fields, {}, seed)
    got = load(world, made)
    assert not any(one.notes for one in got)
    check_counts(got)
    check_apart(world, got)
    # A task at the end leaves the others as they were; only shared images are drawn from what all the others hold.
    if len(fields) > 1 and not any(each["overlap"] for each in fields):
        shorter = load(world, build(world, fields[:-1], {}, seed))
        assert [one.places for one in shorter] == [one.places for one in got[:-1]]


def test_fewer_validation_images_than_asked_are_noted():
    world = World({"zoo": {"train": (20, 20), "valid": (4, 1)}}, ())
    (one,) = load(world, build(world, [{"source": "zoo", "valid_per_class": 4}], {}, 0))
    assert Counter(one.labels["valid"]) == {0: 4, 1: 1}
    assert one.notes == ("4 validation images per class were asked for; 1 to 4 are there.",)


def test_the_checks_can_fail():
    """The judges themselves, on a stream whose labels, splits and counts are then spoilt."""
    world = World({"zoo": {"train": (20, 20)}}, ())
    fields = [{"source": "zoo", "train_per_class": 5, "valid_per_class": 2, "test_per_class": 3}] * 2
    good = load(world, build(world, fields, {}, 0))
    check_classes(world, good)
    check_apart(world, good)
    check_counts(good)
    check_sharing(good)
    copies = [(world.places().index(good[0].places["train"][0]), world.places().index(good[1].places["test"][0]))]
    with pytest.raises(AssertionError):
        check_apart(dataclasses.replace(world, copies=tuple(copies)), good)
    good[0].labels["train"][0] ^= 1
    with pytest.raises(AssertionError):
        check_classes(world, good)
    with pytest.raises(AssertionError):
        check_counts(good)
    good[0].places["valid"][0] = good[1].places["valid"][0]
    with pytest.raises(AssertionError):
        check_sharing(good)
