"""Configurations of small runs of three tasks of digits."""

from lifelong.settings.baselines import FinetuneSettings, IndependentSettings
from lifelong.settings.par import PARSettings
from lifelong.settings.run import RunConfig
from lifelong.settings.training import TrainingSettings


def config(stream: str, method: str = "finetune", **training) -> RunConfig:
    settings = {
        "finetune": FinetuneSettings(init_channels=4, backbone="cells"),
        "independent": IndependentSettings(init_channels=4, backbone="cells"),
        "par": PARSettings(init_channels=4, cells=2, search_epochs=2, extractor="pixels"),
    }[method]
    values = {"epochs": 2, "batch_size": 16, "lr": 0.05} | training
    return RunConfig(stream=stream, method=method, seed=0, preset="paper", training=TrainingSettings(**values), settings=settings)
