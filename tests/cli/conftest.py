"""Every test of a command in an empty folder, and commands that start nothing."""

import pytest

from lifelong import api
from lifelong.records.distances import DistancesRecord
from lifelong.records.run import RunRecord


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Every test in an empty folder, with no place of data or weights set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIFELONG_DATA", raising=False)
    monkeypatch.delenv("LIFELONG_WEIGHTS", raising=False)


@pytest.fixture
def started(monkeypatch):
    """What would have been run: the arguments of `api.start`, `api.start_comparison` and `api.measure`; nothing is run."""
    calls = []
    task = {"name": "[red]one", "classes": ["a", "b"], "decision": "search", "divergences": [], "alpha": 0.5, "beta": 0.75}
    summary = {"stream": "digits", "method": "par", "seed": 0, "ap": 0.5, "af": 0.0, "parameters": 10, "accuracy": [[0.5]], "tasks": [task]}
    distances = {
        "stream": "digits",
        "seed": 0,
        "tasks": ["[red]one", "two"],
        "divergences": [[], [0.3]],
        "decisions": [{"decision": "search"}, {"decision": "reuse-expert", "group": 0}],
        "notes": ["[b]n[/b]"],
    }

    def fake(result):
        def call(config, out, place, progress=True, workers=1, engine="local"):
            calls.append((config, out, place))
            return result

        return call

    record = RunRecord.model_validate(summary)
    monkeypatch.setattr(api, "start", fake(record))
    monkeypatch.setattr(api, "start_comparison", fake([record, record]))
    monkeypatch.setattr(api, "measure", fake(DistancesRecord.model_validate(distances)))
    return calls
