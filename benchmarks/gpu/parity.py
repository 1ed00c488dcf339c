"""Part 1: every method computes on the device what it computes on the CPU, and a replayed step what an eager one does.

Each method learns two made tasks three times: on the CPU, on the device eagerly, and on the device with recorded steps. Every epoch is
one batch and nothing is augmented, so that generators, which draw other numbers on another device, decide next to nothing: all three learn
from the same images, in sums of another order.

Measured for each method, relative to the largest logit of the CPU:

* `loaded`: the CPU's state, answered for by the device. Nothing but rounding: at most 1e-4.
* `trained`: trained on the device. Rounding, magnified by training: at most 1e-2 where the method draws nothing on the device.
* `replayed`: recorded steps against eager ones, the same numbers drawn: 0, or rounding where CUDA's sums have no fixed order.
* `waits`: how often an eager step waited for the device (PyTorch's sync debug mode); 0 but for a cache that is filled once.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.report import Report
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.steps import recorded
from lifelong.methods.conformance import made_task
from lifelong.methods.method import Context, Method
from lifelong.methods.registry import METHODS, make_method
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.relatedness.extractor import Extractor, NetworkExtractor, open_extractor
from lifelong.settings.fields import settings_of
from lifelong.settings.training import TrainingSettings
from lifelong.training.precision import exact_float32
from lifelong.training.step_runner import StepRunner, cuda_waits

TASKS, IMAGES = 2, 8
SMALL = {"init_channels": 4, "search_epochs": 2, "extractor": "pixels", "gate_channels": 4}
"""Settings that make a method small; each applies to the methods that have it."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "par, one expert": ("par", {"variant": "regularization"}),
    "par, heads": ("par", {"expert": "head", "alpha": 1.0}),
    "par, adapters": ("par", {"expert": "adapter", "extractor": "resnet18", "enough_accuracy": 1.0, "adapter_rank": 2}),
}
"""What the defaults of a method do not run: its name and the settings that do."""

CASES = {name: (name, {}) for name in METHODS} | VARIANTS


def measure(report: Report, scale: Scale, device: torch.device, scratch: Path, deadline: float) -> None:
    """Add a row for each method and comparison."""
    with exact_float32(device):
        for name in sorted(CASES):
            here = learned(name, torch.device("cpu"), scale.epochs)
            with recorded(False), watched(device) as waits:
                eager = learned(name, device, scale.epochs)
            with recorded(True):
                replayed = learned(name, device, scale.epochs)
            loaded = small(name)
            loaded.load_state_dict(here.state_dict(), device)
            cpu, answers = logits(here, torch.device("cpu")), logits(eager, device)
            report.add("parity", f"{name} loaded", difference(cpu, logits(loaded, device)), "relative")
            report.add("parity", f"{name} trained", difference(cpu, answers), "relative")
            report.add("parity", f"{name} replayed", difference(answers, logits(replayed, device)), "relative")
            report.add("parity", f"{name} waits", float(len(waits)), "times")


def small(case: str) -> Method:
    """Make the small untrained method of a case."""
    name, chosen = CASES[case]
    settings = METHODS[name].settings
    known = settings_of(settings)
    return make_method(name, settings(**{key: value for key, value in SMALL.items() if key in known} | chosen))


def learned(name: str, device: torch.device, epochs: int) -> Method:
    """Make the small method of a case, which has learned the synthetic tasks."""
    method = small(name)
    training = TrainingSettings(epochs=epochs, batch_size=4096, lr=0.02, augment=False)

    def extractor(kind: str, feature_input: str) -> Extractor:
        if kind == "pixels":
            return open_extractor("pixels", device=device)
        # Random weights do here, and need no file.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = ImageNetResNet18("layer3")
        return NetworkExtractor(kind, network, "random", feature_input=feature_input, device=device)

    for index in range(TASKS):
        task = made_task(index, IMAGES).to(device)
        context = Context(task_index=index, task_name=task.name, training=training, seed=0, device=device, open_extractor=extractor)
        method.learn(task, context)
    return method


def logits(method: Method, device: torch.device) -> list[Tensor]:
    """Compute the predictions of a method on a device, one tensor per task."""
    images = torch.randint(0, 256, (64, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8).to(device)
    return [method.logits(images, task).cpu() for task in range(TASKS)]


def difference(reference: list[Tensor], other: list[Tensor]) -> float:
    """Return the largest difference of logits, relative to the largest logit of the reference."""
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(reference, other, strict=True))


@contextmanager
def watched(device: torch.device) -> Generator[list[str]]:
    """Return a context that records everything within a step that waits for a CUDA device."""
    waits: list[str] = []
    run = StepRunner.run
    if device.type != "cuda":
        yield waits
        return

    def watching(self: StepRunner, *arguments: object) -> None:
        with cuda_waits() as found:
            run(self, *arguments)  # ty: ignore[invalid-argument-type]
        waits.extend(found)

    StepRunner.run = watching  # ty: ignore[invalid-assignment]
    try:
        yield waits
    finally:
        StepRunner.run = run
