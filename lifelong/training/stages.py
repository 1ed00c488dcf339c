"""Named stages of learning one task: their seeds, their saved states, their progress.

On one processor, with one number of threads, `Method.learn` is a deterministic function of the state before the task, the task and the
seed (elsewhere sums are rounded otherwise: docs/resume.md). Each long computation in it (a fit, a search) is a stage with a name. A stage
draws its random numbers from a seed of its own, made of the run's seed, the task and the stage's name, so that a stage that is skipped on
resume leaves no trace in the next one's numbers. Its state is saved every few seconds at an epoch's end, its outcome when it ends. Called
again after a kill, `learn` finds finished stages finished and the running one where it was last saved.
"""

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from lifelong.errors import DamagedError, DivergedError
from lifelong.storage import Seal, Tree, read_tree, remove, save_tree
from lifelong.training.isolated_draws import drawn_from
from lifelong.training.rehearsal import Part, Rehearsal

SAVE_EVERY = 5.0
"""Seconds between two saves of a running stage."""


@dataclass(frozen=True)
class Epoch:
    """What is reported at an epoch's end.

    Attributes:
        stage: the stage's name.
        epoch: epochs done, from 1.
        epochs: epochs planned.
        loss: mean training loss of the epoch; NaN where nothing is trained, such as while importance is measured.
        accuracy: validation accuracy in [0, 1]; NaN where there is none.
    """

    stage: str
    epoch: int
    epochs: int
    loss: float
    accuracy: float


def derive_seed(*parts: int | str) -> int:
    """Return a seed made of names and numbers, equal on every machine: the first 8 bytes of a SHA-256, in 0..2^63-1."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass
class Stage:
    """One named computation inside `learn`.

    Attributes:
        name: unique within its task, such as "train" or "search".
        seed: random seed of the stage.
        where: for error messages, such as "task 'mnist', train".
        folder: where its states are saved; None keeps nothing.
        listener: called at every epoch's end.
        save_every: seconds between two saves of the running state.
        seal: binds its states to their run and their place.
        rehearsal: lets the computation begin only, to estimate how long it takes; None: it runs to its end.
    """

    name: str
    seed: int
    where: str = ""
    folder: Path | None = None
    listener: Callable[[Epoch], None] | None = None
    save_every: float = SAVE_EVERY
    seal: Seal = field(default_factory=Seal)
    rehearsal: Rehearsal | None = None
    _saved_at: float = field(default_factory=time.monotonic, repr=False)

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a fresh generator on `device` with the stage's seed."""
        return torch.Generator(device).manual_seed(self.seed)

    def generators(self, device: torch.device | str) -> tuple[torch.Generator, torch.Generator]:
        """Fresh generators on `device` and on the host; one and the same, where the device is the host.

        What the host has to know, such as which images make a batch, it draws itself: it would have to wait for what a device draws.
        """
        own = self.generator(device)
        return own, own if own.device.type == "cpu" else torch.Generator().manual_seed(derive_seed(self.seed, "host"))

    def outcome(self) -> Tree | None:
        """Return what `finish` stored, if the stage has ended before."""
        return self._read("done")

    def running(self) -> Tree | None:
        """Return what `save` stored last, if the stage was interrupted."""
        return self._read("running")

    def save(self, state: Callable[[], Tree]) -> None:
        """Store the running state, unless the last save is only a moment ago. To be called at an epoch's end."""
        if self.folder is None or time.monotonic() - self._saved_at < self.save_every:
            return
        save_sealed(self._path("running"), state(), self.seal)
        self._saved_at = time.monotonic()

    def finish(self, outcome: Tree) -> None:
        """Store what came out, and drop the running state."""
        if self.folder is None:
            return
        save_sealed(self._path("done"), outcome, self.seal)
        remove(self._path("running"))

    def some(self, steps: Sequence[Part]) -> list[Part]:
        """Return the steps of an epoch that are run: all of them, unless this is a rehearsal."""
        return list(steps) if self.rehearsal is None else self.rehearsal.some(steps)

    def stepped(self) -> None:
        """Note that the steps of an epoch are done, and what follows is no part of them."""
        if self.rehearsal is not None:
            self.rehearsal.stepped()

    def report(self, epoch: int, epochs: int, loss: float, accuracy: float) -> None:
        """Tell the listener that an epoch has ended."""
        if self.listener is not None:
            self.listener(Epoch(self.name, epoch, epochs, loss, accuracy))

    def diverged(self, epoch: int, setting: str, what: str = "the loss") -> NoReturn:
        """Stop because what comes out is not a finite number.

        Args:
            epoch: the epoch in which it happened, from 1.
            setting: the setting to change and its value, such as "lr 0.01".
            what: is not finite.
        """
        place = f"{self.where or self.name}, epoch {epoch}"
        raise DivergedError(f"{what} became NaN or infinite at {place}, with {setting}; lower it and run again", epoch)

    def _path(self, kind: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.name}.{kind}.safetensors"

    def _read(self, kind: str) -> Tree | None:
        return None if self.folder is None else read_sealed(self._path(kind), self.seal)


