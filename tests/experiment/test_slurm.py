"""The engine for Slurm, against commands that behave as Slurm's do; none of this was tried on a real cluster."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lifelong
from lifelong.errors import LifelongError
from lifelong.experiment import on_slurm
from lifelong.experiment.compare import compare
from lifelong.experiment.journal import Journal
from lifelong.experiment.observer import Observer
from lifelong.experiment.sweep import SweepError, check_sweep, sweep
from lifelong.settings.run import RunConfig
from tests.experiment import fake_slurm
from tests.experiment.small_sweeps import HERE, small

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster of this machine."""
    place = tmp_path / "slurm-of-this-test"
    fake_slurm.install(place)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(on_slurm, "POLL", 0.1)
    monkeypatch.setattr(on_slurm, "GRACE", 1.0)
    return place


def jobs_of(cluster: Path) -> dict[str, list[dict[str, Any]]]:
    return {base: array["jobs"] for base, array in json.loads((cluster / "state.json").read_text()).items()}


def until(true: Callable[[], object], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def carried_out(configs: list[RunConfig], out: Path, workers: int = 2, engine: str = "slurm") -> dict[int, Any]:
    planned = [(config, out / f"run-{place}") for place, config in enumerate(configs)]
    journals = [out / "journal" / f"{place}.jsonl" for place in range(len(configs))]
    return dict(sweep(planned, HERE, workers, lambda position: Observer(), engine, journals=journals))


@pytest.mark.slow
def test_as_on_this_machine(cluster, tmp_path):
    """To the bit; one that fails stops no other, and is one line."""
    configs = [small(seed) for seed in range(3)]
    here = compare(configs, tmp_path / "here", HERE)
    out = tmp_path / "out"
    (out / "run-1").mkdir(parents=True)
    (out / "run-1" / "mine.txt").write_text("mine")
    with pytest.raises(SweepError, match=r"1 of 3 runs failed, the others are finished: .* is not empty and holds no run"):
        carried_out(configs, out)
    (out / "run-1" / "mine.txt").unlink()
    found = carried_out(configs, out)
    assert [found[place].accuracy for place in range(3)] == [one.accuracy for one in here]
    states = {base: [job["state"] for job in jobs] for base, jobs in jobs_of(cluster).items()}
    # Of the second sweep, the finished runs are read by jobs that end at once.
    assert list(states.values()) == [["COMPLETED", "FAILED", "COMPLETED"], ["COMPLETED"] * 3]
    assert [Journal(out / "journal" / f"{place}.jsonl").read().starts for place in range(3)] == [1, 1, 1]


def test_the_contract_of_engines(cluster):
    lifelong.check_engine("slurm")


@pytest.mark.slow
def test_a_job_that_is_queued_again_goes_on_under_its_numbers(cluster, tmp_path):
    """Told of the end of its time; and the last job of an array, whose number is that of the whole array, queues no other again."""
    found: dict[int, Any] = {}
    configs = [small(0), small(1, epochs=30)]
    work = threading.Thread(target=lambda: found.update(carried_out(configs, tmp_path / "out")))
    # The thread is not the main one, as of a program with an interface of its own.
    work.start()
    until(lambda: Journal(tmp_path / "out" / "journal" / "1.jsonl").read().what == "task")
    until(lambda: next(iter(jobs_of(cluster).values()))[0]["state"] == "COMPLETED")
    (array,) = jobs_of(cluster)
    assert jobs_of(cluster)[array][1]["id"] == int(array)
    os.kill(jobs_of(cluster)[array][1]["pid"], signal.SIGUSR1)
    work.join(400)
    assert not work.is_alive()
    first, last = jobs_of(cluster)[array]
    assert (first["restarts"], last["restarts"], last["state"], last["id"]) == (0, 1, "COMPLETED", int(array))
    noted = Journal(tmp_path / "out" / "journal" / "1.jsonl").read()
    assert (noted.starts, noted.what) == (2, "finished")
    (alone,) = compare([configs[1]], tmp_path / "here", HERE)
    assert found[1].accuracy == alone.accuracy


@pytest.mark.slow
def test_a_sweep_that_is_killed_joins_its_jobs(cluster, tmp_path):
    """They go on without it; the next call waits for them, and submits nothing."""
    program = f"""
import sys
from pathlib import Path
from lifelong.experiment import on_slurm
from tests.experiment.test_slurm import carried_out
from tests.experiment.small_sweeps import small
on_slurm.POLL = 0.1
carried_out([small(0, epochs=60), small(1)], Path({str(tmp_path / "out")!r}), workers=1)
"""
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ)
    until(lambda: Journal(tmp_path / "out" / "journal" / "0.jsonl").read().what == "task")
    process.kill()
    process.wait()
    found = carried_out([small(0, epochs=60), small(1)], tmp_path / "out", workers=1)
    assert found.keys() == {0, 1}
    assert len(jobs_of(cluster)) == 1
    assert [Journal(tmp_path / "out" / "journal" / f"{place}.jsonl").read().starts for place in range(2)] == [1, 1]


