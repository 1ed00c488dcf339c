"""The hyper-parameters of the methods whose network grows with the stream, but PAR."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from lifelong.settings.base import setting

CHAIN = "network whose blocks are reused or added: the light ResNet-18 in a stem and four groups, or the four convolutions of LMC's code"


@dataclass(frozen=True, kw_only=True)
class GrowingSettings:
    """The network that grows."""

    backbone: Literal["light-resnet18", "conv4"] = setting("light-resnet18", CHAIN, tunable=False)
    init_channels: Annotated[int, Ge(1)] = setting(64, "channels of every layer", tunable=False)
    stem_pool: bool = setting(False, "max-pool after the stem of the light ResNet-18 (authors' code; 4x less compute)", tunable=False)
