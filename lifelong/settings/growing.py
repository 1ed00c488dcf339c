"""The hyper-parameters of the methods other than PAR whose network grows with the stream."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from lifelong.settings.base import setting
from lifelong.settings.extractor import ExtractorSettings

CHAIN = "network whose blocks are reused or added: the light ResNet-18 as a stem and four groups, or the four convolutions of LMC's code"


@dataclass(frozen=True, kw_only=True)
class GrowingSettings:
    """The network that grows."""

    backbone: Literal["light-resnet18", "conv4"] = setting("light-resnet18", CHAIN, tunable=False)
    init_channels: Annotated[int, Ge(1)] = setting(64, "channels of every layer", tunable=False)
    stem_pool: bool = setting(False, "add a max-pool after the stem of the light ResNet-18 (authors' code; 4x less compute)", tunable=False)


@dataclass(frozen=True, kw_only=True)
class PNNSettings(GrowingSettings):
    """Hyper-parameters of Progressive Neural Networks (Rusu et al. 2016)."""

    lateral: Literal["adapter", "copies"] = setting(
        "adapter",
        "how a column uses earlier columns: through one adapter that reduces them to the width of a single column, as in the paper, or"
        " through a block for each, summed (MNTDP's code; more parameters)",
        tunable=False,
    )
    lateral_scales: Literal["ones", "normal"] = setting(
        "ones", "initial scale of each earlier column in an adapter: 1 (MNTDP's code), or drawn from a standard normal (PAR's code)"
    )


@dataclass(frozen=True, kw_only=True)
class LearnToGrowSettings(GrowingSettings):
    """Hyper-parameters of Learn to Grow (Li et al. 2019). Where the paper is silent, defaults follow the run file of PAR's code."""

    backbone: Literal["light-resnet18"] = setting(
        "light-resnet18", "network that grows by single convolutions: the light ResNet-18", tunable=False
    )
    search_epochs: Annotated[int, Ge(1)] = setting(50, "epochs of search for what a task reuses, adapts or adds")
    search_lr: Annotated[float, Gt(0)] = setting(0.01, "initial learning rate of the shared weights during search (cosine to 1e-5)")
    search_clip_norm: Annotated[float, Ge(0)] = setting(5.0, "gradient norm limit during search; 0: none")
    search_alpha_lr: Annotated[float, Gt(0)] = setting(0.003, "learning rate of the choice logits during search (Adam)")
    search_alpha_decay: Annotated[float, Ge(0)] = setting(0.003, "weight decay of the choice logits during search")
    size_weight: Annotated[float, Ge(0)] = setting(
        0.01, "beta: weight of the size penalty, log10(1 + parameters added), during search; 0: none (PAR's code: 1, its run file: 0)"
    )
    search_start: Literal["even", "random"] = setting(
        "even", "initial choice logits: 0, or drawn with standard deviation 0.001 (PAR's code, as in DARTS)"
    )
    search_kept: Literal["last", "best"] = setting(
        "last", "epoch whose choices are used: the last, or the first with the best accuracy on the held-out half (PAR's code)"
    )


@dataclass(frozen=True, kw_only=True)
class ExpertGateSettings(ExtractorSettings, GrowingSettings):
    """Hyper-parameters of Expert Gate (Aljundi et al. 2017)."""

    gate_code: Annotated[int, Ge(1)] = setting(
        100, "number of code units of a task's auto-encoder; smaller than the number of features", tunable=False
    )
    gate_temperature: Annotated[float, Gt(0)] = setting(2.0, "tau: temperature that turns reconstruction errors into task probabilities")
    related_above: float = setting(0.85, "relatedness (1: identical) above which the most related expert is distilled into the new one")
    kd_weight: Annotated[float, Ge(0)] = setting(1.0, "weight of the distillation loss")
    temperature: Annotated[float, Gt(0)] = setting(2.0, "distillation temperature")


@dataclass(frozen=True, kw_only=True)
class MNTDPSettings(GrowingSettings):
    """Hyper-parameters of MNTDP-D, which MNTDP-S shares (Veniat et al. 2021)."""

    knn_neighbors: Annotated[int, Ge(1)] = setting(
        15, "number of nearest neighbors that vote in the search for the most similar earlier task"
    )
    knn_images: Annotated[int, Ge(1)] = setting(
        1000, "largest number of images of either split used in the search for the most similar task"
    )


@dataclass(frozen=True, kw_only=True)
class MNTDPSSettings(MNTDPSettings):
    """Hyper-parameters of MNTDP-S (Veniat et al. 2021)."""

    arch_lr: Annotated[float, Gt(0)] = setting(0.01, "Adam learning rate of the distribution over paths (paper: 0.01, 0.001)")


@dataclass(frozen=True, kw_only=True)
class SGFSettings(GrowingSettings):
    """Hyper-parameters of SG-F (Mendez & Eaton 2021, in the form of LMC's code)."""

    gate_channels: Annotated[int, Ge(1)] = setting(16, "channels of the two convolutions in a task's gate", tunable=False)


@dataclass(frozen=True, kw_only=True)
class LMCSettings(GrowingSettings):
    """Hyper-parameters of Local Module Composition (Ostapenko et al. 2021)."""

    backbone: Literal["light-resnet18", "conv4"] = setting("conv4", CHAIN, tunable=False)
    routing_temperature: Annotated[float, Gt(0)] = setting(
        0.1, "tau: the smaller, the more an image is routed to the module that reconstructs it best (paper: 0.1 or 1)", tunable=False
    )
    batch_prior: bool = setting(
        True,
        "also weight modules by their reconstruction of the whole batch, as in the paper; if false, predictions do not depend on the batch",
        tunable=False,
    )
    prior_temperature: Annotated[float, Gt(0)] = setting(0.1, "temperature tau of the batch prior (paper: 0.01 to 0.1)", tunable=False)
    outlier_threshold: Annotated[float, Gt(0)] = setting(
        4.0, "a layer gets a new module if |z| of a new task exceeds this for every one of its modules (paper: 1.5 or 4)"
    )
    outlier_test: Literal["batches", "mean"] = setting(
        "batches",
        "what z is computed on: each training batch, where one outlier is enough (the code); or all training images at once, with the"
        " deviation of a batch, which almost never exceeds the same threshold",
    )
    catch_outliers: bool = setting(
        False, "while a new module is trained, route images that are outliers to all others of its layer through it alone (the code)"
    )
    projection_epochs: Annotated[int, Ge(1)] = setting(
        10, "epochs in which a new module learns to produce what later layers know (paper: 5 to 20); fewer in short trainings"
    )
    structural_weight: Annotated[float, Gt(0)] = setting(10.0, "weight of the reconstruction losses (paper: 1 or 10)")
    module_init: Literal["most-likely", "mean", "fresh"] = setting(
        "most-likely", "initialization of a new module: a copy of the one that reconstructs best, the mean of all in its layer, or random"
    )
