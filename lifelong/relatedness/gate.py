"""The gate of Expert Gate: an auto-encoder per task, by whose errors images are told to be of a task, and tasks to be related.

    relatedness of a new task to task a  =  1 - (Er_a - Er_new) / Er_new        mean errors on the new task's images
    probability that an image is of a    ~  exp(-er_a / tau)                    its own errors

Source: Aljundi et al., Expert Gate (CVPR 2017), section 3.

An auto-encoder sees every image as those it was trained on were prepared: with the normalization of its own task, which at test time is
the only one that it can know of. Errors are summed over features: a few units, for which a temperature of 2 is neither hard nor flat.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from lifelong.data.task import Normalization
from lifelong.networks.autoencoder import AutoEncoder
from lifelong.networks.frozen import freeze
from lifelong.relatedness.extractor import Extractor
from lifelong.storage import Tree


@dataclass(frozen=True)
class Door:
    """What the gate knows of a task.

    Attributes:
        autoencoder: was trained on the task's features.
        normalization: of the task's images.
    """

    autoencoder: AutoEncoder
    normalization: Normalization


class Gate:
    """The auto-encoders of the tasks so far, frozen.

    Args:
        doors: one for each task, in the order in which they came.
    """

    def __init__(self, doors: Sequence[Door] = ()) -> None:
        self.doors = tuple(doors)
        freeze(*(door.autoencoder for door in self.doors))

    def __len__(self) -> int:
        return len(self.doors)

    @property
    def bytes(self) -> int:
        """Bytes of all weights and standardizations."""
        tensors = [tensor for door in self.doors for tensor in door.autoencoder.state_dict().values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @torch.no_grad()
    def errors(self, images: UInt8[Tensor, "n 3 h w"], extractor: Extractor) -> Float[Tensor, "n t"]:
        """The reconstruction errors of images by each auto-encoder.

        Args:
            images: uint8 RGB, of any task.
            extractor: whose features the auto-encoders were trained on.
        """
        features: dict[Normalization, Tensor] = {}
        for door in self.doors:
            if door.normalization not in features:
                features[door.normalization] = extractor.features(images, door.normalization)
        return torch.stack([door.autoencoder.errors(features[door.normalization]) for door in self.doors], dim=1)

    def state(self) -> Tree:
        """The gate as tensors and plain values."""
        return [{"autoencoder": door.autoencoder.state_dict(), "normalization": asdict(door.normalization)} for door in self.doors]

    @classmethod
    def from_state(cls, state: Tree, device: torch.device | str = "cpu") -> "Gate":
        """The gate that `state` was taken from, on a device."""
        doors = []
        for saved in state:
            code, features = saved["autoencoder"]["encoder.weight"].shape
            autoencoder = AutoEncoder(features, code).to(device)
            autoencoder.load_state_dict(saved["autoencoder"])
            doors.append(Door(autoencoder, Normalization(**saved["normalization"])))
        return cls(doors)


def probabilities(errors: Float[Tensor, "n t"], temperature: float) -> Float[Tensor, "n t"]:
    """How likely it is for each task that an image is one of its.

    Args:
        errors: of each image by each task's auto-encoder.
        temperature: tau > 0; the higher, the more alike the probabilities.
    """
    return F.softmax(-errors / temperature, dim=1)


def relatedness(errors: Float[Tensor, "n t"]) -> Float[Tensor, "s"]:
    """How related a task is to each one before it: 1 if the other's auto-encoder is as good as its own on its images, and less if not.

    Args:
        errors: of the task's images by the auto-encoders of all tasks, its own the last.
    """
    mean = errors.mean(dim=0)
    return 1 - (mean[:-1] - mean[-1]) / mean[-1]
