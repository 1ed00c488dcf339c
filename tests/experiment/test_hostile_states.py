"""States with the right digest and the wrong content: one line wherever a run is used, never a traceback, and never called sound."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lifelong
from lifelong import api
from lifelong.errors import LifelongError
from lifelong.experiment.results import RunDirectory
from lifelong.storage import load_tree
from tests.experiment.damage import PREVIOUS, STATE
from tests.resaved import change_state, resave

STORED = Path(__file__).parent / "stored_with_digests"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED / "finetune", tmp_path / "run"))


def outcomes(out: Path) -> dict[str, str]:
    """What comes of the uses of a run (export and report open it as `predict` does): "done", or the line that is said."""
    uses: dict[str, Callable[[], object]] = {
        "predict": lambda: lifelong.Learner.load(out, device="cpu", threads=1),
        "run": lambda: lifelong.run(config=out / "config.toml", out=out, device="cpu", threads=1, progress=False),
        "learn": lambda: lifelong.learn(out, "digits", name="more", device="cpu", threads=1, progress=False),
        "compare": lambda: api.finished([out]),
    }
    found = {}
    for name, use in uses.items():
        try:
            use()
            found[name] = "done"
        except LifelongError as error:
            found[name] = str(error)
    return found


def without(state: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != key}


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a number": lambda state: 3,
    "nothing": lambda state: None,
    "a list": lambda state: [state],
    "a tensor": lambda state: torch.zeros(3),
    "keys of numbers": lambda state: {3: state},
    "no tasks": lambda state: state | {"entries": [], "accuracy": [], "digests": []},
    "a number of tasks": lambda state: state | {"entries": 2},
    "tasks that are numbers": lambda state: state | {"entries": [1, 2]},
    "tasks without names": lambda state: state | {"entries": [without(entry, "name") for entry in state["entries"]]},
    "no method": lambda state: without(state, "method"),
    "no accuracy": lambda state: without(state, "accuracy"),
    "accuracy in one piece": lambda state: state | {"accuracy": 0.5},
    "no digests": lambda state: without(state, "digests"),
    "added tasks in one piece": lambda state: state | {"added": 3},
    "an added task without a name": lambda state: state | {"added": [{"source": "digits"}]},
    "a summary in one piece": lambda state: state | {"summary": "good"},
    "a summary of wrong kinds": lambda state: state | {"summary": state["summary"] | {"seed": "none"}},
    "an identity in one piece": lambda state: state | {"identity": 3},
    "a method of nothing": lambda state: state | {"method": {}},
    "weights that are missing": lambda state: state | {"method": state["method"] | {"heads": []}},
}


UNTOUCHED = {
    "a method of nothing": {"compare"},
    "weights that are missing": {"compare"},
    "an added task without a name": {"compare"},
    "a summary of wrong kinds": {"predict"},
}
"""Uses that do not look at what is wrong: a comparison at weights, answers at the record."""


@pytest.mark.parametrize("wrong", WRONG)
def test_a_state_of_another_kind_is_one_line_everywhere(out: Path, wrong: str) -> None:
    resave(out, out / STATE, WRONG[wrong](load_tree(out / STATE)))
    (out / PREVIOUS).unlink()
    found = lifelong.verify(out)
    assert not found.sound
    assert (STATE, "damaged") in [(each.file, each.condition) for each in found.files]
    said = outcomes(out)
    assert all(len(line) < 700 for line in said.values())
    assert {use for use, line in said.items() if line == "done"} <= UNTOUCHED.get(wrong, set())
    assert not lifelong.verify(out, repair=True).sound, "there is nothing to put in its place"


@pytest.mark.parametrize("wrong", ["a number", "tasks without names", "a summary in one piece"])
def test_the_state_before_it_takes_its_place(out: Path, wrong: str) -> None:
    resave(out, out / STATE, WRONG[wrong](load_tree(out / STATE)))
    found = lifelong.verify(out, repair=True)
    assert found.sound
    assert found.tasks == 1
    assert any("replaced by the state before it" in line for line in found.repaired)
    assert lifelong.run(config=out / "config.toml", out=out, device="cpu", threads=1, progress=False).complete


@pytest.mark.parametrize("counts", [[[0, 0], [0, 0]], [[3]], [[1, 2, 3], [1]], []])
def test_a_confusion_matrix_of_another_kind(out: Path, counts: list[list[int]]) -> None:
    def change(state: dict[str, Any]) -> None:
        state["entries"][0]["judged"]["confusion"] = counts

    change_state(out, change)
    found = lifelong.verify(out)
    assert not found.sound


def test_the_end_of_a_line_of_the_curves(out: Path) -> None:
    """The last byte of the file: without it the last line was not written to its end, and is lost."""
    file = out / "curves.jsonl"
    content = file.read_bytes()
    for bit in range(8):
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1 << bit]))
        assert {each.file: each.about for each in lifelong.verify(out).files}["curves.jsonl"] == "its last line has no end"
        assert not lifelong.verify(out).sound
    said = []
    listener = type("Notes", (lifelong.Observer,), {"note": lambda self, text: said.append(text)})()
    lifelong.run(config=out / "config.toml", out=out, device="cpu", threads=1, progress=listener)
    assert "curves.jsonl: 1 lines were damaged or another run's, and are dropped" in said


def test_lines_of_the_curves_that_are_not_there(out: Path) -> None:
    """A whole line less is no damage that a digest finds; the epochs are counted."""
    file = out / "curves.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    assert [json.loads(line)["task"] for line in lines] == [0, 1]
    for kept, lost in ((lines[1:], "1"), (lines[:1], "2"), ([], "1, 2")):
        file.write_text("".join(kept))
        found = lifelong.verify(out)
        assert found.sound
        assert {each.file: each.about for each in found.files}["curves.jsonl"] == f"not of all epochs of task {lost}: lines are lost"
    file.unlink()
    assert "their curves are lost" in {each.file: each.about for each in lifelong.verify(out).files}["curves.jsonl"]


@pytest.mark.parametrize("left", ["results.jsonl", "summary.json"])
def test_results_without_a_state_are_not_sound(out: Path, left: str) -> None:
    for name in {STATE, PREVIOUS, "results.jsonl", "summary.json"} - {left}:
        (out / name).unlink()
    found = lifelong.verify(out)
    assert {each.file: each.condition for each in found.files}[STATE] == "missing"
    assert not found.sound


def test_a_file_of_results_that_cannot_be_read(out: Path) -> None:
    for name in ("results.jsonl", "curves.jsonl"):
        (out / name).unlink()
        (out / name).mkdir()
        assert {each.file: each.condition for each in lifelong.verify(out).files}[name] == "damaged"
        (out / name).rmdir()
        shutil.copy(STORED / "finetune" / name, out / name)


def test_the_identity_that_a_state_keeps_is_not_believed_whatever_it_is(out: Path) -> None:
    identity = out / "checkpoint" / "identity.json"
    resave(out, out / STATE, load_tree(out / STATE) | {"identity": 3})
    resave(out, out / PREVIOUS, load_tree(out / PREVIOUS) | {"identity": [1]})
    identity.write_text("{")
    assert RunDirectory(out).identity_of_state() is None
    assert not lifelong.verify(out, repair=True).sound
    assert all(line != "done" for line in outcomes(out).values())
