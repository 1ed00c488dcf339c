"""JSON files of a run in which something is of another kind: each is one line that names the file and the place."""

import copy
import json
from pathlib import Path

import pytest

from lifelong.errors import LifelongError
from lifelong.experiment import added_tasks
from lifelong.experiment.curves import read_curves
from lifelong.experiment.results import RunDirectory, read_summary
from lifelong.experiment.schema import hold

STORED = Path(__file__).parent / "stored"
SUMMARIES = sorted(STORED.glob("*/summary.json"))

WRONG = [None, True, 7, 1.5, -1, 10**30, "text", [], [[]], {}, {"a": [1]}]


def one_line(caught: pytest.ExceptionInfo[LifelongError], file: Path) -> None:
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", SUMMARIES, ids=lambda file: file.parent.name)
def test_what_every_method_wrote_passes(file):
    # Eq. 4 is a list of numbers; the phase "distances" is one number, and keeps its name.
    renamed = file.read_text().replace('"task_free"', '"task_agnostic"').replace('"distances": [', '"divergences": [')
    assert read_summary(file.parent) == {"schema_version": 2, **json.loads(renamed)}
    assert RunDirectory(file.parent).identity() == json.loads((file.parent / "checkpoint" / "identity.json").read_text())


def changed(file: Path, place: tuple[str | int, ...], value: object) -> str:
    """The text of a JSON file with one value replaced."""
    whole = at = json.loads(file.read_text())
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = copy.deepcopy(value)
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("tasks",), {}),
        (("tasks",), None),
        (("tasks", 0), 3),
        (("tasks", 0, "name"), 3),
        (("tasks", 0, "classes"), "abc"),
        (("tasks", 0, "classes", 0), None),
        (("tasks", 0, "divergences"), [[1]]),
        (("tasks", 0, "seconds_by_phase"), [1.0]),
        (("tasks", 0, "judged"), {"confusion": [1]}),
        (("tasks", 0, "tuning"), {"candidates": [], "chosen": 0}),
        (("tasks", 0, "tuning"), {"candidates": [{"values": {}, "valid_accuracy": 1.0}], "chosen": 1}),
        (("accuracy",), [[0.5]]),
        (("accuracy", 0, 0), "0.5"),
        (("accuracy", 0, 0), 1.5),
        (("ap",), "0.999"),
        (("memory",), {"prototypes": -1}),
        (("settings",), "lr"),
        (("stream_content",), {"definition": 1, "sources": {}}),
        (("seed",), 1.0),
        (("complete",), "yes"),
        (("task_agnostic",), {"mean_accuracy": [1]}),
    ],
)
def test_a_summary_with_a_value_of_another_kind(tmp_path, place, value):
    file = tmp_path / "summary.json"
    file.write_text(changed(STORED / "par" / "summary.json", place, value))
    with pytest.raises(LifelongError, match=r"cannot read .*; delete it and continue that run") as caught:
        read_summary(tmp_path)
    one_line(caught, file)
    assert f"'{place[0]}" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[", "3", "null", '"text"', "[]", "[" * 100_000, "{" * 9, "1" * 5000, "\udcff", '{"seed": NaN}'])
@pytest.mark.parametrize("name", ["summary.json", "checkpoint/identity.json", "checkpoint/added.json"])
def test_what_is_no_object_of_ours(tmp_path, name, text):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    directory = RunDirectory(tmp_path)
    read = {"summary.json": lambda: read_summary(tmp_path), "checkpoint/identity.json": directory.identity}
    if name.endswith("added.json") and text == "[]":
        assert added_tasks.read_added(directory) == []
        return
    with pytest.raises(LifelongError, match="cannot read") as caught:
        read.get(name, lambda: added_tasks.read_added(directory))()
    one_line(caught, file)


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("key", ["version", "stream", "method", "seed", "stream images"])
def test_an_identity_with_a_value_of_another_kind(tmp_path, key, value):
    stored = STORED / "par" / "checkpoint" / "identity.json"
    accepted = type(value) is type(json.loads(stored.read_text())[key]) and not (key == "seed" and not 0 <= value < 2**53)
    if accepted or (key == "version" and value is None):
        return  # of the right kind: which version it is, is another question
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "identity.json").write_text(changed(stored, (key,), value))
    with pytest.raises(LifelongError, match=r"lifelong verify .* --repair|another version|other versions") as caught:
        RunDirectory(tmp_path).identity()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("key", ["name", "source", "fingerprint", "content", "unknown"])
def test_an_added_task_with_a_value_of_another_kind(tmp_path, key, value):
    entry = {"name": "birds", "source": "folder:/birds", "fingerprint": "abc"}
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "added.json").write_text(json.dumps([entry | {key: value}]))
    if key != "unknown" and isinstance(value, str):
        assert len(added_tasks.read_added(RunDirectory(tmp_path))) == 1
        return
    with pytest.raises(LifelongError, match="restore it from a copy of the run"):
        added_tasks.read_added(RunDirectory(tmp_path))


def test_lines_of_curves_of_another_kind_are_left_out(tmp_path):
    file = tmp_path / "curves.jsonl"
    good = {"task": 0, "stage": "train", "epoch": 1, "loss": 0.5, "accuracy": None}
    wrong = {"task": ("x", -1, [], None), "stage": (3, None, {}), "epoch": (1.5, "1", -1), "loss": ("x", [], True)}
    bad = [good | {key: value} for key, values in wrong.items() for value in values]
    for other in [*bad, [], 3, None, {"task": 0}]:
        file.write_text("".join(f"{json.dumps(line)}\n" for line in (good, other, good)))
        lines = read_curves(file)
        assert (lines.found, lines.whole) == ([good, good], False), other


def test_the_place_is_named():
    with pytest.raises(ValueError, match=r"^'tasks.0.name': input should be a valid string$"):
        hold("summary", json.loads(changed(STORED / "par" / "summary.json", ("tasks", 0, "name"), 3)))
