"""The fixed network of a baseline and its heads, built by a registered name.

A backbone is built for the size of the first task's images, maps normalized images (n, 3, h, w) to features (n, `feature_dim`), and may
say that heads on it have no bias (`head_bias = False`). One of your own:

    class Mine(torch.nn.Module):
        def __init__(self, image_size, width):
            super().__init__()
            self.feature_dim = ...

    lifelong.register_backbone("mine", Mine)            # then: --backbone mine --init-channels WIDTH
"""

import importlib
from typing import Annotated, Any, Protocol, runtime_checkable

from annotated_types import Ge
from torch import nn

from lifelong.errors import LifelongError
from lifelong.methods.conformance import check_method
from lifelong.networks.alexnet import AlexNet
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import DARTS_V1
from lifelong.networks.resnet import LightResNet
from lifelong.networks.tasknorm import with_task_norms
from lifelong.settings.arguments import checked
from lifelong.settings.baselines import BackboneSettings, FinetuneSettings, SharedBackboneSettings
from lifelong.settings.sockets import BACKBONES


@runtime_checkable
class BuildBackbone(Protocol):
    """Builds a network, freshly initialized by torch's global generator."""

    def __call__(self, settings: BackboneSettings, image_size: int) -> nn.Module:
        """Build it.

        Args:
            settings: with the width, `init_channels`.
            image_size: height and width of the images, in pixels.
        """
        ...


def feature_dim(network: nn.Module) -> int:
    """Return the length of the features of a backbone or an expert.

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
    """Tell whether heads on a backbone's features have a bias; those of GPM's AlexNet have none."""
    return bool(getattr(network, "head_bias", True))


def make_backbone(settings: BackboneSettings, image_size: int) -> nn.Module:
    """Build the network that the settings name, for images of a size."""
    build: BuildBackbone = BACKBONES[settings.backbone]
    return build(settings, image_size)


def has_own_statistics(settings: SharedBackboneSettings) -> bool:
    """Tell whether each task has batch-norm statistics of its own."""
    return settings.batch_norm in ("per-task-stats", "per-task")


def make_shared_backbone(settings: SharedBackboneSettings, image_size: int) -> nn.Module:
    """Build a backbone that all tasks share, whose batch norms obey the settings' policy."""
    return with_task_norms(make_backbone(settings, image_size), settings.batch_norm)


def light_resnet18(settings: BackboneSettings, image_size: int) -> nn.Module:
    """Build MNTDP's light ResNet-18, for images of any size."""
    network = LightResNet(settings.init_channels, stem_pool=settings.stem_pool)
    if settings.start == "kaiming":
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network


def cells(settings: BackboneSettings, image_size: int) -> nn.Module:
    """Build PAR's cell network with a fixed cell, for images of any size."""
    return CellNetwork(DARTS_V1, settings.init_channels)


def alexnet_hat(settings: BackboneSettings, image_size: int) -> nn.Module:
    """Build HAT's AlexNet, for images of any size from 19 pixels on."""
    return AlexNet(settings.init_channels)


def alexnet_gpm(settings: BackboneSettings, image_size: int) -> nn.Module:
    """Build GPM's AlexNet, for images of any size from 19 pixels on."""
    return AlexNet(settings.init_channels, batch_norm=True)


def of_timm(name: str) -> BuildBackbone:
    """Find a timm network by its name there, at its own width, without pretrained weights.

    Raises:
        LifelongError: timm is not installed, or has no such network.
    """
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise LifelongError(f"--backbone timm:{name} needs timm: pip install timm") from None
    if name not in timm.list_models():
        raise LifelongError(f"timm has no network '{name}'; see timm.list_models()")

    def build(settings: BackboneSettings, image_size: int) -> nn.Module:
        network = timm.create_model(name, pretrained=False, num_classes=0)
        network.feature_dim = int(network.num_features)
        return network

    return build


# `Any`, not a callable: what cannot be called gets a message of its own.
@checked
def register_backbone(name: str, build: Any, *, summary: str = "", source: str = "") -> None:
    """Register your own network for `--backbone` and the setting `backbone` of every baseline that takes any network.

    Args:
        name: letters, digits, dashes and underscores.
        build: a class or function that takes `image_size` (pixels) and `width` (`init_channels`), and gives a module from normalized images
            (n, 3, h, w) to features (n, d), with `feature_dim = d`.
        summary: one line of what it is.
        source: its paper.

    Raises:
        LifelongError: the name is taken or invalid, or `build` is not a class or function.
    """
    fits = callable(build) and not isinstance(build, nn.Module)
    BACKBONES.require(fits, build, "the class itself, or a function that builds the network")

    def built(settings: BackboneSettings, image_size: int) -> nn.Module:
        network = build(image_size=image_size, width=settings.init_channels)
        if not isinstance(network, nn.Module):
            raise LifelongError(f"backbone '{name}': gave a {type(network).__name__}; it must give a torch.nn.Module")
        feature_dim(network)
        return network

    BACKBONES.register(name, built, summary=summary, source=source)


@checked
def check_backbone(name: str, *, images: Annotated[int, Ge(1)] = 8) -> None:
    """Try a registered backbone under Finetune, on synthetic tasks of images of 8 x 8 pixels.

    Checked: all that `check_method` checks of a method, and that features are as long as `feature_dim` says.

    Args:
        name: of the backbone.
        images: training images per class.

    Raises:
        ConformanceError: what is broken, and at which task.
        LifelongError: there is no such backbone.
    """
    from lifelong.methods.finetune import Finetune

    BACKBONES[name]
    check_method(lambda: Finetune(FinetuneSettings(backbone=name, init_channels=4)), images=images)
