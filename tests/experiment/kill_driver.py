"""Run an experiment again and again in child processes, killing each at a random moment, until it ends.

    python kill_driver.py OUT METHOD KILLS SEED

Prints a JSON object: how many were killed, and in which stages they were. A process of its own, since it forks.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits

from lifelong.experiment.run import run
from lifelong.methods.registry import make_method
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.training import TrainingSettings
from lifelong.settings.tuning import TuningSettings
from tests.methods.test_conformance import small_settings

STREAM = """
name = "three"
image_size = 8
augment = { crop = 1 }
[[task]]
name = "a"
source = "digits"
classes = ["0", "1", "2"]
train_per_class = 20
valid_per_class = 20
test_per_class = 10
[[task]]
name = "b"
source = "digits"
classes = ["7", "8", "9"]
train_per_class = 20
valid_per_class = 20
test_per_class = 10
[[task]]
name = "a-again"
source = "digits"
classes = { same_as = "a" }
train_per_class = 20
valid_per_class = 20
test_per_class = 10
"""


def experiment(out: Path, method: str) -> None:
    """A small run of a registered method; "par, long" searches longer than it trains; "tuned" is LwF with four candidates a task."""
    stream = out.parent / "three.toml"
    if not stream.exists():
        stream.write_text(STREAM)
    tuning = None
    if method == "tuned":
        method, tuning = "lwf", TuningSettings(grid=(("kd_weight", (10.0, 1.0)), ("lr", (0.02, 0.1))), tolerance=0.05)
    changes = {"par": {"search_epochs": 4}, "par, long": {"search_epochs": 16}, "lwf": {"backbone": "cells"}}.get(method, {})
    method = method.removesuffix(", long")
    settings = small_settings(method, **changes)
    training = TrainingSettings(epochs=8, batch_size=16, lr=0.05)
    config = RunConfig(stream=str(stream), method=method, seed=3, preset="paper", training=training, settings=settings, tuning=tuning)
    run(config, out, Environment(save_every=0.0, device="cpu"))


def main(out: Path, method: str, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    # What a child imports it imports again after each kill: have it here, so that the moments fall into the work.
    make_method("lwf" if method == "tuned" else method.removesuffix(", long"))
    load_digits()
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    chance = random.Random(seed)
    # A first child that is not killed says how long the whole takes.
    started = time.monotonic()
    _wait(_fork(out / "straight", method))
    whole = time.monotonic() - started
    where: list[str] = []
    attempt = 0
    while len(where) < kills:
        attempt += 1
        folder = out / f"killed-{attempt}"
        while len(where) < kills and not _ended(folder):
            child = _fork(folder, method)
            time.sleep(chance.uniform(0.0, 0.4 * whole))
            os.kill(child, signal.SIGKILL)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
                where.append(_stage(folder))
        _wait(_fork(folder, method))
    print(json.dumps({"killed": len(where), "where": where, "runs": attempt, "seconds": whole}))


def _fork(out: Path, method: str) -> int:
    child = os.fork()
    if child:
        return child
    try:
        experiment(out, method)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _wait(child: int) -> None:
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("a run failed")


def _ended(folder: Path) -> bool:
    summary = folder / "summary.json"
    return summary.exists() and json.loads(summary.read_text())["complete"]


def _stage(folder: Path) -> str:
    """The stage that was under way, or "between"."""
    running = [file.name.split(".")[0] for file in folder.glob("checkpoint/stages/**/*.running.safetensors")]
    return running[0] if running else "between"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
