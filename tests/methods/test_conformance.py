"""Every registered method keeps the contract; a method that breaks it is found out."""

from typing import get_args

import pytest
import torch
from torch import nn

from lifelong.methods import conformance
from lifelong.methods.conformance import ConformanceError, check_method
from lifelong.methods.finetune import Finetune
from lifelong.methods.method import Recognized
from lifelong.methods.registry import METHODS, make_method
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.relatedness.extractor import open_extractor
from lifelong.settings.baselines import BackboneSettings, FinetuneSettings
from lifelong.settings.extractor import ExtractorSettings
from lifelong.settings.growing import GrowingSettings, LearnToGrowSettings, SGFSettings
from lifelong.settings.par import PARSettings, Variant
from lifelong.settings.pretrained import LinearProbeSettings, PretrainedSettings, RanPACSettings
from lifelong.settings.training import TrainingSettings

pytestmark = pytest.mark.usefixtures("shallow_networks")


def small_settings(name: str, **changes):
    """Settings of a registered method that make it small."""
    settings = METHODS[name].settings
    small = {"init_channels": 4} if issubclass(settings, BackboneSettings | GrowingSettings | PARSettings) else {}
    if issubclass(settings, ExtractorSettings | PretrainedSettings):
        small |= {"extractor": "pixels"}
    if issubclass(settings, LinearProbeSettings):
        small |= {"probe_penalties": (1.0, 0.1)}
    if issubclass(settings, RanPACSettings):
        small |= {"random_features": 60}
    if issubclass(settings, PARSettings) and "expert" not in changes:
        small |= {"cells": 3}  # one that keeps the resolution, and both that halve it
    if issubclass(settings, PARSettings | LearnToGrowSettings):
        small |= {"search_epochs": 2}
    if issubclass(settings, SGFSettings):
        small |= {"backbone": "conv4", "gate_channels": 4}
    return settings(**small | changes)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_registered_methods_keep_the_contract(name: str) -> None:
    check_method(lambda: make_method(name, small_settings(name)), images=4)


def test_par_with_heads_keeps_it_too() -> None:
    """Related or not: with a wide alpha every task reads the answers for the earlier ones."""
    check_method(lambda: make_method("par", small_settings("par", expert="head", alpha=10.0)))


def test_par_with_adapters_keeps_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weights = ImageNetResNet18("layer3").state_dict()
    monkeypatch.setattr(conformance, "_open_extractor", lambda name, policy: open_extractor("resnet18", saved=weights))
    settings = small_settings("par", expert="adapter", extractor="resnet18", enough_accuracy=1.0, adapter_rank=2)
    check_method(lambda: make_method("par", settings))


def test_ranpac_with_common_statistics_keeps_it_too() -> None:
    check_method(lambda: make_method("ranpac", small_settings("ranpac", statistics="common")))


@pytest.mark.parametrize("covariance", ["class", "common"])
def test_fecam_with_other_covariances_keeps_it_too(covariance: str) -> None:
    check_method(lambda: make_method("fecam", small_settings("fecam", covariance=covariance)))


@pytest.mark.slow
@pytest.mark.parametrize("variant", get_args(Variant)[1:])
def test_ablations_of_par_keep_it_too(variant: str) -> None:
    check_method(lambda: make_method("par", small_settings("par", variant=variant)))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(METHODS))
def test_with_a_choice_of_weight_decay(name: str) -> None:
    training = TrainingSettings(epochs=3, batch_size=8, weight_decay_grid=(0.0003, 0.01), augment=False)
    check_method(lambda: make_method(name, small_settings(name)), training=training)


class KeepsImages(Finetune):
    def learn(self, task, context):
        self.kept = task.train.images
        return super().learn(task, context)


class Forgetful(Finetune):
    def load_state_dict(self, state, device="cpu"):
        super().load_state_dict(state | {"heads": [*state["heads"][:-1], {k: v + 1 for k, v in state["heads"][-1].items()}]}, device)


class Random(Finetune):
    def learn(self, task, context):
        record = super().learn(task, context)
        with torch.no_grad():
            self.heads[-1].bias.add_(torch.rand(()))
        return record


class Hoarder(Finetune):
    def learn(self, task, context):
        self.spare = nn.Linear(3, 3)
        return super().learn(task, context)


class OneHead(Finetune):
    def predict(self, inputs, task_index):
        return super().predict(inputs, 0)


class AgainstTheOthers(Finetune):
    def predict(self, inputs, task_index):
        return super().predict(inputs, task_index) - inputs.mean()


class SaysSo(AgainstTheOthers):
    batch_dependent = True


class OfTwoMinds(Finetune):
    def task_probabilities(self, images):
        return torch.full((len(images), len(self.tasks)), 1 / len(self.tasks))

    def recognize(self, images):
        return Recognized(None, None)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (KeepsImages, "images are kept"),
        (Forgetful, "round trip"),
        (Random, "same seed"),
        (Hoarder, "12 held|held"),
        (OneHead, "shape"),
        (AgainstTheOthers, "depends on the images it is asked about with"),
        (OfTwoMinds, "`recognize` says something else"),
    ],
)
def test_breaches_are_found(broken: type[Finetune], message: str) -> None:
    with pytest.raises(ConformanceError, match=message):
        check_method(lambda: broken(FinetuneSettings(init_channels=4)))


def test_a_method_may_look_at_all_images_together_if_it_says_so() -> None:
    check_method(lambda: SaysSo(FinetuneSettings(init_channels=4)))
