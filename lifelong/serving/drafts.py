"""Tasks that are put together from uploaded images, on disk, so that nothing is lost when the server starts again.

    RUN/uploads/DRAFT/draft.json     name, state, and the class of each image
    RUN/uploads/DRAFT/000001.png     images, numbered in the order in which they came
    RUN/uploads/DRAFT/list.csv       image and class: what is learned from, made when learning begins

No name of a client becomes a part of a path: a class is a word in a file.
"""

import csv
import hashlib
import io
import json
import re
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lifelong.data.naming import class_name, shown
from lifelong.errors import LifelongError
from lifelong.opening import MOST_SETTINGS, read_text, refuse_links
from lifelong.serving.limits import Limits
from lifelong.serving.pictures import problems
from lifelong.storage import write_bytes, write_text
from lifelong.words import counted

FOLDER = "uploads"
MANIFEST = "draft.json"
LIST = "list.csv"

State = Literal["collecting", "learning", "learned"]

_ID = re.compile(r"[0-9a-f]{16}")
_FILE = re.compile(r"[0-9]{6}\.[a-z0-9]{1,5}")


class NoDraftError(LifelongError):
    """There is no such draft."""


class Uploaded(BaseModel):
    """An image of a draft: its file, class, size in bytes and digest."""

    model_config = ConfigDict(extra="forbid", strict=True)

    file: str
    label: str
    bytes: int
    digest: str