def save_sealed(path: Path, tree: Tree, seal: Seal) -> None:
    """Store a state of a task under way."""
    save_tree(path, tree, seal.owner(path), seal.made_with)


def read_sealed(path: Path, seal: Seal) -> Tree | None:
    """Read what `save_sealed` stored; None where there is nothing, or nothing that can be used.

    What is damaged, or belongs to another place, is dropped with a note: it is computed again, and comes out the same.

    Raises:
        LifelongError: it may not be read.
    """
    if not path.exists():
        return None
    try:
        stored = read_tree(path, owner=seal.owner(path) if seal.run else None, required=seal.required)
    except DamagedError as error:
        path.unlink(missing_ok=True)
        seal.say(f"{path.name} was damaged or another's, and is computed again ({error.__cause__ or 'not of this place'})")
        return None
    if stored.made_with and seal.made_with:
        changed = change(stored.made_with, seal.made_with)
        if changed:
            seal.say(changed)
    return stored.tree


def change(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return a note that what decides a sum's last bit has changed on the way; empty if it has not.

    Args:
        before: what it was, each in words. What is not known of it has not changed.
        now: what it is.
    """
    named = [name for name in now if before.get(name, now[name]) != now[name]]
    if not named:
        return ""
    begun, continued = (", ".join(which[name] for name in named) for which in (before, now))
    return f"started with {begun}, continued with {continued}: equal to rounding, not to the bit"


DRAWING = threading.RLock()
"""Held by the thread that draws from PyTorch's global generators just now: there is one of them for all threads."""


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Run a block with torch's global generators at `seed`, and put them back afterwards (dropout, which takes no other).

    One thread at a time does: another one waits for the block's end.
    """
    cards = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with DRAWING, ExitStack() as kept:
        kept.enter_context(torch.random.fork_rng(devices=cards))
        # One by one: `torch.manual_seed` would leave a seed behind for the devices that are not in use yet.
        torch.default_generator.manual_seed(seed)
        if cards:
            torch.cuda.manual_seed_all(seed)
        if torch.backends.mps.is_available():
            kept.enter_context(torch.random.fork_rng(devices=[0], device_type="mps"))
            torch.mps.manual_seed(seed)
        yield


@contextmanager
def initial(seed: int) -> Generator[None]:
    """Run a block that makes networks: initial weights come from a generator with `seed` of the block's own, all else as in `seeded`."""
    with seeded(seed), drawn_from(torch.Generator().manual_seed(seed)):
        yield


def go_on(generator: torch.Generator, saved: Tensor, seed: int) -> None:
    """Let a generator go on where another one stopped.

    Args:
        generator: of the computation that goes on.
        saved: the other's state, as from `get_state`.
        seed: for a generator of another kind of device, whose states mean nothing to this one: it draws other numbers from here on.
    """
    if saved.numel() == generator.get_state().numel():
        generator.set_state(saved.cpu())
    else:
        generator.manual_seed(seed)


def clear(folder: Path) -> None:
    """Drop the saved stages of a task that has been learned."""
    shutil.rmtree(folder, ignore_errors=True)
