"""A stand-in for Slurm: `sbatch`, `squeue`, `scontrol` and `sacct`, which behave as the real ones do as far as the library uses them.

`install(folder)` writes the commands; they share the state in `folder/state.json`. One process per array, `manager`, starts its jobs as
bash scripts, as many at once as `--array=...%N` says. As in Slurm:

- every job of an array has a number of its own, but the last one has that of the whole array: who names this number means all jobs;
- `scontrol requeue ARRAY_INDEX` ends the job's processes with SIGTERM, then SIGKILL, and queues it again under the same numbers, with
  SLURM_RESTART_COUNT one larger; without `--requeue` in the script it is refused;
- a job is told of the end of its time by the signal that `--signal=B:NAME@SECONDS` names, sent to the shell of its script alone;
- a job that has ended leaves the queue, and a moment later Slurm knows its number no more ("Invalid job id specified");
- what a job prints is added to the file of `--output`, with %A and %a.

What it is not: a cluster. Nodes, accounts, partitions and limits do not exist here.
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(os.environ.get("FAKE_SLURM", "."))
KILL_WAIT = 3.0
FORGOTTEN = 0.5  # seconds after which the numbers of an array that has ended are invalid


def install(folder: Path) -> None:
    """Write the commands into `folder/bin`."""
    (folder / "bin").mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    for name in ("sbatch", "squeue", "scontrol", "sacct"):
        file = folder / "bin" / name
        file.write_text(f'#!/bin/sh\nFAKE_SLURM={folder} exec {sys.executable} -S {__file__} {name} "$@"\n')
        file.chmod(0o755)


@contextmanager
def state() -> Iterator[dict]:
    """All arrays by number; written back at the end."""
    with (HERE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = json.loads((HERE / "state.json").read_text())
        yield content
        part = HERE / "state.part"
        part.write_text(json.dumps(content))
        part.rename(HERE / "state.json")


def sbatch(words: list[str]) -> int:
    assert words[0] == "--parsable"
    script = Path(words[-1])
    given = [line.split(maxsplit=1)[1] for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
    options = dict(word.lstrip("-").partition("=")[::2] for word in [*given, *words[1:-1]])
    if options.get("partition") == "none":
        print("sbatch: error: invalid partition specified: none", file=sys.stderr)
        print("sbatch: error: Batch job submission failed: Invalid partition name specified", file=sys.stderr)
        return 1
    last, at_once = map(int, re.fullmatch(r"0-(\d+)%(\d+)", options["array"]).groups())
    with state() as arrays:
        base = 100 + sum(len(each["jobs"]) + 1 for each in arrays.values())
        jobs = [{"state": "PENDING", "id": base + 1 + index, "restarts": 0, "pid": 0} for index in range(last + 1)]
        jobs[-1]["id"] = base
        options["after"] = options.get("dependency", "").removeprefix("afterany:")
        arrays[str(base)] = {"script": str(script), "options": options, "at_once": at_once, "jobs": jobs, "ended": 0.0}
    log = (HERE / f"manager-{base}.log").open("w")
    subprocess.Popen([sys.executable, "-S", __file__, "manager", str(base)], stdout=log, stderr=log, start_new_session=True)
    print(base)
    return 0


def manager(words: list[str]) -> int:
    """Start the jobs of one array, and see how they end."""
    base, children = words[0], {}
    while True:
        with state() as arrays:
            array = arrays[base]
            before = arrays.get(array["options"]["after"])
            for index, job in enumerate(array["jobs"]):
                child = children.get(index)
                if child is not None and child.poll() is not None:
                    del children[index]
                    if job["state"] == "REQUEUED":
                        job |= {"state": "PENDING", "restarts": job["restarts"] + 1, "pid": 0}
                    else:
                        job |= {"state": "COMPLETED" if child.returncode == 0 else job.get("cause", "FAILED"), "code": child.returncode}
            if before is None or before["ended"]:
                for index, job in enumerate(array["jobs"]):
                    if job["state"] == "PENDING" and len(children) < array["at_once"]:
                        children[index] = start(base, index, array, job)
                        job |= {"state": "RUNNING", "pid": children[index].pid, "began": time.time()}
            if not children and all(job["state"] not in ("PENDING", "RUNNING", "REQUEUED") for job in array["jobs"]):
                array["ended"] = time.time()
                return 0
        time.sleep(0.05)


def start(base: str, index: int, array: dict, job: dict) -> subprocess.Popen:
    numbers = {"SLURM_ARRAY_JOB_ID": base, "SLURM_ARRAY_TASK_ID": str(index), "SLURM_JOB_ID": str(job["id"])}
    if job["restarts"]:
        numbers["SLURM_RESTART_COUNT"] = str(job["restarts"])
    with Path(array["options"]["output"].replace("%A", base).replace("%a", str(index))).open("a") as log:
        environment = os.environ | numbers
        return subprocess.Popen(["bash", array["script"]], stdout=log, stderr=log, env=environment, start_new_session=True)


def squeue(words: list[str]) -> int:
    assert words[:2] == ["--noheader", "--array"]
    assert words[3] == "--format=%F|%K|%T"
    base = words[2].removeprefix("--jobs=")
    with state() as arrays:
        array = arrays.get(base)
        if array is None or (array["ended"] and time.time() - array["ended"] > FORGOTTEN):
            print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
            return 1
        for index, job in enumerate(array["jobs"]):
            if job["state"] in ("PENDING", "RUNNING", "REQUEUED"):
                print(f"{base}|{index}|{'COMPLETING' if job['state'] == 'REQUEUED' else job['state']}")
    return 0


def meant(arrays: dict, name: str) -> list[tuple[dict, dict]]:
    """The jobs that a number means, each with its array."""
    base, _, index = name.partition("_")
    if index:
        return [(arrays[base], arrays[base]["jobs"][int(index)])]
    if base in arrays:
        return [(arrays[base], job) for job in arrays[base]["jobs"]]
    return [(array, job) for array in arrays.values() for job in array["jobs"] if str(job["id"]) == base]


def scontrol(words: list[str]) -> int:
    if words == ["show", "config"]:
        print(f"Configuration data as of now\nMaxArraySize            = {os.environ.get('FAKE_SLURM_MOST', '1001')}\nMaxJobCount = 10000")
        return 0
    if words[:3] == ["--oneliner", "show", "job"]:
        print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
        return 1
    assert words[0] == "requeue"
    running = []
    with state() as arrays:
        for array, job in meant(arrays, words[1]):
            if "requeue" not in array["options"]:
                print("Requested operation is presently disabled for job", file=sys.stderr)
                return 1
            if job["state"] == "RUNNING":
                running.append(job["pid"])
                job["state"] = "REQUEUED"
            elif job["state"] != "PENDING":
                job |= {"state": "PENDING", "restarts": job["restarts"] + 1}
    if running and os.fork() == 0:
        os.setsid()
        end(running)
        os._exit(0)
    return 0


def end(groups: list[int]) -> None:
    """End sessions as slurmd does."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            try:
                os.killpg(group, number)
            except ProcessLookupError:
                continue
        time.sleep(KILL_WAIT)


def sacct(words: list[str]) -> int:
    name = next(word for word in words if word.startswith("--jobs=")).removeprefix("--jobs=")
    with state() as arrays:
        for _, job in meant(arrays, name):
            print(job["state"])
    return 0


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](sys.argv[2:]))
