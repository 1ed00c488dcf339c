"""Small runs to export, of tasks in one image size or in two."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lifelong.experiment.run import run
from lifelong.methods.registry import METHODS
from lifelong.settings.run import RunConfig
from lifelong.settings.training import TrainingSettings
from tests.learned import HERE
from tests.methods.test_conformance import small_settings

TASK = """
[[task]]
name = "{name}"
source = "digits"
classes = {classes}
image_size = {size}
train_per_class = 6
valid_per_class = 6
test_per_class = 6
"""


def exported_run(folder: Path, method: str, sizes: tuple[int, ...] = (8, 8), weights: Path | None = None, **settings: Any) -> Path:
    """A finished run of a registered method, below a folder; each task has three classes."""
    tasks = [
        TASK.format(name=f"task {index}", classes=[str(3 * (index % 3) + label) for label in range(3)], size=size)
        for index, size in enumerate(sizes)
    ]
    stream = folder / f"{method}.toml"
    stream.write_text('name = "small"\n' + "".join(tasks))
    assert method in METHODS
    training = TrainingSettings(epochs=2, batch_size=9, lr=0.05)
    config = RunConfig(
        stream=str(stream), method=method, seed=0, preset="paper", training=training, settings=small_settings(method, **settings)
    )
    run(config, folder / method, replace(HERE, weights=weights))
    return folder / method
