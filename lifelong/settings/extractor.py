"""Settings of the frozen feature extractor."""

from dataclasses import dataclass
from typing import Annotated, Literal

from lifelong.settings.base import setting
from lifelong.settings.sockets import EXTRACTORS


@dataclass(frozen=True, kw_only=True)
class ExtractorSettings:
    """Which frozen features a method uses."""

    extractor: Annotated[str, EXTRACTORS] = setting(
        "auto",
        "frozen feature extractor: ImageNet ResNet-18 or SqueezeNet (need --weights; --download for the ResNet-18), raw pixels, a file "
        "of weights, or a network of timm, torchvision or the Hugging Face hub; auto: pixels for the stream 'digits', else resnet18",
        tunable=False,
    )
    feature_input: Literal["task", "imagenet"] = setting(
        "task",
        "extractor input: images at the task's size and normalization (authors' code), or resized to 224 with ImageNet's",
        tunable=False,
    )