@pytest.mark.slow
def test_a_job_that_dies_is_one_line_with_what_slurm_knows(cluster, tmp_path):
    found: list[str] = []

    def work() -> None:
        with pytest.raises(SweepError) as caught:
            carried_out([small(0, epochs=100_000), small(1)], tmp_path / "out")
        found.append(str(caught.value))

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: Journal(tmp_path / "out" / "journal" / "0.jsonl").read().process)
    os.kill(Journal(tmp_path / "out" / "journal" / "0.jsonl").read().process, signal.SIGKILL)
    thread.join(400)
    (line,) = found
    assert f"the process of {tmp_path / 'out' / 'run-0'} has ended as FAILED; see {tmp_path / 'out' / 'slurm' / '1'}" in line
    assert "\n" not in line
    assert "FAILED" in Journal(tmp_path / "out" / "journal" / "0.jsonl").read().failure


@pytest.mark.slow
def test_more_jobs_than_an_array_has(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SLURM_MOST", "2")
    assert carried_out([small(seed) for seed in range(3)], tmp_path / "out").keys() == {0, 1, 2}
    assert [len(jobs) for jobs in jobs_of(cluster).values()] == [2, 1]


def test_what_is_refused(cluster, tmp_path, monkeypatch):
    head = tmp_path / "head.sh"
    head.write_text("#SBATCH --partition=none\nmodule load python\n")
    with pytest.raises(LifelongError, match=r"sbatch refuses the jobs: .*Invalid partition name specified; nothing was started"):
        carried_out([small(0)], tmp_path / "out", engine=f"slurm:{head}")
    with pytest.raises(LifelongError, match="cannot read it: No such file"):
        check_sweep(1, f"slurm:{tmp_path / 'none.sh'}")
    head.write_text("#SBATCH --array=1-3\n")
    with pytest.raises(LifelongError, match="'#SBATCH --array=1-3': this is set for every sweep"):
        check_sweep(1, f"slurm:{head}")
    with pytest.raises(LifelongError, match="Slurm needs a folder without spaces"):
        carried_out([small(0)], tmp_path / "a b")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LifelongError, match="there is no sbatch on this machine"):
        carried_out([small(0)], tmp_path / "out")


def test_the_script(tmp_path):
    """Options of the file override ours; commands come after all options; a GPU is asked for where the runs want one."""
    job = on_slurm.RunJob(small(0), tmp_path / "run", replace(HERE, device="cuda", threads=4), folder=tmp_path)
    lines = on_slurm.script(tmp_path / "100%", 5, 2, job, "#SBATCH --time=1:00\nmodule load cuda\n").splitlines()
    options = [line for line in lines if line.startswith("#SBATCH")]
    assert options[-1] == "#SBATCH --time=1:00"
    assert {"#SBATCH --array=0-4%2", "#SBATCH --requeue", "#SBATCH --gres=gpu:1", "#SBATCH --cpus-per-task=4"} <= set(options)
    assert f"#SBATCH --output={tmp_path}/100%%/%A_%a.log" in options
    assert lines.index("module load cuda") > lines.index(options[-1])
    with_gpu = on_slurm.script(tmp_path, 5, 2, job, "#SBATCH --gpus=a100:1\n")
    assert "--gres" not in with_gpu
    assert subprocess.run(["bash", "-n"], input=with_gpu, text=True, check=False).returncode == 0
