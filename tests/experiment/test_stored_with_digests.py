"""Runs as version 0.1 wrote them once its files carried digests: one file a state, and another for the state before it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import lifelong
from lifelong.experiment.observer import Observer
from lifelong.experiment.results import read_summary

STORED = Path(__file__).parent / "stored_with_digests"
STOPPED = "par-stopped"
RUNS = sorted(folder.name for folder in STORED.iterdir() if folder.name != STOPPED)


class Notes(Observer):
    """Keeps what is said, and which epochs were trained."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.trained: list[tuple[str, int]] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def epoch(self, event) -> None:
        self.trained.append((event.stage, event.epoch))


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_is_sound_and_answers_as_it_did(name: str, tmp_path: Path) -> None:
    out = Path(shutil.copytree(STORED / name, tmp_path / "run"))
    found = lifelong.verify(out)
    assert found.sound
    assert {each.condition for each in found.files} == {"good"}
    images = torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    learner, wanted = lifelong.Learner.load(out, device="cpu", threads=1), json.loads((out / "logits.json").read_text())
    for task in learner.tasks:
        torch.testing.assert_close(learner.logits(images, task), torch.tensor(wanted[task]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["finetune", "par-heads"])
def test_the_command_that_made_it_only_reads_it(name: str, tmp_path: Path) -> None:
    out = Path(shutil.copytree(STORED / name, tmp_path / "run"))
    before = {file: file.read_bytes() for file in out.rglob("*.safetensors")}
    listener = Notes()
    summary = lifelong.run(config=out / "config.toml", out=out, device="cpu", threads=1, progress=listener)
    assert summary == read_summary(STORED / name)
    assert listener.said == []
    assert {file: file.read_bytes() for file in out.rglob("*.safetensors")} == before


def test_it_learns_one_more_task(tmp_path: Path) -> None:
    out = Path(shutil.copytree(STORED / "er", tmp_path / "run"))
    assert len(lifelong.learn(out, "digits", name="all", device="cpu", threads=1, progress=False).tasks) == 3
    assert lifelong.verify(out).sound


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    """In the second task, its search done and the first of three epochs trained and saved."""
    out = Path(shutil.copytree(STORED / STOPPED, tmp_path / "run"))
    assert lifelong.verify(out).sound
    listener = Notes()
    summary = lifelong.run(config=out / "config.toml", out=out, device="cpu", threads=1, progress=listener)
    assert summary.complete
    assert listener.trained == [("train", 2), ("train", 3)]
    assert not any("damaged" in note or "dropped" in note for note in listener.said)
    assert lifelong.verify(out).sound
