"""The hyper-parameters of the methods whose network grows with the stream, but PAR."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from lifelong.settings.base import setting
from lifelong.settings.extractor import ExtractorSettings

CHAIN = "network whose blocks are reused or added: the light ResNet-18 in a stem and four groups, or the four convolutions of LMC's code"


@dataclass(frozen=True, kw_only=True)
class GrowingSettings:
    """The network that grows."""

    backbone: Literal["light-resnet18", "conv4"] = setting("light-resnet18", CHAIN, tunable=False)
    init_channels: Annotated[int, Ge(1)] = setting(64, "channels of every layer", tunable=False)
    stem_pool: bool = setting(False, "max-pool after the stem of the light ResNet-18 (authors' code; 4x less compute)", tunable=False)


@dataclass(frozen=True, kw_only=True)
class PNNSettings(GrowingSettings):
    """Hyper-parameters of Progressive Neural Networks (Rusu et al. 2016)."""

    lateral: Literal["adapter", "copies"] = setting(
        "adapter",
        "how a column reads earlier ones: through an adapter that brings all to the width of one, as in the paper, or by a block for each,"
        " summed (MNTDP's code; more parameters)",
        tunable=False,
    )
    lateral_scales: Literal["ones", "normal"] = setting(
        "ones", "at first the scale of each earlier column in an adapter is 1 (MNTDP's code), or drawn from a standard normal (PAR's code)"
    )


@dataclass(frozen=True, kw_only=True)
class LearnToGrowSettings(GrowingSettings):
    """Hyper-parameters of Learn to Grow (Li et al. 2019). Where the paper is silent, those that the run file of PAR's code asks for."""

    backbone: Literal["light-resnet18"] = setting(
        "light-resnet18", "network that grows by single convolutions: the light ResNet-18", tunable=False
    )
    search_epochs: Annotated[int, Ge(1)] = setting(50, "epochs of search for what a task reuses, adapts or adds")
    search_lr: Annotated[float, Gt(0)] = setting(0.01, "initial learning rate of the shared weights in the search (cosine to 1e-5)")
    search_clip_norm: Annotated[float, Ge(0)] = setting(5.0, "gradient norm limit in the search; 0: none")
    search_alpha_lr: Annotated[float, Gt(0)] = setting(0.003, "learning rate of the logits of choices in the search (Adam)")
    search_alpha_decay: Annotated[float, Ge(0)] = setting(0.003, "weight decay of the logits of choices in the search")
    size_weight: Annotated[float, Ge(0)] = setting(
        0.01, "beta: price of a choice's size, log10(1 + parameters added), in the search; 0: none (PAR's code: 1, its run file: 0)"
    )
    search_start: Literal["even", "random"] = setting(
        "even", "logits of choices before the search: 0, or drawn with a deviation of 0.001 (PAR's code, as in DARTS)"
    )
    search_kept: Literal["last", "best"] = setting(
        "last", "epoch whose choices the search comes to: the last, or the first with the best accuracy on the half kept back (PAR's code)"
    )


@dataclass(frozen=True, kw_only=True)
class ExpertGateSettings(ExtractorSettings, GrowingSettings):
    """Hyper-parameters of Expert Gate (Aljundi et al. 2017)."""

    gate_code: Annotated[int, Ge(1)] = setting(100, "units of the code of a task's auto-encoder; less than its features", tunable=False)
    gate_temperature: Annotated[float, Gt(0)] = setting(2.0, "tau: reconstruction errors are divided by it to make a task's probability")
    related_above: float = setting(0.85, "relatedness (1: the same) above which the most related expert is distilled into the new one")
    kd_weight: Annotated[float, Ge(0)] = setting(1.0, "weight of the distillation loss")
    temperature: Annotated[float, Gt(0)] = setting(2.0, "temperature of the distillation")


@dataclass(frozen=True, kw_only=True)
class MNTDPSettings(GrowingSettings):
    """Hyper-parameters of MNTDP-D (Veniat et al. 2021), and of MNTDP-S too."""

    knn_neighbors: Annotated[int, Ge(1)] = setting(15, "nearest neighbors that vote, where the most similar earlier task is sought")
    knn_images: Annotated[int, Ge(1)] = setting(1000, "images of either split, at most, that this is done with")


@dataclass(frozen=True, kw_only=True)
class MNTDPSSettings(MNTDPSettings):
    """Hyper-parameters of MNTDP-S (Veniat et al. 2021)."""

    arch_lr: Annotated[float, Gt(0)] = setting(0.01, "learning rate of Adam for the distribution over paths (paper: 0.01, 0.001)")


@dataclass(frozen=True, kw_only=True)
class SGFSettings(GrowingSettings):
    """Hyper-parameters of SG-F (Mendez & Eaton 2021, in the form of LMC's code)."""

    gate_channels: Annotated[int, Ge(1)] = setting(16, "channels of the two convolutions of a task's gate", tunable=False)


@dataclass(frozen=True, kw_only=True)
class LMCSettings(GrowingSettings):
    """Hyper-parameters of Local Module Composition (Ostapenko et al. 2021)."""

    backbone: Literal["light-resnet18", "conv4"] = setting("conv4", CHAIN, tunable=False)
    routing_temperature: Annotated[float, Gt(0)] = setting(
        0.1, "tau: the smaller, the more an image is left to the module that reconstructs it best (paper: 0.1 or 1)", tunable=False
    )
    batch_prior: bool = setting(
        True,
        "weight modules by how they reconstruct the whole batch, too, as the paper does; if false, no answer depends on the batch",
        tunable=False,
    )
    prior_temperature: Annotated[float, Gt(0)] = setting(0.1, "tau of the batch prior (paper: 0.01 to 0.1)", tunable=False)
    outlier_threshold: Annotated[float, Gt(0)] = setting(
        4.0, "a layer gets a new module where |z| of a new task is larger for each of its modules (paper: 1.5 or 4)"
    )
    outlier_test: Literal["batches", "mean"] = setting(
        "batches",
        "z of what: of each training batch, of which one is enough (the code); or of all training images at once, with the deviation of a"
        " batch, which the same threshold hardly ever passes",
    )
    catch_outliers: bool = setting(
        False, "while a new module is trained, images that are outliers to all others of its layer go through it alone (the code)"
    )
    projection_epochs: Annotated[int, Ge(1)] = setting(
        10, "epochs in which a new module learns to give what the layers above it know (paper: 5 to 20); of short trainings a share"
    )
    structural_weight: Annotated[float, Gt(0)] = setting(10.0, "weight of the reconstruction losses (paper: 1 or 10)")
    module_init: Literal["most-likely", "mean", "fresh"] = setting(
        "most-likely", "a new module starts as a copy of the one that reconstructs best, as the mean of all in its layer, or at random"
    )
