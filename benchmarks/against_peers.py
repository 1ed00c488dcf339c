"""The library against Avalanche, and against a plain PyTorch loop: whole runs over three tasks with the same network, images and epochs.

    python -m benchmarks against_peers

Avalanche lives in an environment of its own, since it asks for packages that this project does not:

    python -m venv .peers && .peers/bin/pip install -r benchmarks/peers/requirements.txt

Its interpreter is `.peers/bin/python`, or the one that LIFELONG_PEERS names. Without one its rows are left out, and that is said.

Each side is a process of its own with one thread (`benchmarks/peers`). They learn by turns, a task each, and what counts is processor time.
A row's seconds are those of learning: all epochs with their validation, what the method takes of a task at its end, and the test images
of all tasks so far. `detail` has those of the whole processes too, where ours also judges without task names and writes its report.
Parity: the largest difference between what both networks, before they are trained, make of the same images, relative to the largest
number.

Where both have a choice, they are told the same: learning rate, momentum, weight decay, sizes, images kept. EWC estimates its Fisher
information from batches, the only way of Avalanche. What differs: MAS takes the gradient of each image here, as its paper says, and of each
batch there; Joint restarts at each task here, and continues there; we clip gradients, keep the best epoch's weights, and save the run.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers.job import Job

ROOT = Path(__file__).resolve().parent.parent
INSTALL = "python -m venv .peers && .peers/bin/pip install -r benchmarks/peers/requirements.txt"
METHODS = ("finetune", "joint", "ewc", "mas", "lwf", "er", "agem")
WIDE = Job("finetune", channels=64)
NARROW = Job("finetune", channels=16, batch=32)
UNPOOLED = Job("finetune", channels=64, stem_pool=False, train=256, epochs=2)


class Side:
    """The process of one side, ready for its first turn.

    Args:
        interpreter: that has what the side needs.
        module: of `benchmarks.peers`.
        job: what it learns.

    Attributes:
        opening: what it said when it was ready.

    Raises:
        RuntimeError: in every method, if the process has ended early; with the last line of its errors.
    """

    def __init__(self, interpreter: Path | str, module: str, job: Job) -> None:
        self._module = module
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `close` does
        self._process = subprocess.Popen(
            [str(interpreter), "-m", f"benchmarks.peers.{module}", job.text()],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        try:
            self.opening = self._heard()
        except RuntimeError:
            self.close()
            raise

    def turn(self) -> dict[str, Any]:
        """Let it continue to the end of the next task, or of the program after the last one, and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._heard()

    def close(self) -> None:
        """End the process, if it has not ended."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(
                f"benchmarks.peers.{self._module} ended early: {(self._errors.read().strip() or 'no word').splitlines()[-1]}"
            )
        return json.loads(line)


def peers_interpreter() -> Path | None:
    """Return the interpreter that has Avalanche, or None.

    Raises:
        FileNotFoundError: LIFELONG_PEERS names no file.
    """
    named = os.environ.get("LIFELONG_PEERS")
    path = Path(named) if named else ROOT / ".peers" / "bin" / "python"
    if path.is_file():
        return path
    if named:
        raise FileNotFoundError(f"LIFELONG_PEERS={named}: no such file; name the interpreter of the environment with Avalanche")
    return None


def race(job: Job, interpreter: Path | str, module: str) -> dict[str, Any]:
    """Our side against another one, task by task.

    Args:
        job: what both learn.
        interpreter: the other side's.
        module: the other side, a module of `benchmarks.peers`.

    Returns:
        A row (see `benchmarks.__main__`).
    """
    sides = []
    try:
        sides = [Side(sys.executable, "ours", job)]
        sides.append(Side(interpreter, module, job))
        found: list[list[dict[str, Any]]] = [[], []]
        # After the last task each side has one more turn, to its own end.
        for _ in range(job.tasks + 1):
            for side, heard in zip(sides, found, strict=True):
                heard.append(side.turn())
        return row(job, module, [side.opening for side in sides], found)
    finally:
        for side in sides:
            side.close()


def row(job: Job, module: str, openings: list[dict[str, Any]], found: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Combine the answers of two sides into a row of the results.

    Args:
        job: what both learned.
        module: the other side.
        openings: what each said when it was ready.
        found: what each said after each task, and in the end.
    """
    ours, theirs = (sum(task["processor_s"] for task in heard[:-1]) for heard in found)
    walls = [sum(task["wall_s"] for task in heard[:-1]) for heard in found]
    ends = [heard[-1] for heard in found]
    pairs = list(zip(*(opening["features"] for opening in openings), strict=True))
    difference = max(abs(one - other) for one, other in pairs) / max(abs(other) for _, other in pairs)
    if difference > 1e-4:
        raise AssertionError(f"the networks of both sides differ by {difference:.2g} before they are trained")
    other = "Avalanche" if module == "avalanche_side" else "a plain loop"
    versions = ", ".join(f"{name} {version}" for name, version in openings[1]["versions"].items())
    network = f"light ResNet-18{' with stem pool' if job.stem_pool else ''}, C={job.channels}"
    detail = (
        f"{versions}; {job.tasks} tasks of {job.train} images {job.size}x{job.size}, {job.valid} for validation, {job.test} for test, "
        f"{job.epochs} epochs, batch {job.batch}, {network}; "
        f"processor seconds of learning by turns (wall time: {walls[1] / walls[0]:.2f}); "
        f"whole processes {ends[0]['process_s']:.3g} against {ends[1]['process_s']:.3g} s; "
        f"mean accuracy {ends[0]['accuracy']:.2f} against {ends[1]['accuracy']:.2f}"
    )
    return {
        "name": f"{job.method} against {other}, C={job.channels}" + ("" if job.stem_pool else " unpooled"),
        "ratio": theirs / ours,
        "ours_s": ours,
        "plain_s": theirs,
        "parity": difference,
        "threads": 1,
        "detail": detail,
    }


def main(quick: bool = False) -> list[dict[str, Any]]:
    """Race against a plain loop, and against Avalanche where it is installed.

    Args:
        quick: two methods on a narrow network and few images.
    """
    jobs = [*(replace(size, method=method) for size in (WIDE, NARROW) for method in METHODS), UNPOOLED]
    plain_jobs = [WIDE, NARROW, UNPOOLED]
    if quick:
        tiny = Job("finetune", channels=8, train=64, valid=32, test=32, epochs=1)
        jobs, plain_jobs = [tiny, replace(tiny, method="er")], [tiny]
    rows = [race(job, sys.executable, "plain_loop") for job in plain_jobs]
    interpreter = peers_interpreter()
    if interpreter is None:
        print(f"against_peers: AVALANCHE IS LEFT OUT, there is no .peers/bin/python; {INSTALL}", file=sys.stderr)
        return rows
    return rows + [race(job, interpreter, "avalanche_side") for job in jobs]


if __name__ == "__main__":
    for line in main("--quick" in sys.argv):
        print(line)
