"""Small runs to be damaged, and ways to damage them."""

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lifelong.errors import LifelongError
from lifelong.experiment.added_tasks import read_added
from lifelong.experiment.derived import known_summary
from lifelong.experiment.observer import Observer
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import read_config, run
from lifelong.json_files import read_lines
from lifelong.segment import Segment
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.par import PARSettings
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.training import TrainingSettings
from lifelong.storage import read_tree
from tests.trees import same

STATE, PREVIOUS = "checkpoint/run.safetensors", "checkpoint/run.previous.safetensors"
IDENTITY = "checkpoint/identity.json"
PARTS = ("checkpoint/parts/", "checkpoint/mirror/")
CERTAIN = ("version", "complete", "parameters", "ap", "af", "bwt", "forgetting", "weighted_accuracy", "accuracy")
"""Of a summary: what two runs of one command have in common."""


def slow(*cases: str) -> list:
    """Cases that `make test-all` alone runs."""
    return [pytest.param(case, marks=pytest.mark.slow) for case in sorted(cases)]


def end(out: Path) -> dict:
    """What a run came to."""
    state = RunDirectory(out).load()
    return {"method": state["method"], "accuracy": state["accuracy"], "digests": state["digests"]}


def again_or_refused(out: Path, how: RunConfig) -> tuple[dict | None, list[str]]:
    """As `again`; None for a run that is refused, which takes one line."""
    try:
        return again(out, how)
    except LifelongError as error:
        return None, str(error).splitlines()


def certain(summary: dict) -> dict:
    return {key: summary[key] for key in CERTAIN}


STREAM = """
name = "two"
image_size = 8
[[task]]
name = "a"
source = "digits"
classes = ["0", "1"]
train_per_class = 12
valid_per_class = 8
test_per_class = 8
[[task]]
name = "b"
source = "digits"
classes = ["7", "8", "9"]
train_per_class = 12
valid_per_class = 8
test_per_class = 8
"""

HERE = Environment(device="cpu", threads=1, save_every=0.0)


def config(folder: Path, method: str = "finetune", seed: int = 0) -> RunConfig:
    """The configuration of a run; its stream is written into a folder."""
    stream = folder / "two.toml"
    if not stream.exists():
        stream.write_text(STREAM)
    if method == "par":
        settings = PARSettings(init_channels=2, cells=2, search_epochs=2, extractor="pixels")
    else:
        settings = FinetuneSettings(init_channels=2, backbone="cells")
    training = TrainingSettings(epochs=3, batch_size=16, lr=0.05)
    return RunConfig(stream=str(stream), method=method, seed=seed, preset="paper", training=training, settings=settings)


class StopIn(Observer):
    """Ctrl-C at an epoch of a stage of a task, the second one unless told otherwise."""

    def __init__(self, stage: str, epoch: int, task: int = 1) -> None:
        self.wanted, self.task = (task, stage, epoch), 0

    def task_started(self, index: int, name: str) -> None:
        self.task = index

    def epoch(self, event) -> None:
        if (self.task, event.stage, event.epoch) == self.wanted:
            raise KeyboardInterrupt


class Notes(Observer):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def stopped(folder: Path, method: str, seed: int = 0, stage: str = "train") -> Path:
    """A run that was stopped while it trained for its second task."""
    out = folder / f"{method}-{seed}-stopped"
    try:
        run(config(folder, method, seed), out, HERE, StopIn(stage, 3))
    except KeyboardInterrupt:
        return out
    raise AssertionError("the run was not stopped")


def finished(folder: Path, method: str, seed: int = 0) -> Path:
    """A run that has learned both tasks."""
    out = folder / f"{method}-{seed}"
    run(config(folder, method, seed), out, HERE)
    return out


def files_of(out: Path) -> list[str]:
    """Every file of a run, below its folder."""
    return sorted(file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file() and file.name != ".lock")


def flip(file: Path, bit: int) -> None:
    """Flip one bit. The file is another one then: a second name of the old one keeps what it was."""
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.unlink()
    file.write_bytes(content)


def reader(out: Path, name: str) -> Callable[[], Any]:
    """What reads a file of a run: what comes of it is equal only if what was read is."""

    def read() -> Any:
        directory = RunDirectory(out)
        file = out / name
        if name.endswith("identity.json"):
            return directory.identity(), directory.seal.run
        if name == "config.toml":
            return read_config(directory)
        if name == "summary.json":
            return known_summary(out)
        if name.endswith(".jsonl"):
            lines = read_lines(file, directory.seal)
            return lines.found, lines.lost, lines.torn
        if name.endswith(("run.safetensors", "run.previous.safetensors")):
            return directory.read_state(file).tree
        if name.startswith(PARTS):
            segment = Segment.open(file, directory.seal.owner(file))
            segment.check()
            return segment.about, segment.nodes, {each: segment.read(each) for each in segment.header}
        if name.endswith("added.json"):
            return read_added(directory)
        return read_tree(file, owner=directory.seal.owner(file), required=directory.seal.required).tree

    return read


def found_or_harmless(out: Path, name: str, bits: list[int]) -> dict[str, int]:
    """Flip bits of a file, one at a time, and read it each time.

    Returns:
        How many flips were "found" (the reader refuses the file, or says that a line is lost), "harmless" (what is read is what was
        written), and "missed" (it is not, and nobody says so).
    """
    file, read = out / name, reader(out, name)
    whole, wanted = file.read_bytes(), read()
    counts = {"found": 0, "harmless": 0, "missed": 0}
    for bit in bits:
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        try:
            value = read()
            if same(value, wanted):
                counts["harmless"] += 1
            elif name.endswith(".jsonl") and (value[1] or value[2]) and all(line in wanted[0] for line in value[0]):
                counts["found"] += 1
            elif name.endswith("identity.json") and value[1] != wanted[1]:
                # Another identity: every file of the run is another's then.
                counts["found"] += 1
            else:
                counts["missed"] += 1
        except LifelongError:
            counts["found"] += 1
    file.write_bytes(whole)
    return counts


def some_bits(file: Path, most: int, seed: int = 0) -> list[int]:
    """All bits of a file, or so many of them at random."""
    count = 8 * file.stat().st_size
    return list(range(count)) if count <= most else sorted(random.Random(seed).sample(range(count), most))


def copied(out: Path, place: Path) -> Path:
    """A copy of a run. Its configuration names the stream where it was."""
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(out, place))


def again(out: Path, how: RunConfig, **where: Any) -> tuple[dict[str, Any], list[str]]:
    """Run the command that began a run again: its summary, and what was said."""
    listener = Notes()
    return run(how, out, replace(HERE, **where), listener), listener.said
