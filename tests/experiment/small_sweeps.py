"""Runs of a second, for tests of sweeps."""

from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.training import TrainingSettings

HERE = Environment(device="cpu", threads=1, save_every=0)
STREAM = "digits?tasks=2&train_per_class=4&valid_per_class=2&test_per_class=4"


def small(seed: int, epochs: int = 1) -> RunConfig:
    training = TrainingSettings(epochs=epochs, batch_size=16, lr=0.05, patience=0)
    settings = FinetuneSettings(init_channels=2, backbone="cells")
    return RunConfig(stream=STREAM, method="finetune", seed=seed, preset="quick", training=training, settings=settings)
