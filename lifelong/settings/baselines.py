"""The hyper-parameters of the methods that PAR is compared with."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from lifelong.settings.base import setting

BatchNorm = Literal["shared", "per-task-stats", "per-task", "frozen"]

BATCH_NORM = (
    "batch norm of the shared network: one for all tasks; running statistics of each task's own; affine weights too;"
    " or statistics frozen after the first task"
)


@dataclass(frozen=True, kw_only=True)
class BackboneSettings:
    """The fixed network of a baseline."""

    backbone: Literal["light-resnet18", "cells"] = setting(
        "light-resnet18", "network: the light ResNet-18 of MNTDP, or PAR's cell network with the cell DARTS_V1"
    )
    init_channels: Annotated[int, Ge(1)] = setting(64, "channels of the network (constant through its depth)")
    stem_pool: bool = setting(False, "max-pool after the stem of the light ResNet-18 (authors' code; 4x less compute)")


@dataclass(frozen=True, kw_only=True)
class SharedBackboneSettings(BackboneSettings):
    """The fixed network of a baseline whose tasks share one."""

    batch_norm: BatchNorm = setting("shared", BATCH_NORM)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(SharedBackboneSettings):
    """Finetune has no hyper-parameters but its network."""


@dataclass(frozen=True, kw_only=True)
class IndependentSettings(BackboneSettings):
    """Independent has no hyper-parameters but its network."""


@dataclass(frozen=True, kw_only=True)
class LwFSettings(SharedBackboneSettings):
    """Hyper-parameters of Learning without Forgetting (Li & Hoiem 2017)."""

    kd_weight: Annotated[float, Ge(0)] = setting(1.0, "weight of the distillation loss, summed over earlier tasks")
    temperature: Annotated[float, Gt(0)] = setting(2.0, "temperature of the distillation")
    train_old_heads: bool = setting(True, "train the heads of earlier tasks too, as the paper does")
