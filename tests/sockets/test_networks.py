"""Extractors and backbones of one's own: examples keep their contracts, what does not is found out."""

import sys

import pytest
import torch
from torch import nn

import lifelong
from lifelong.errors import ConformanceError, LifelongError
from lifelong.settings.baselines import FinetuneSettings
from tests.sockets.examples import SMALL, example


def test_an_extractor_of_ones_own():
    example("new_extractor")
    lifelong.check_extractor("thumbnail")
    assert lifelong.distances(SMALL, preset="quick", extractor="thumbnail")["extractor"] == "thumbnail"


def test_a_run_knows_an_extractor_by_its_weights(tmp_path):
    def network():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    lifelong.register_extractor("mine", network)
    few = {"preset": "quick", "epochs": 1, "init_channels": 2, "search_epochs": 1, "device": "cpu", "extractor": "mine"}
    seed = 0
    lifelong.run(SMALL, out=tmp_path / "run", **few)
    seed = 1
    with pytest.raises(LifelongError, match="extractor digest"):
        lifelong.run(SMALL, out=tmp_path / "run", **few)


class Batchy(nn.Module):
    def forward(self, images):
        return images.flatten(1) - images.flatten(1).mean(0)


class Unbounded(nn.Module):
    def forward(self, images):
        return images.flatten(1) / 0.0


@pytest.mark.parametrize(("make", "line"), [(Batchy, "other images of a batch"), (Unbounded, "not finite")])
def test_an_extractor_that_breaks_its_contract(make, line):
    lifelong.register_extractor("broken", make)
    with pytest.raises(ConformanceError, match=line):
        lifelong.check_extractor("broken")


@pytest.mark.parametrize("method", ["finetune", "independent", "ewc", "er"])
def test_a_backbone_of_ones_own(tmp_path, method):
    """It is built for the images' size, saved, and found again."""
    example("new_backbone")
    lifelong.run(SMALL, out=tmp_path / "run", method=method, backbone="pixels-mlp", preset="quick", epochs=1, init_channels=2, device="cpu")
    learner = lifelong.Learner.load(tmp_path / "run")
    assert len(learner.predict(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))) == 2
    (layer, *_) = [module for module in learner._known()._saved.method.modules(0)[0].modules() if isinstance(module, nn.Linear)]
    assert layer.weight.shape == (16, 3 * 8 * 8)


def test_a_backbone_keeps_its_contract():
    example("new_backbone")
    lifelong.check_backbone("pixels-mlp", images=3)


def test_a_backbone_that_breaks_its_contract():
    class Short(nn.Flatten):
        feature_dim = 5

        def __init__(self, image_size, width):
            super().__init__()

    lifelong.register_backbone("short", Short)
    with pytest.raises(Exception, match=r"mat1 and mat2|5"):
        lifelong.check_backbone("short")
    lifelong.register_backbone("none", lambda image_size, width: nn.Flatten())
    with pytest.raises(LifelongError, match="feature_dim = None"):
        lifelong.check_backbone("none")


def test_networks_of_timm_are_named_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(LifelongError, match="needs timm"):
        lifelong.make_method("finetune", FinetuneSettings(backbone="timm:resnet18")).make_network()


def test_a_network_of_timm(tmp_path):
    pytest.importorskip("timm", reason="timm is not installed")
    lifelong.check_backbone("timm:resnet10t", images=3)
