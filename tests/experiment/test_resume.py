"""Killed at random moments, a run ends with the same bits as one that was left alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lifelong.experiment.results import RunDirectory
from lifelong.methods.registry import METHODS
from tests.trees import same

ROOT = Path(__file__).resolve().parents[2]


def candidates(entry: dict) -> list:
    """What came of each candidate of a tuned task, and which was chosen."""
    report = entry.get("tuning", {"candidates": [], "chosen": None, "epochs": 0})
    found = [{key: value for key, value in trial.items() if key != "seconds"} for trial in report["candidates"]]
    return [found, report["chosen"], report["epochs"]]


def kill(out: Path, method: str, kills: int, seed: int) -> dict:
    command = [sys.executable, str(ROOT / "tests/experiment/kill_driver.py"), str(out), method, str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    straight = RunDirectory(out / "straight").load()
    assert result["killed"] == kills
    for attempt in range(1, result["runs"] + 1):
        folder = out / f"killed-{attempt}"
        killed = RunDirectory(folder).load()
        assert same(killed["method"], straight["method"])
        assert killed["accuracy"] == straight["accuracy"]
        decided = ("name", "decision", "expert", "divergences", "group_distances", "genotype", "epochs", "hyperparameters")
        for ours, theirs in zip(killed["entries"], straight["entries"], strict=True):
            assert {key: ours[key] for key in decided} == {key: theirs[key] for key in decided}
            assert candidates(ours) == candidates(theirs)
        assert not list(folder.glob("checkpoint/stages/*/*"))
        # Kills fall between an epoch's line and its save too: no epoch is lost, and none is there twice.
        curves = [path.read_text() if path.exists() else None for path in (folder / "curves.jsonl", out / "straight/curves.jsonl")]
        assert curves[0] == curves[1]
        # Classifiers in closed form train no epochs.
        assert (curves[0] is not None) == any(entry["epochs"] for entry in straight["entries"])
        assert len((folder / "results.jsonl").read_text().splitlines()) == len(straight["entries"])
    return result


def test_killed_a_few_times(tmp_path: Path) -> None:
    kill(tmp_path, "par", kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_survives_being_killed(tmp_path: Path, method: str) -> None:
    kill(tmp_path, method, kills=6, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["par, long", "lwf", "tuned"])
def test_killed_many_times(tmp_path: Path, method: str) -> None:
    """Twenty-four random moments; for PAR they fall into its long stages and between them."""
    result = kill(tmp_path, method, kills=24, seed=7)
    if method == "par, long":
        assert set(result["where"]) >= {"search", "train", "between"}, result["where"]
