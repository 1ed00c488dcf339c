"""The record of a run: typed attributes that are also the keys of the file, under new names and old ones."""

import copy
import json
import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from lifelong.errors import LifelongError
from lifelong.experiment.results import read_summary
from lifelong.methods.method import LearnRecord
from lifelong.records.distances import DistancesRecord
from lifelong.records.renames import SCHEMA_VERSION, renamed
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord

STORED = Path(__file__).parents[1] / "experiment" / "stored"


@pytest.fixture
def par() -> RunRecord:
    return read_summary(STORED / "par")


def test_attributes_are_the_keys_of_the_file(par):
    text = json.loads((STORED / "par" / "summary.json").read_text())
    assert (par.ap, par.parameters, par.tasks[1].name) == (text["ap"], text["parameters"], text["tasks"][1]["name"])
    assert (par["ap"], par["tasks"][1]["name"]) == (par.ap, par.tasks[1].name)
    assert set(par) == {*text, "schema_version", "task_agnostic"} - {"task_free"}
    assert dict(par).keys() == par.to_dict().keys()
    assert json.loads(json.dumps(par.to_dict())) == par


def test_what_was_not_recorded_is_none_and_no_key(par):
    assert par.tuning is None
    assert "tuning" not in par
    assert par.get("tuning", "nothing") == "nothing"
    with pytest.raises(KeyError, match="tuning"):
        par["tuning"]


def test_keys_of_a_method_of_one_s_own_stay():
    task = TaskRecord.model_validate({"name": "a", "classes": [], "own": [1, {"b": 2}]})
    assert task["own"] == [1, {"b": 2}]
    assert task.to_dict() == {"name": "a", "classes": [], "own": [1, {"b": 2}]}
    assert len(task) == 3


def test_an_old_key_is_answered_with_a_warning(par):
    assert "task_free" in par
    with pytest.warns(DeprecationWarning, match="'task_free' is now 'task_agnostic'"):
        assert par["task_free"] == par.task_agnostic
    with pytest.warns(DeprecationWarning, match="'distances' is now 'divergences'"):
        assert par.tasks[1].get("distances") == par.tasks[1].divergences
    assert "distances" not in list(par.tasks[1])
    with pytest.raises(KeyError):
        RunRecord(stream="s", method="m", seed=0, tasks=[], accuracy=[])["task_free"]


def test_a_record_is_changed_copied_and_sent(par):
    changed = par | {"ap": 0.5, "stream_content": {"definition": "d", "sources": {}}}
    assert (changed.ap, par.ap) == (0.5, read_summary(STORED / "par").ap)
    assert changed.stream_content is not None
    assert changed.stream_content.definition == "d"
    assert pickle.loads(pickle.dumps(par)) == copy.deepcopy(par) == par
    assert changed != par
    del changed["ap"]
    assert "ap" not in changed
    assert changed.ap is None
    with pytest.raises(ValidationError):
        changed["ap"] = "much"


def test_old_names_become_new_ones_and_new_ones_stay():
    old = {"stream": "s", "task_free": {"by": "method"}, "tasks": [{"name": "a", "distances": [1.5], "group_distances": [0.9]}, 3]}
    new = renamed("summary", old)
    assert new == {
        "schema_version": 2,
        "stream": "s",
        "task_agnostic": {"by": "method"},
        "tasks": [{"name": "a", "divergences": [1.5], "group_distances": [0.9]}, 3],
    }
    assert renamed("summary", new) == new
    old = {"raw": [[], [0.3]], "decisions": [{"action": "search", "distances": [0.2]}]}
    assert renamed("distances", old) == {"divergences": [[], [0.3]], "decisions": [{"decision": "search", "distances": [0.2]}]}


def test_distances_of_an_earlier_version():
    old = {"stream": "s", "seed": 0, "tasks": ["a"], "raw": [[]], "decisions": [{"action": "search"}]}
    found = DistancesRecord.model_validate(renamed("distances", old))
    assert (found.divergences, found.decisions[0].decision) == ([[]], "search")
    with pytest.warns(DeprecationWarning, match="'raw' is now 'divergences'"):
        assert found["raw"] == [[]]


def test_a_later_schema_is_one_line(tmp_path, par):
    (tmp_path / "summary.json").write_text(json.dumps({**par.to_dict(), "schema_version": SCHEMA_VERSION + 1, "version": "9.1"}))
    with pytest.raises(
        LifelongError, match=r"later version of lifelong \(9.1\), in schema 3; this version reads up to 2; update it"
    ) as caught:
        read_summary(tmp_path)
    assert "delete" not in str(caught.value)


def test_a_method_s_former_name_of_eq_4_still_counts():
    record = LearnRecord()
    with pytest.warns(DeprecationWarning, match="is now divergences"):
        record.distances = [1.5]
    assert record.divergences == [1.5]
    with pytest.warns(DeprecationWarning, match="is now divergences"):
        assert record.distances == [1.5]
