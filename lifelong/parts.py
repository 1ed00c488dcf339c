"""Store states part by part: what has not changed since an earlier state is not written again.

The rule, for all methods: a tensor is a part, and so is every dict or list whose text is longer than `LARGE`, and an item of a list above
`LARGE_ITEM`. Lists are cut into runs of `RUN` items, runs of runs and so on, so that a list that grows leaves all but its last run as it
was; long lists of numbers are stored as tensors. So what a save writes is what has changed, and a few lines more, however much was learned
before (see `lifelong.segment` for the files).

To find out what has changed, everything is looked at, but for three things: a `Fixed` dict, which never changes, is looked at once, a
module's weights (`lifelong.trees.weights_of`) again only when `lifelong.watch` says so, and a run of a list only where one of its items is
another than before.
"""

import json
from collections.abc import Hashable, Mapping, Sequence, Set
from itertools import chain
from operator import attrgetter
from pathlib import Path

import torch

from lifelong.headers import NAMES, Body, Part, Tree, at_rest, bytes_of, check_plain, made
from lifelong.segment import FOLDERS, NODES, Segment, name_of_node, name_of_tensor, place_of
from lifelong.segments import Segments
from lifelong.storage import Seal
from lifelong.trees import Fixed, Weights
from lifelong.writing import remove, write_file

LARGE = 512
"""Characters of a node above which it is a part."""

LARGE_ITEM = 100
"""Characters of a list's item above which it is a part."""

RUN = 16
"""Items of a list that stand together."""

MANY = 32
"""Numbers of one kind in a list from which on it is stored as a tensor."""

NUMBERS = {float: torch.float64, int: torch.int64}
"""As what."""


UNCHANGING = frozenset({Fixed, str, bool, int, float, type(None)})
"""What does not change once it is made."""

SWEEP = 16
"""Saves after which what is known of trees that are gone is forgotten."""

_KNOWN_BY = attrgetter("known_by")

_Known = dict[Hashable, tuple[object, str]]
"""Texts by what they are the texts of; that is kept, so that nothing else gets its id."""


