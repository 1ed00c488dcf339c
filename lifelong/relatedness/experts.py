"""What the experts of earlier tasks make of a new task's images: for measures that ask whether an expert can solve the task already."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, UInt8
from torch import Tensor, nn

from lifelong.data.augment import normalize
from lifelong.data.task import Normalization
from lifelong.devices import exact
from lifelong.relatedness.extractor import SMALL_CHUNK_PIXELS


@dataclass(frozen=True)
class Seen:
    """A new task's images as the expert of an earlier task sees them.

    Attributes:
        features: of the expert, before any head; the same tensor for all tasks that share the expert.
        log_probabilities: of the earlier task's classes, by its head.
    """

    features: Float64[Tensor, "n d"]
    log_probabilities: Float64[Tensor, "n z"]


class EarlierExperts:
    """The experts and heads of the earlier tasks, applied to the images of a new one. Each expert sees them once, when first asked.

    Args:
        modules: gives the modules that answer for an earlier task, in evaluation mode: those of its expert, and then its head.
        images: uint8 RGB, without augmentation.
        normalization: of the new task.
    """

    def __init__(
        self, modules: Callable[[int], tuple[nn.Module, ...]], images: UInt8[Tensor, "n 3 h w"], normalization: Normalization
    ) -> None:
        self._modules = modules
        self._images = images
        self._normalization = normalization
        self._features: dict[tuple[nn.Module, ...], tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def seen_by(self, task: int) -> Seen:
        """Return the features and the log-probabilities of an earlier task's expert and head.

        Args:
            task: the number of the earlier task, from 0.
        """
        *expert, head = self._modules(task)
        key = tuple(expert)
        if key not in self._features:
            features = self._forward(nn.Sequential(*expert))
            self._features[key] = features, exact(features)
        features, exact_features = self._features[key]
        return Seen(exact_features, exact(head(features)).log_softmax(dim=1))

    def _forward(self, expert: nn.Module) -> Tensor:
        height, width = self._images.shape[2:]
        step = max(1, SMALL_CHUNK_PIXELS // (height * width))
        return torch.cat([expert(normalize(part, self._normalization)) for part in self._images.split(step)])
