"""The training loop of PAR's code with given validation accuracies: rates, the epoch that is kept, and the end."""

import pytest
import torch
from torch import Tensor, nn

from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import FitOutcome, fit
from lifelong.training.stages import Stage
from tests.reference.recordings import recording

pytestmark = pytest.mark.usefixtures("in_float64")

IMAGES = 50


def fit_with(right: list[int], settings: TrainingSettings) -> FitOutcome:
    """Fit something whose answers to so many of the validation images are right after each epoch."""
    told, module, zeros = iter(right), nn.Linear(1, 1), torch.zeros(IMAGES, dtype=torch.int64)

    def predict(inputs: Tensor) -> Tensor:
        wrong = (torch.arange(IMAGES) >= next(told)).double()
        return torch.stack([0.5 - wrong, wrong - 0.5], dim=1)

    inputs = torch.ones(IMAGES, 1)
    examples = Examples(inputs[:2], zeros[:2], inputs, zeros)
    return fit(module, examples, predict, settings, Stage("train", 0), loss=lambda batch: module(batch.inputs).square().mean())


SETTINGS = {
    "cosine": TrainingSettings(epochs=40, patience=6),
    "reuse": TrainingSettings(epochs=40, patience=0),
    "plateau": TrainingSettings(epochs=40, patience=4, schedule="plateau", plateau_factor=0.3),
}


@pytest.mark.parametrize("name", list(SETTINGS))
def test_schedule(name: str) -> None:
    """Of eight trainings of up to forty epochs; where an expert is reused, the code never stops early."""
    recorded = recording("par-schedule")
    outcomes = [fit_with(right, SETTINGS[name]) for right in recorded["in/right"].tolist()]
    for key, found in (("best", [outcome.best_epoch - 1 for outcome in outcomes]), ("epochs", [outcome.epochs for outcome in outcomes])):
        assert found == recorded[f"out/{key}_{name}"].tolist()
    if name != "reuse":
        for outcome, theirs in zip(outcomes, recorded[f"out/rates_{name}"], strict=True):
            recorded.holds(torch.tensor([rate for rate, _, _ in outcome.history]), theirs[~theirs.isnan()])
