"""The hyper-parameters of classifiers on the frozen features of a pretrained network."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from lifelong.settings.base import setting
from lifelong.settings.sockets import EXTRACTORS

FeatureSize = Literal["task", "32", "64", "96", "128", "224"]

FeaturePrecision = Literal["float32", "half"]

PRECISION = "features as they are computed, or rounded to half precision, in which they take half the space on the disk"

COPIES = (
    "copies of each training image that heads are fitted to as well: the first one mirrored, further ones cropped and mirrored at random; "
    "each only where the task's augmentation does so"
)


@dataclass(frozen=True, kw_only=True)
class PretrainedSettings:
    """Which frozen network gives the features, and how images enter it."""

    extractor: Annotated[str, EXTRACTORS] = setting(
        "auto",
        "pretrained network whose frozen features are classified: ImageNet ResNet-18 or SqueezeNet (need --weights; --download for the "
        "ResNet-18), raw pixels, a file of weights, or a network of timm, torchvision or the Hugging Face hub; "
        "auto: pixels for the stream 'digits', else resnet18",
        tunable=False,
    )
    feature_size: FeatureSize = setting(
        "task", "side in pixels to which images are resized for the pretrained network; task: the task's image size", tunable=False
    )
    feature_stages: tuple[str, ...] = setting(
        (), "stages of the network whose averaged maps are the features, such as layer2,layer3; none: its last stage", tunable=False
    )
    feature_precision: FeaturePrecision = setting("float32", PRECISION, tunable=False)
    feature_copies: Annotated[int, Ge(0)] = setting(0, COPIES)


@dataclass(frozen=True, kw_only=True)
class NCMSettings(PretrainedSettings):
    """Settings of the nearest class mean: only its network."""


@dataclass(frozen=True, kw_only=True)
class RefitSettings(PretrainedSettings):
    """Settings of heads whose penalty is chosen on validation images."""

    refit: bool = setting(False, "fit the head again on training and validation images once its penalty is chosen")


@dataclass(frozen=True, kw_only=True)
class LinearProbeSettings(RefitSettings):
    """Hyper-parameters of the linear probe."""

    probe_penalties: tuple[Annotated[float, Ge(0)], ...] = setting(
        (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003),
        "L2 penalties of the logistic regression, strongest first; the best on validation images is kept",
    )


@dataclass(frozen=True, kw_only=True)
class RanPACSettings(RefitSettings):
    """Hyper-parameters of RanPAC (McDonnell et al. 2023)."""

    random_features: Annotated[int, Ge(0)] = setting(
        2000, "random features M that the frozen features are projected to (paper: 10000); 0: no projection", tunable=False
    )
    statistics: Literal["task", "common"] = setting(
        "task",
        "statistics that the ridge regression uses: the task's own, so that no earlier answer changes, or those of all tasks (paper)",
        tunable=False,
    )


@dataclass(frozen=True, kw_only=True)
class FeCAMSettings(RefitSettings):
    """Hyper-parameters of FeCAM (Goswami et al. 2023)."""

    covariance: Literal["task", "class", "common"] = setting(
        "task",
        "covariance by which distances to class means are measured: one for all classes of a task, one for each class (paper), or one for "
        "all tasks, which moves earlier answers (the paper's variant)",
        tunable=False,
    )
    tukey_power: Annotated[float, Gt(0), Le(1)] = setting(
        0.5, "power that features are raised to (Tukey), where those of the first task are not negative; 1: none", tunable=False
    )
    shrinkages: tuple[Annotated[float, Gt(0)], ...] = setting(
        (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01),
        "factors by which the mean variance and the mean covariance are added to a covariance, strongest first; the best on validation "
        "images is kept (paper: 2 times 1)",
    )


@dataclass(frozen=True, kw_only=True)
class ExpertSettings:
    """What PAR's experts are made of."""

    expert: Literal["cells", "head", "adapter", "side", "auto"] = setting(
        "cells",
        "kind of expert: a network of cells (paper); a head on the frozen pretrained network of `extractor`; such a head and, where it is "
        "not accurate enough, low-rank adapters in the network's last stage (adapter), a small network of cells beside it (side), or "
        "first the one and then the other (auto)",
        tunable=False,
    )
    feature_size: FeatureSize = setting(
        "task",
        "side in pixels to which images are resized for the pretrained network of experts other than cells; task: the task's image size",
        tunable=False,
    )
    feature_precision: FeaturePrecision = setting("float32", PRECISION + " (experts other than cells)", tunable=False)
    feature_copies: Annotated[int, Ge(0)] = setting(1, COPIES + " (experts other than cells)")
    enough_accuracy: Annotated[float, Ge(0), Le(1)] = setting(
        0.8, "validation accuracy of a head from which nothing is trained beside it (experts adapter, side and auto)"
    )
    difficulty: Literal["head", "logme", "h-score"] = setting(
        "head",
        "what tells whether the frozen network is good enough for a task: the validation accuracy of the head, or LogME or the H-score "
        "of the frozen features, which say how well these separate the classes (experts adapter, side and auto)",
    )
    enough_distance: Annotated[float, Ge(0), Le(1)] = setting(
        0.45, "with LogME or the H-score: distance (0: the classes are apart, 1: chance) up to which nothing is trained beside the head"
    )
    adapter_rank: Annotated[int, Ge(1)] = setting(8, "rank of the adapters (experts adapter and auto)", tunable=False)
    side_channels: Annotated[int, Ge(1)] = setting(
        16,
        "channels of the cells of a side network; it has as many cells as `cells`, and `fixed_cell` (experts side and auto)",
        tunable=False,
    )
    side_epochs: Annotated[int, Ge(1)] = setting(20, "epochs of training a side network")
    side_lr: Annotated[float, Gt(0)] = setting(0.05, "initial learning rate of a side network")