class Manifest(BaseModel):
    """What is kept of a draft."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    state: State = "collecting"
    failure: str = ""
    images: list[Uploaded] = []


@dataclass
class Draft:
    """A task that is being put together, learned, or has been learned.

    Attributes:
        id: made here; clients name it by this.
        folder: where its images are.
        kept: what is on disk.
    """

    id: str
    folder: Path
    kept: Manifest
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def plain(self) -> dict[str, object]:
        """Return it as plain data for a client."""
        classes = Counter(image.label for image in self.kept.images)
        known = {"id": self.id, "name": self.kept.name, "state": self.kept.state, "failure": self.kept.failure}
        return known | {"classes": dict(classes), "images": len(self.kept.images), "bytes": self.bytes}

    @property
    def bytes(self) -> int:
        """Bytes of all images."""
        return sum(image.bytes for image in self.kept.images)

    def save(self, state: State | None = None, failure: str | None = None) -> None:
        """Write down what has changed."""
        self.kept.state = state or self.kept.state
        self.kept.failure = self.kept.failure if failure is None else failure
        write_text(self.folder / MANIFEST, self.kept.model_dump_json())


@dataclass(frozen=True)
class Received:
    """What became of uploaded images.

    Attributes:
        taken: images that were added.
        left_out: by position, why the others were not.
    """

    taken: int
    left_out: dict[int, str]

    def plain(self) -> dict[str, object]:
        """Return it as plain data for a client."""
        return asdict(self)


class Drafts:
    """The drafts of a run.

    Args:
        run: the run directory.
        limits: how much they may hold.

    Attributes:
        notes: what was found of an earlier start of the server, and what became of it.

    Raises:
        LifelongError: something in the folder of uploads is a link.
    """

    def __init__(self, run: Path, limits: Limits) -> None:
        refuse_links(run, (FOLDER,))
        self.folder, self._limits = run / FOLDER, limits
        self._lock = threading.Lock()
        self.notes: list[str] = []
        self._drafts = {draft.id: draft for draft in self._found()}

    def __iter__(self) -> Iterator[Draft]:
        return iter(list(self._drafts.values()))

    def get(self, identifier: str) -> Draft:
        """Return a draft.

        Raises:
            NoDraftError: there is none of this name.
        """
        found = self._drafts.get(identifier)
        if found is None:
            raise NoDraftError(f"no draft {shown(identifier[:32])!r}; POST /v1/drafts makes one")
        return found

    def make(self, name: str) -> Draft:
        """Begin a draft.

        Args:
            name: of the task.

        Raises:
            LifelongError: the name cannot be used, or there are too many drafts.
        """
        called = self.usable(name, "the task's name")
        with self._lock:
            if sum(draft.kept.state != "learned" for draft in self._drafts.values()) >= self._limits.drafts:
                raise LifelongError(f"{self._limits.drafts} tasks are being put together; learn or delete one of them first")
            identifier = secrets.token_hex(8)
            draft = Draft(identifier, self.folder / identifier, Manifest(name=called))
            draft.folder.mkdir(parents=True)
            draft.save()
            self._drafts[identifier] = draft
        return draft

    def add(self, draft: Draft, label: str, images: Sequence[bytes]) -> Received:
        """Add images of one class.

        Args:
            draft: the draft.
            label: the class.
            images: contents of image files; unusable ones, and copies of those that are there, are left out.

        Raises:
            LifelongError: the class cannot be used, the draft is being learned, or it would hold too much.
        """
        called = self.usable(label, "the name of the class")
        looks, left_out = problems(images, self._limits)
        with draft.lock:
            self._check_collecting(draft)
            kept = draft.kept.images
            known = {image.digest: image.label for image in kept}
            more: list[Uploaded] = []
            for place, (look, content) in enumerate(zip(looks, images, strict=True)):
                digest = hashlib.sha256(content).hexdigest()
                if place not in left_out and digest in known:
                    left_out[place] = f"a copy of an image of class '{known[digest]}'"
                if place in left_out:
                    continue
                known[digest] = called
                number = len(kept) + len(more) + 1
                more.append(Uploaded(file=f"{number:06d}.{look.suffix}", label=called, bytes=len(content), digest=digest))
                self._check_room(draft, more)
                write_bytes(draft.folder / more[-1].file, content)
            kept.extend(more)
            draft.save(failure="")
        return Received(len(more), dict(sorted(left_out.items())))

    def write_list(self, draft: Draft) -> Path:
        """Write the list from which a draft is learned, and return it; from now on it stays as it is.

        Raises:
            LifelongError: it is being learned, or has fewer than two classes.
        """
        with draft.lock:
            self._check_collecting(draft)
            classes = {image.label for image in draft.kept.images}
            if len(classes) < 2:
                raise LifelongError(f"'{draft.kept.name}' has {counted(len(classes), 'class')}; a task has two or more")
            text = io.StringIO()
            writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerow(["image", "label"])
            writer.writerows([image.file, image.label] for image in draft.kept.images)
            write_text(draft.folder / LIST, text.getvalue())
            draft.save("learning", "")
        return draft.folder / LIST

    def drop(self, draft: Draft) -> None:
        """Delete a draft and its images.

        Raises:
            LifelongError: it is being learned, or has been.
        """
        with draft.lock:
            if draft.kept.state == "learning":
                raise LifelongError(f"'{draft.kept.name}' is being learned; cancel that first")
            if draft.kept.state == "learned":
                raise LifelongError(
                    f"'{draft.kept.name}' has been learned; its images are kept to judge later changes on them, until it is forgotten"
                )
            shutil.rmtree(draft.folder, ignore_errors=True)
            self._drafts.pop(draft.id, None)

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep drafts as they are during a block that may delete their folders; what is gone then is no draft any more."""
        with ExitStack() as held:
            for draft in self:
                held.enter_context(draft.lock)
            yield
            for draft in self:
                if not draft.folder.is_dir():
                    self._drafts.pop(draft.id, None)

    def usable(self, name: str, what: str) -> str:
        """Return a name as it is kept.

        Raises:
            LifelongError: it cannot be the name of a task or a class.
        """
        called = class_name(name.strip())
        if called is None or len(called) > self._limits.name:
            raise LifelongError(f"{what} {shown(name[:40])!r}: give 1 to {self._limits.name} printable characters")
        return called

    def _check_collecting(self, draft: Draft) -> None:
        self.get(draft.id)  # another request may have deleted it meanwhile
        if draft.kept.state != "collecting":
            raise LifelongError(f"'{draft.kept.name}' is {draft.kept.state}; begin another task")

    def _check_room(self, draft: Draft, more: Sequence[Uploaded]) -> None:
        if len(draft.kept.images) + len(more) > self._limits.draft_images:
            raise LifelongError(f"a task has at most {self._limits.draft_images:,} images here; learn larger ones with: lifelong learn")
        if draft.bytes + sum(image.bytes for image in more) > self._limits.draft_bytes:
            raise LifelongError(f"a task has at most {self._limits.draft_bytes // 2**20:,} MB of images here; send smaller ones")

    def _found(self) -> list[Draft]:
        """Return what an earlier start has left; what is not whole is dropped."""
        found = []
        for folder in sorted(self.folder.glob("*")):
            if not _ID.fullmatch(folder.name):
                continue
            draft = _read(folder)
            if draft is None:
                shutil.rmtree(folder, ignore_errors=True)
                self.notes.append(f"an upload was broken off before its first image was kept, or is damaged; dropped ({folder.name})")
                continue
            if draft.kept.state == "collecting":
                kept = {image.file for image in draft.kept.images} | {MANIFEST}
                for file in folder.iterdir():  # of a request that was broken off
                    if file.name not in kept:
                        file.unlink(missing_ok=True)
                self.notes.append(f"'{draft.kept.name}' with {counted(len(draft.kept.images), 'image')} is still being put together")
            found.append(draft)
        return found


def _read(folder: Path) -> Draft | None:
    """Read a draft; None if it is not whole. What it says is not trusted: the run may come from a stranger."""
    try:
        kept = Manifest.model_validate_json(read_text(folder / MANIFEST, MOST_SETTINGS))
    except (OSError, ValueError, ValidationError, json.JSONDecodeError):
        return None
    sound = all(_FILE.fullmatch(image.file) and class_name(image.label) for image in kept.images) and class_name(kept.name)
    return Draft(folder.name, folder, kept) if sound else None
