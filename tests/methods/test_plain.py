"""On a single task every method is plain training: same initial weights and batches, textbook PyTorch, same network."""

import copy
import importlib
import sys
from functools import reduce

import pytest
import torch
import torch.nn.functional as F

from lifelong.methods.registry import METHODS, make_method
from lifelong.networks.progressive import Column
from lifelong.settings.pretrained import PretrainedSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import accuracy, image_examples
from tests.made import made_task
from tests.methods.test_conformance import small_settings
from tests.methods.test_par import context

TRAINING = TrainingSettings(epochs=4, batch_size=8, lr=0.001, weight_decay=0.3, clip_norm=0.0, patience=0)
"""Small steps; a decay that would be missed if it were left out."""

OTHER_TRAINING = {
    "gpm": {"plain_sgd": False},
    "packnet": {"use_weight_decay": True, "retrain_epochs": 1.0, "retrain_lr": 1.0},
    "wsn": {"use_weight_decay": True},
    "supsup": {"use_weight_decay": True},
}
"""Settings of methods that are published with another optimizer, by which they are trained as the others."""


GATED = {"hat", "cat"}
"""Methods whose network is gated from the first task on; their training is not that of a plain network."""


FLOORS = {name for name, entry in METHODS.items() if issubclass(entry.settings, PretrainedSettings)}
"""Methods that train no network."""


def logits_of(network: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """What a network makes of images: a column of PNN that has no earlier ones, or a list of modules, the head its last."""
    if isinstance(network, Column):
        return network(inputs, [])
    return reduce(lambda x, module: module(x), network, inputs)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("name", sorted(set(METHODS) - GATED - FLOORS))
def test_one_task_is_plain_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = {}
    importlib.import_module(METHODS[name].target.partition(":")[0])
    for module in [module for place, module in sys.modules.items() if place.startswith("lifelong.") and hasattr(module, "fit_selected")]:
        fit_selected = module.fit_selected

        def recording(network, examples, predict, settings, stage, *, original=fit_selected, **more):
            begun.update(network=copy.deepcopy(network), seed=stage.seed)
            return original(network, examples, predict, settings, stage, **more)

        monkeypatch.setattr(module, "fit_selected", recording)
    method = make_method(name, small_settings(name, **OTHER_TRAINING.get(name, {})))
    task = made_task()
    method.learn(task, context(0, TRAINING))

    network, examples = begun["network"], image_examples(task)
    inputs, valid = examples.prepare(examples.train), examples.prepare(examples.valid)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    generator = torch.Generator().manual_seed(begun["seed"])
    best, expected = -1.0, torch.zeros(0)
    for _ in range(4):
        network.train()
        for indices in torch.randperm(len(inputs), generator=generator).split(8):
            optimizer.zero_grad()
            F.cross_entropy(logits_of(network, inputs[indices]), examples.train_labels[indices]).backward()
            optimizer.step()
        schedule.step()
        network.eval()
        with torch.no_grad():
            logits = logits_of(network, valid)
        score = accuracy(logits, examples.valid_labels)
        if score > best:
            best, expected = score, logits
    torch.testing.assert_close(method.logits(task.valid.images, 0), expected, rtol=1e-8, atol=1e-10)
