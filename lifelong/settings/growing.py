"""The hyper-parameters of the methods whose network grows with the stream, but PAR."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from lifelong.settings.base import setting

CHAIN = "network whose blocks are reused or added: the light ResNet-18 in a stem and four groups, or the four convolutions of LMC's code"


@dataclass(frozen=True, kw_only=True)
class GrowingSettings:
    """The network that grows."""

    backbone: Literal["light-resnet18", "conv4"] = setting("light-resnet18", CHAIN, tunable=False)
    init_channels: Annotated[int, Ge(1)] = setting(64, "channels of every layer", tunable=False)
    stem_pool: bool = setting(False, "max-pool after the stem of the light ResNet-18 (authors' code; 4x less compute)", tunable=False)


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
    projection_epochs: Annotated[int, Ge(1)] = setting(
        10, "epochs in which a new module learns to give what the layers above it know (paper: 5 to 20); of short trainings a share"
    )
    structural_weight: Annotated[float, Gt(0)] = setting(10.0, "weight of the reconstruction losses (paper: 1 or 10)")
    module_init: Literal["most-likely", "mean", "fresh"] = setting(
        "most-likely", "a new module starts as a copy of the one that reconstructs best, as the mean of all in its layer, or at random"
    )
