"""An answer in two steps: a network that several tasks share computes features, and the head of each computes its logits.

What looks at images for several tasks lets the network look once: at the same images (`answers_of`), or at those of several tasks in one
batch (`lifelong.experiment.packing`).
"""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lifelong.data.augment import normalize
from lifelong.data.task import Normalization


class TwoSteps(NamedTuple):
    """How a task answers.

    Attributes:
        network: the same for tasks whose first step is the same function; it must not depend on the task, nor on the other images.
        features: the first step, of prepared images (N, 3, H, W).
        head: the second step, from their features (N, D) to logits (N, C).
    """

    network: Hashable
    features: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor]


def answers_of(
    images: UInt8[Tensor, "n 3 h w"], tasks: Sequence[tuple[TwoSteps | None, Normalization]], alone: Callable[[int], Tensor]
) -> list[Float[Tensor, "n _c"]]:
    """Compute the logits of several tasks for the same images; a network looks once at images that are prepared alike.

    Args:
        images: uint8 RGB.
        tasks: of each its steps, if it answers in two, and how its images are prepared.
        alone: computes the logits of one that does not, by its place among them.
    """
    features: dict[tuple[Hashable, Normalization], Tensor] = {}
    found = []
    with torch.no_grad():
        for place, (steps, normalization) in enumerate(tasks):
            if steps is None:
                found.append(alone(place))
                continue
            seen = steps.network, normalization
            if seen not in features:
                features[seen] = steps.features(normalize(images, normalization))
            found.append(steps.head(features[seen]))
    return found
