"""A small run to be used: three tasks of digits, learned in a second or two."""

from pathlib import Path

from lifelong.experiment.run import run
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.par import PARSettings
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.training import TrainingSettings
from tests.experiment.kill_driver import STREAM

HERE = Environment(device="cpu", threads=1)


def small_config(folder: Path, method: str = "par") -> RunConfig:
    """The configuration of a small run; its stream is written into a folder."""
    stream = folder / "three.toml"
    if not stream.exists():
        stream.write_text(STREAM)
    if method == "par":
        settings = PARSettings(init_channels=4, cells=3, search_epochs=2, extractor="pixels")
    else:
        settings = FinetuneSettings(init_channels=4, backbone="cells")
    training = TrainingSettings(epochs=6, batch_size=16, lr=0.05)
    return RunConfig(stream=str(stream), method=method, seed=0, preset="paper", training=training, settings=settings)


def small_run(folder: Path, method: str = "par") -> Path:
    """A finished run below a folder."""
    run(small_config(folder, method), folder / method, HERE)
    return folder / method
