"""The fixed network of a baseline, and its heads."""

from torch import nn

from lifelong.errors import LifelongError
from lifelong.networks.alexnet import AlexNet
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import DARTS_V1
from lifelong.networks.resnet import LightResNet
from lifelong.networks.tasknorm import with_task_norms
from lifelong.settings.baselines import BackboneSettings, SharedBackboneSettings


def feature_dim(network: nn.Module) -> int:
    """Length of the features that a backbone or an expert gives.

    Raises:
        LifelongError: it does not say.
    """
    dim = getattr(network, "feature_dim", None)
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise LifelongError(
            f"the network {type(network).__name__} has feature_dim = {dim!r}; set it to the length of the features that it gives"
        )
    return dim


def head_bias(network: nn.Module) -> bool:
    """Whether heads on a backbone's features have a bias; those of GPM's AlexNet have none."""
    return not isinstance(network, AlexNet) or network.head_bias


def make_backbone(settings: BackboneSettings) -> nn.Module:
    """A network from images (n, 3, h, w) to features (n, `feature_dim`), freshly initialized by torch's global generator."""
    if settings.backbone == "cells":
        return CellNetwork(DARTS_V1, settings.init_channels)
    if settings.backbone in ("alexnet-hat", "alexnet-gpm"):
        return AlexNet(settings.init_channels, batch_norm=settings.backbone == "alexnet-gpm")
    network = LightResNet(settings.init_channels, stem_pool=settings.stem_pool)
    if settings.start == "kaiming":
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network


def make_shared_backbone(settings: SharedBackboneSettings) -> nn.Module:
    """A backbone that all tasks share, whose batch norms obey the settings' policy."""
    return with_task_norms(make_backbone(settings), settings.batch_norm)
