"""The fixed network of a baseline, and its heads."""

from torch import nn

from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import DARTS_V1
from lifelong.networks.resnet import LightResNet
from lifelong.networks.tasknorm import with_task_norms
from lifelong.settings.baselines import BackboneSettings, SharedBackboneSettings


def feature_dim(network: nn.Module) -> int:
    """Length of the features that a backbone or an expert gives."""
    dim = network.feature_dim
    assert isinstance(dim, int)
    return dim


def make_backbone(settings: BackboneSettings) -> nn.Module:
    """A network from images (n, 3, h, w) to features (n, `feature_dim`), freshly initialized by torch's global generator."""
    if settings.backbone == "cells":
        return CellNetwork(DARTS_V1, settings.init_channels)
    return LightResNet(settings.init_channels, stem_pool=settings.stem_pool)


def make_shared_backbone(settings: SharedBackboneSettings) -> nn.Module:
    """A backbone that all tasks share, whose batch norms obey the settings' policy."""
    return with_task_norms(make_backbone(settings), settings.batch_norm)