class PartStore(Segments):
    """The parts of a run's states, to which more can be added.

    Args:
        folder: that holds the folders of segments.
        seal: of the run.
    """

    def __init__(self, folder: Path, seal: Seal) -> None:
        super().__init__(folder, seal.run, seal.say)
        self.seal = seal
        self._next: int | None = None
        self._new_nodes: dict[str, str] = {}
        self._new_tensors: dict[str, torch.Tensor] = {}
        # What is known of trees, and of runs of them, that were packed before (see `_same_as`); and what was met this time, if those that
        # were not are to be forgotten.
        self._known: _Known = {}
        self._runs: _Known = {}
        self._met: tuple[_Known, _Known] | None = None
        self._saves = 0

    def put(self, tree: Mapping[str, Tree], made_with: Mapping[str, str] | None = None) -> dict[str, Tree]:
        """Store the parts of a state that are not stored yet, in one segment.

        Args:
            tree: the state.
            made_with: what computed it.

        Returns:
            The state with a `Part` for each of its values.

        Raises:
            LifelongError: the segment cannot be written.
        """
        self.scan()
        self._new_nodes, self._new_tensors = {}, {}
        self._saves += 1
        self._met = None if self._saves % SWEEP else ({}, {})
        try:
            root = {key: self._root(value) for key, value in tree.items()}
            if self._new_nodes or self._new_tensors:
                self._write(made_with or {})
        except BaseException:
            # What is known may name parts that are not there.
            self._known, self._runs = {}, {}
            raise
        if self._met is not None:
            self._known, self._runs = self._met
        self.release()
        return root

    def heal(self) -> list[str]:
        """Write damaged and missing copies of segments again, as far as they were met and the other copy is whole; return which."""
        done = []
        for path in list(self.wrong):
            other = self.folder / FOLDERS[path.parent.name == FOLDERS[0]] / path.name
            source = Segment.open(other, self.owner(other.parent.name, other.name))
            source.check()
            tensors = {name: made(about["shape"], about["dtype"], source.read(name)) for name, about in source.header.items()}
            self._write_copy(path, Body(tensors), source.made_with)
            self._open.pop((path.parent.name, path.name), None)
            del self.wrong[path]
            done.append(f"checkpoint/{place_of(path)} was damaged or missing; rewritten from its copy")
        return done

    def repair(self) -> list[str]:
        """Check all segments, and write damaged and missing copies again; one without a whole copy is dropped. Return what was done."""
        done = []
        for name in self.names():
            wrong = {place: error for place, error in self.check(name).items() if error is not None}
            if len(wrong) < len(FOLDERS):
                self.wrong |= {self.folder / place / name: error for place, error in wrong.items()}
                continue
            for place in FOLDERS:
                remove(self.folder / place / name)
            done.append(f"checkpoint/{FOLDERS[0]}/{name}: both copies are damaged; dropped")
        self._next = None
        return [*done, *self.heal()]

    def bytes(self) -> int:
        """Return how many bytes all segments take, both copies."""
        return sum(file.stat().st_size for place in FOLDERS for file in (self.folder / place).glob("*.safetensors"))

    def keep(self, nodes: set[str], tensors: set[str]) -> None:
        """Drop all parts but these: a segment that has others is written again without them, or deleted where nothing is left.

        What was there twice stays in its newest segment. A process that is killed meanwhile leaves what is kept whole.

        Raises:
            LifelongError: a segment cannot be read or written.
        """
        self.scan()
        for name in self.names():
            source = self._whole(name)
            its_nodes = {each for each in source.nodes if each in nodes and self._nodes.get(each) == name}
            its_tensors = {each for each in source.header if each in tensors and self._tensors.get(each) == name}
            if len(its_nodes) < len(source.nodes) or len(its_tensors) < len(source.header) - 1:
                self._cut(source, its_nodes, its_tensors)
        self._forget()

    def droppable(self, nodes: set[str], tensors: set[str]) -> tuple[dict[str, tuple[set[str], set[str]]], int]:
        """Tell which of some parts can be dropped for little: those in segments of which they are the larger part.

        From others they are not dropped: what else is there would have to be written again.

        Returns:
            The nodes and the tensors to be dropped, by the names of their segments; and about how many bytes that frees, in both copies.

        Raises:
            LifelongError: a segment cannot be read.
        """
        self.scan()
        homes = {home for each in nodes if (home := self._nodes.get(each))} | {
            home for each in tensors if (home := self._tensors.get(each))
        }
        found: dict[str, tuple[set[str], set[str]]] = {}
        total = 0
        for name in sorted(homes):
            source = self._either(name, lambda segment: segment)
            lost_nodes, lost_tensors = nodes & source.nodes.keys(), tensors & source.header.keys()
            freed = sum(len(source.nodes[each]) for each in lost_nodes) + sum(map(source.bytes_of, lost_tensors))
            if 2 * freed >= source.size:
                found[name] = lost_nodes, lost_tensors
                total += len(FOLDERS) * (source.start + source.size) * freed // source.size
        return found, total

    def drop(self, parts: Mapping[str, tuple[Set[str], Set[str]]]) -> None:
        """Drop parts that the state stored last does not have.

        Args:
            parts: as from `droppable`.

        Raises:
            LifelongError: a segment cannot be read or written.
        """
        for name, (lost_nodes, lost_tensors) in parts.items():
            source = self._whole(name)
            self._cut(source, source.nodes.keys() - lost_nodes, source.header.keys() - lost_tensors - {NODES})
            self._known, self._runs = {}, {}
            for each in lost_nodes:
                self._nodes.pop(each, None)
                self._below.pop(each, None)
            for each in lost_tensors:
                self._tensors.pop(each, None)

    def _whole(self, name: str) -> Segment:
        """Open a copy of a segment that is whole.

        Raises:
            DamagedError: neither is.
        """
        conditions = self.check(name)
        place = next((place for place, error in conditions.items() if error is None), None)
        if place is None:
            raise next(error for error in conditions.values() if error is not None)
        return Segment.open(self.folder / place / name, self.owner(place, name))

    def _cut(self, source: Segment, nodes: Set[str], tensors: Set[str]) -> None:
        """Write both copies of a segment again with some of its parts, or delete it where that is none."""
        name, made_with = source.path.name, source.made_with
        texts = {each: text for each, text in source.nodes.items() if each in nodes}
        content = {
            each: made(about["shape"], about["dtype"], source.read(each)) for each, about in source.header.items() if each in tensors
        }
        body = Body(_with_nodes(texts, content))
        for place in FOLDERS:
            path = self.folder / place / name
            self._open.pop((place, name), None)
            if texts or content:
                self._write_copy(path, body, made_with)
            else:
                remove(path)

    def _forget(self) -> None:
        """Look at the files anew."""
        self._open, self._scanned, self._nodes, self._tensors = {}, False, {}, {}
        self._known, self._runs, self._below, self._next = {}, {}, {}, None

    def _root(self, value: Tree) -> Tree:
        if not isinstance(value, (Mapping, list, tuple, torch.Tensor)):
            return value
        text = self._text(value)
        return Part(json.loads(text)["part"] if text.startswith('{"part"') else self._node(text))

    def _write(self, made_with: Mapping[str, str]) -> None:
        if self._next is None:
            names = self.names()
            self._next = int(names[-1].split(".")[0]) + 1 if names else 0
        name = f"{self._next:06d}.safetensors"
        body = Body(_with_nodes(self._new_nodes, self._new_tensors))
        for place in FOLDERS:
            self._write_copy(self.folder / place / name, body, made_with)
        self._nodes |= dict.fromkeys(self._new_nodes, name)
        self._tensors |= dict.fromkeys(self._new_tensors, name)
        self._next += 1

    def _write_copy(self, path: Path, body: Body, made_with: Mapping[str, str]) -> None:
        about = {"owner": self.seal.owner(path), "made_with": json.dumps(dict(made_with)), "tree": "null"}

        def write(part: Path) -> None:
            with part.open("wb") as file:
                body.write(file, about)

        write_file(path, write)

    def _text(self, tree: Tree) -> str:
        """Return the text of a tree in which its large parts are named, and keep those that are new."""
        if isinstance(tree, torch.Tensor):
            return f'{{"tensor": "{self._tensor(tree)}"}}'
        if isinstance(tree, (Fixed, Weights)):
            key = _same_as(tree)
            known = self._known.get(key)
            text = known[1] if known is not None else self._part(self._dict(tree.read() if isinstance(tree, Weights) else tree))
            self._keep(0, key, (tree, text))
            return text
        if isinstance(tree, Mapping):
            return self._part(self._dict(tree))
        if isinstance(tree, tuple):
            return self._part(f'{{"tuple": [{", ".join(map(self._text, tree))}]}}')
        if isinstance(tree, list):
            if len(tree) >= MANY and type(tree[0]) in NUMBERS and len({*map(type, tree)}) == 1:
                return f'{{"numbers": "{self._tensor(torch.tensor(tree, dtype=NUMBERS[type(tree[0])]))}"}}'
            return self._part(self._list(tree))
        check_plain(tree)
        # A state has hundreds of whole numbers, and their text is the same.
        return repr(tree) if type(tree) is int else json.dumps(tree)

    def _item(self, tree: Tree) -> str:
        """Return the text of an item of a list, which is a part unless its name is about as long."""
        text = self._text(tree)
        return self._part(text, always=len(text) > LARGE_ITEM)

    def _dict(self, tree: Mapping[Tree, Tree]) -> str:
        return f'{{"dict": [{", ".join(f"[{json.dumps(key)}, {self._text(value)}]" for key, value in tree.items())}]}}'

    def _list(self, tree: list[Tree]) -> str:
        whole = len(tree) // RUN * RUN if len(tree) > RUN else 0
        rest = f'{{"list": [{", ".join(map(self._item, tree[whole:]))}]}}'
        if not whole:
            return rest
        return self._long([self._run(tree[at : at + RUN]) for at in range(0, whole, RUN)], rest)

    def _long(self, runs: Sequence[str], rest: str) -> str:
        """Return the text of a list that is cut into runs, and of what is left of it."""
        whole = len(runs) // RUN * RUN if len(runs) > RUN else 0
        left = f'{{"list": [{", ".join(runs[whole:])}]}}'
        cut = [runs[start : start + RUN] for start in range(0, whole, RUN)]
        above = [self._part(f'{{"list": [{", ".join(run)}]}}', always=True) for run in cut]
        return f'{{"long": [{self._long(above, left) if above else left}, {rest}]}}'

    def _run(self, items: list[Tree]) -> str:
        """Return the text that names a run of items, which is not looked at again where they are the same as before."""
        key = _same_as_each(items)
        known = None if key is None else self._runs.get(key)
        text = self._part(f'{{"list": [{", ".join(map(self._item, items))}]}}', always=True) if known is None else known[1]
        if key is not None:
            self._keep(1, key, (items, text))
            if known is not None and self._met is not None:
                # Each by itself as well: the next time another of the run may be new.
                self._met[0].update((each, self._known[each]) for each in key if each in self._known)
        return text

    def _keep(self, kind: int, key: Hashable, known: tuple[object, str]) -> None:
        """Keep what is known of a tree (0) or a run (1)."""
        (self._known, self._runs)[kind][key] = known
        if self._met is not None:
            self._met[kind][key] = known

    def _part(self, text: str, *, always: bool = False) -> str:
        """Return a node's text, or one that names it, if it is large."""
        return f'{{"part": "{self._node(text)}"}}' if always or len(text) > LARGE else text

    def _node(self, text: str) -> str:
        name = name_of_node(text)
        if name not in self._nodes:
            self._new_nodes[name] = text
        return name

    def _tensor(self, tensor: torch.Tensor) -> str:
        resting = at_rest(tensor)
        name = name_of_tensor(NAMES[resting.dtype], list(resting.shape), bytes_of(resting))
        if name not in self._tensors:
            self._new_tensors[name] = resting
        return name


def _same_as(item: Fixed | Weights) -> Hashable:
    """Return what is equal only for what is still the same, as long as that is kept."""
    return item.known_by if isinstance(item, Weights) else id(item)


def _same_as_each(items: list[Tree]) -> tuple[Hashable, ...] | None:
    """Return `_same_as` of each item; None where it cannot be told of all. Tuples of what does not change do not change either."""
    kinds = {*map(type, items)}
    within = {*map(type, chain.from_iterable(filter(lambda item: type(item) is tuple, items)))} if tuple in kinds else set()
    if kinds - {tuple} <= UNCHANGING and within <= UNCHANGING:
        return tuple(map(id, items))
    return tuple(map(_KNOWN_BY, items)) if kinds == {Weights} else None


def _with_nodes(nodes: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a segment: its nodes as one, and the others."""
    lines = "".join(f"{name} {text}\n" for name, text in nodes.items()).encode()
    return {NODES: torch.frombuffer(bytearray(lines or b"\n"), dtype=torch.uint8), **tensors}
