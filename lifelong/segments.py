"""Read the parts of states from the segments in which they stand (`lifelong.segment`)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lifelong.errors import DamagedError, ForeignError, LifelongError
from lifelong.headers import Part, Tree, understood, unpack
from lifelong.opening import parse_json
from lifelong.segment import FOLDERS, HEX, NODES, Segment, place_of

MOST_HELD = 2**28
"""Bytes of segments that are held in memory while a state is read."""

MOST_TEXT = 2**28
"""Characters of all nodes of a state, those that occur several times counted as often: a forged state could name one a trillion times."""

MOST_AGAIN = 2**32
"""Bytes of the tensors of a state that it has elsewhere already."""


class Segments:
    """The parts in a folder of states.

    Args:
        folder: that holds the folders of segments.
        run: digest of the identity of the run whose parts they must be; None: any.
        say: told of each segment that had to be read from its other copy.

    Attributes:
        lost: what is wrong with a segment of which neither copy can be read.
        wrong: copies that are damaged or missing, of segments that could be read from the other.
    """

    def __init__(self, folder: Path, run: str | None = None, say: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self.run, self.say = Path(folder), run, say
        self.lost: dict[str, LifelongError] = {}
        self.wrong: dict[Path, LifelongError] = {}
        self._open: dict[tuple[str, str], Segment] = {}
        self._held = 0
        self._scanned = False
        self._nodes: dict[str, str] = {}
        self._tensors: dict[str, str] = {}
        self._below: dict[str, tuple[list[str], list[str]]] = {}

    def names(self) -> list[str]:
        """Return the names of all segments, oldest first."""
        found = {file.name for place in FOLDERS for file in (self.folder / place).glob("[0-9]*.safetensors")}
        return sorted(found)

    def owner(self, place: str, name: str) -> str | None:
        """Return whose a segment must be; None: anybody's."""
        if self.run is None:
            return None
        return f"{self.run}/{place}/{name}" if self.run else ""

    def segment(self, place: str, name: str) -> Segment:
        """Open a copy of a segment; see `Segment.open`."""
        found = self._open.get((place, name))
        if found is None:
            found = self._open[place, name] = Segment.open(self.folder / place / name, self.owner(place, name))
        if found.held is None and found.size <= MOST_HELD // 8:
            if self._held + found.size > MOST_HELD:
                self.release()
            self._held += found.size
            found.hold()
        return found

    def release(self) -> None:
        """Let go of what is in memory."""
        self._held = 0
        for segment in self._open.values():
            segment.held = None

    def scan(self) -> None:
        """Find out what stands where."""
        if not self._scanned:
            self._scanned = True
            for name in self.names():
                self.note(name)

    def note(self, name: str) -> None:
        """Find out what stands in a segment."""

        def listed(segment: Segment) -> tuple[list[str], list[str]]:
            nodes = segment.nodes
            if any(len(each) != HEX for each in nodes):
                raise DamagedError(f"cannot read {segment.path}: its list of nodes is damaged")
            return list(nodes), [each for each in segment.header if each != NODES]

        try:
            nodes, tensors = self._either(name, listed)
        except LifelongError as error:
            self.lost[name] = error
            return
        self._nodes |= dict.fromkeys(nodes, name)
        self._tensors |= dict.fromkeys(tensors, name)

    def _either(self, name: str, read: Callable[[Segment], Any]) -> Any:
        """Read something of a segment from the first copy that is whole there."""
        failed: dict[Path, LifelongError] = {}
        for place in FOLDERS:
            try:
                found = read(self.segment(place, name))
            except LifelongError as error:
                path = self.folder / place / name
                if path.exists() and not isinstance(error, (DamagedError, ForeignError)):
                    raise
                failed[path] = error
                continue
            for other in (failed.keys() - self.wrong.keys()) if failed else ():
                self.wrong[other] = failed[other]
                self.say(f"{place_of(other)} was damaged or missing; read from its copy")
            return found
        first = next(iter(failed.values()))
        raise first if isinstance(first, DamagedError) else DamagedError(str(first)) from first

    def check(self, name: str) -> dict[str, LifelongError | None]:
        """Read all of both copies of a segment; return what is wrong with each, or None.

        Raises:
            LifelongError: a copy may not be read.
        """
        found: dict[str, LifelongError | None] = {}
        for place in FOLDERS:
            path = self.folder / place / name
            try:
                Segment.open(path, self.owner(place, name)).check()
                found[place] = None
            except LifelongError as error:
                if path.exists() and not isinstance(error, (DamagedError, ForeignError)):
                    raise
                found[place] = error
        return found

    def home(self, name: str, *, tensor: bool) -> str:
        """Return the name of the segment in which a part stands.

        Raises:
            DamagedError: in none that can be read.
        """
        self.scan()
        found = (self._tensors if tensor else self._nodes).get(name)
        if found is None:
            if self.lost:
                raise next(iter(self.lost.values()))
            raise DamagedError(f"cannot read {self.folder / FOLDERS[0]}: a part of the state is missing")
        return found

    def text(self, name: str) -> str:
        """Return the text of a node.

        Raises:
            DamagedError: it is not there, or damaged.
        """
        return self._either(self.home(name, tensor=False), lambda segment: segment.node(name))

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor, one of its own each time.

        Raises:
            DamagedError: it is not there, or damaged.
        """
        return self._either(self.home(name, tensor=True), lambda segment: segment.tensor(name))

    def tree(self, name: str, tensor: Callable[[str], Any] | None = None) -> Tree:
        """Return the tree of a node.

        Args:
            name: of the node.
            tensor: gives the tensor of a name; None: as it is stored.
        """
        spent, again, seen = 0, 0, set[str]()

        def read(node: str) -> Tree:
            nonlocal spent
            text = self.text(node)
            spent += len(text)
            if spent > MOST_TEXT:
                raise DamagedError(f"cannot read {self.folder / FOLDERS[0]}: a state names its parts too often; it is damaged or malicious")
            return unpack(parse_json(text), one, read, self.numbers)

        def one(name: str) -> Any:
            nonlocal again
            found = tensor(name) if tensor is not None else self.tensor(name)
            if isinstance(found, torch.Tensor):
                again += found.nbytes if name in seen else 0
                seen.add(name)
            if again > MOST_AGAIN:
                raise DamagedError(f"cannot read {self.folder / FOLDERS[0]}: a state names its parts too often; it is damaged or malicious")
            return found

        with understood(self.folder / FOLDERS[0]):
            return read(name)

    def outline(self, name: str) -> dict[str, Any]:
        """Return the plain values of the dict that a node is, by their keys, with `...` for all others: nothing else is read."""
        with understood(self.folder / FOLDERS[0]):
            pairs = parse_json(self.text(name))["dict"]
            return {str(key): ... if isinstance(value, dict) else value for key, value in pairs}

    def items(self, name: str, known: dict[str, list[Tree]]) -> list[Tree]:
        """Return the items of the list that a node is, with a `Part` for each that is one.

        Args:
            name: of the node.
            known: the items of nodes that were read before; gets those that are read here.
        """
        if name not in known:
            with understood(self.folder / FOLDERS[0]):
                known[name] = self._items(parse_json(self.text(name)), known)
        return known[name]

    def _items(self, form: Tree, known: dict[str, list[Tree]]) -> list[Tree]:
        ((kind, value),) = form.items()
        match kind:
            case "long":
                runs = self._items(value[0], known)
                return [item for run in runs for item in self.items(run.name, known)] + self._items(value[1], known)
            case "list":
                return [unpack(each, lambda inner: None, Part, Part) for each in value]
        raise ValueError(f"it is a '{kind}', and no list")

    def numbers(self, name: str) -> list[float] | list[int]:
        """Return the numbers of a tensor.

        Raises:
            DamagedError: it is not there, damaged, or of a type in which numbers are not stored.
        """
        found = self.tensor(name)
        if found.dtype not in (torch.float64, torch.int64):
            raise DamagedError(f"cannot read {self.folder / FOLDERS[0]}: numbers of a type in which none are stored")
        return found.tolist()

    def below(self, name: str, nodes: set[str], tensors: set[str]) -> None:
        """Add everything that a node consists of, itself included, to what is given."""
        waiting = [name]
        while waiting:
            name = waiting.pop()
            if name not in nodes:
                nodes.add(name)
                inner, kept = self._directly_below(name)
                waiting += inner
                tensors.update(kept)

    def _directly_below(self, name: str) -> tuple[list[str], list[str]]:
        """Return the nodes and the tensors that a node names."""
        if name not in self._below:
            inner: list[str] = []
            kept: list[str] = []

            def noted(where: list[str], other: str) -> list[Any]:
                where.append(other)
                return []

            with understood(self.folder / FOLDERS[0]):
                unpack(parse_json(self.text(name)), kept.append, partial(noted, inner), partial(noted, kept))
            self._below[name] = inner, kept
        return self._below[name]
