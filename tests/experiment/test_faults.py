"""Whatever goes wrong with a write, a sync or a rename of a run, the same command continues to the same bits, and nothing is lost."""

import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lifelong.api import configure
from lifelong.errors import LifelongError
from lifelong.experiment.continuing import learn_more
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import run
from lifelong.settings.run import Environment
from lifelong.storage import load_tree
from tests.experiment.faults import KINDS, Death, Faults, Kind, faulty
from tests.trees import same

STREAM = "digits?tasks=2&train_per_class=3&valid_per_class=2&test_per_class=2"
HERE = Environment(device="cpu", threads=1, save_every=0.0)


def learn_stream(out: Path) -> None:
    """Two tasks, two epochs each, every epoch saved."""
    run(configure(STREAM, "finetune", preset="quick", epochs=2, init_channels=2, patience=0), out, HERE)


def tune_stream(out: Path) -> None:
    """Each task with two candidates."""
    settings = {"preset": "quick", "epochs": 2, "init_channels": 2, "patience": 0}
    run(configure(STREAM, "finetune", grid={"lr": [0.05, 0.01]}, **settings), out, HERE)


def learn_one_more(out: Path) -> None:
    """One more task in a run that was stored."""
    if not out.exists():
        shutil.copytree(Path(__file__).parent / "stored/finetune", out)
    learn_more(out, "digits", HERE, name="all")


COMMANDS: dict[str, Callable[[Path], None]] = {"run": learn_stream, "tune": tune_stream, "learn": learn_one_more}


def learned(out: Path) -> int:
    """How many tasks are learned, by the one file that decides."""
    file = out / "checkpoint/run.safetensors"
    return len(load_tree(file)["entries"]) if file.exists() else 0


@pytest.fixture(autouse=True)
def _as_often_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing hangs on the clock: the same calls in every run."""
    monkeypatch.setattr("lifelong.experiment.curves.SYNC_EVERY", 0.0)


class Straight:
    """A run that nothing happens to, and how it ends.

    Attributes:
        calls: what it asked the system for, in words.
    """

    def __init__(self, command: str, place: Path) -> None:
        self.command, self.place = COMMANDS[command], place
        out = place / "straight"
        if command == "learn":
            shutil.copytree(Path(__file__).parent / "stored/finetune", out)
        with faulty(Faults(out)) as faults:
            self.command(out)
        self.out, self.calls = out, faults.seen

    def survives(self, at: int, kind: Kind) -> str:
        """What a fault in a call comes to, in a word; the command, given again, must end like the straight run."""
        out = self.place / f"{at}-{KINDS.index(kind)}"
        if self.command is learn_one_more:
            shutil.copytree(Path(__file__).parent / "stored/finetune", out)
        what, before = f"{kind} at call {at}, {self.calls[at]}", learned(out)
        with faulty(Faults(out, at, kind)) as faults:
            try:
                self.command(out)
                said = "passed over"
            except LifelongError as error:
                said = "one line"
                assert len(str(error).splitlines()) == 1  # noqa: PT017
            except Death:
                said = "death"
        assert faults.happened, what
        assert said == ("death" if kind.startswith("death") else said), what
        assert learned(out) >= before, what
        self.command(out)
        self.check(out, what)
        shutil.rmtree(out)
        return said

    def check(self, out: Path, what: str) -> None:
        """That a run ended like the straight one."""
        ours, theirs = (RunDirectory(place).load() for place in (out, self.out))
        for key in ("method", "accuracy", "digests"):
            assert same(ours[key], theirs[key]), (what, key)
        assert [entry["name"] for entry in ours["entries"]] == [entry["name"] for entry in theirs["entries"]], what
        for name in ("curves.jsonl", "config.toml", "checkpoint/identity.json"):
            assert (out / name).exists() == (self.out / name).exists(), (what, name)
            assert not (self.out / name).exists() or (out / name).read_text() == (self.out / name).read_text(), (what, name)
        assert len((out / "results.jsonl").read_text().splitlines()) == len(theirs["entries"]), what
        left = [file.name for file in out.rglob("*") if file.name.endswith(".part") or ("stages" in file.parts and file.is_file())]
        assert not left, (what, left)


def test_some_faults(tmp_path: Path) -> None:
    """One call of six kinds in a run; which and how is drawn. `test_every_fault` has them all."""
    straight = Straight("run", tmp_path)
    chance = random.Random(0)
    sorts: dict[str, list[int]] = {}
    for number, call in enumerate(straight.calls):
        sorts.setdefault(call.split()[0], []).append(number)
    for sort in ("link", "create", "write", "fsync", "replace", "unlink"):
        straight.survives(chance.choice(sorts[sort]), chance.choice(KINDS))


def test_what_is_left_beside_a_task_that_was_saved_is_cleared(tmp_path: Path) -> None:
    """The state of one more task is in its place: its folder cannot be synced, or the process dies before it has cleared the stages."""
    straight = Straight("learn", tmp_path)
    saved = straight.calls.index("replace .run.safetensors.part")
    assert straight.calls[saved + 1 : saved + 3] == ["fsync checkpoint", "unlink train.done.safetensors"]
    straight.survives(saved + 1, "no space")
    straight.survives(saved + 2, "death")


def moments(calls: list[str]) -> list[int]:
    """Every call; of one tensor after another that is written to a file, the first, the last and two that are drawn."""
    chance, chosen = random.Random(0), []
    for _, group in itertools.groupby(range(len(calls)), key=lambda at: calls[at]):
        places = list(group)
        inner = places[1:-1]
        chosen += sorted({places[0], places[-1], *chance.sample(inner, min(2, len(inner)))})
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_fault(tmp_path: Path, command: str, kind: Kind) -> None:
    straight = Straight(command, tmp_path)
    for at in moments(straight.calls):
        if kind in ("short write", "death in the middle") and straight.calls[at].split()[0] not in ("write", "save"):
            continue  # there is no half of it
        straight.survives(at, kind)
