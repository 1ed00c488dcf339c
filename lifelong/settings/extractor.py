"""The feature extractor of the methods that look at frozen features."""

from dataclasses import dataclass
from typing import Literal

from lifelong.settings.base import setting


@dataclass(frozen=True, kw_only=True)
class ExtractorSettings:
    """Which frozen features a method looks at."""

    extractor: Literal["auto", "resnet18", "pixels"] = setting(
        "auto",
        "frozen feature extractor: ImageNet ResNet-18 (needs --weights or --download) or raw pixels; "
        "auto: pixels for the stream 'digits' only, else resnet18",
        tunable=False,
    )
    feature_input: Literal["task", "imagenet"] = setting(
        "task",
        "extractor input: images at the task's size and normalization (authors' code), or resized to 224 with ImageNet's",
        tunable=False,
    )
