"""The gate of Expert Gate: an auto-encoder per task, whose errors tell the task of an image and the relatedness of tasks.

    relatedness of a new task to task a  =  1 - (Er_a - Er_new) / Er_new        mean errors on the new task's images
    probability that an image is of a    ~  exp(-er_a / tau)                    its own errors

Source: Aljundi et al., Expert Gate (CVPR 2017), section 3.

An auto-encoder sees every image prepared like its training images: with the normalization of its own task, the only one known to it at
test time. Errors are summed over features: a few units, for which a temperature of 2 is neither hard nor flat.
"""

from collections.abc import Mapping, Sequence
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
from lifelong.trees import weights_of


@dataclass(frozen=True)
class TaskAutoEncoder:
    """The auto-encoder of a task.

    Attributes:
        autoencoder: trained on the task's features.
        normalization: of the task's images.
    """

    autoencoder: AutoEncoder
    normalization: Normalization


class Gate:
    """The auto-encoders of the tasks so far, frozen.

    Args:
        entries: one per task, in the order of the stream.
    """

    def __init__(self, entries: Sequence[TaskAutoEncoder] = ()) -> None:
        self.entries = tuple(entries)
        freeze(*(entry.autoencoder for entry in self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def bytes(self) -> int:
        """Bytes of all weights and standardizations."""
        tensors = [tensor for entry in self.entries for tensor in entry.autoencoder.state_dict().values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @torch.no_grad()
    def errors(self, images: UInt8[Tensor, "n 3 h w"], extractor: Extractor) -> Float[Tensor, "n t"]:
        """Compute the reconstruction errors of images by each auto-encoder.

        Args:
            images: uint8 RGB, of any task.
            extractor: the one whose features the auto-encoders were trained on.
        """
        features: dict[Normalization, Tensor] = {}
        for entry in self.entries:
            if entry.normalization not in features:
                features[entry.normalization] = extractor.features(images, entry.normalization)
        return torch.stack([entry.autoencoder.errors(features[entry.normalization]) for entry in self.entries], dim=1)

    def state(self) -> Tree:
        """Return the gate as tensors and plain values."""
        return [{"autoencoder": weights_of(entry.autoencoder), "normalization": asdict(entry.normalization)} for entry in self.entries]

    @classmethod
    def from_state(cls, state: Tree, device: torch.device | str = "cpu") -> "Gate":
        """Restore the gate that `state` returned, on a device."""
        return cls([TaskAutoEncoder(restored(saved["autoencoder"], device), Normalization(**saved["normalization"])) for saved in state])


def restored(weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> AutoEncoder:
    """Build the auto-encoder of saved weights, on a device."""
    code, features = weights["encoder.weight"].shape
    with torch.device("meta"):
        autoencoder = AutoEncoder(features, code)
    autoencoder = autoencoder.to_empty(device=device)
    autoencoder.load_state_dict(weights)
    return autoencoder


def probabilities(errors: Float[Tensor, "n t"], temperature: float) -> Float[Tensor, "n t"]:
    """Compute for each task the probability that an image belongs to it.

    Args:
        errors: of each image by each task's auto-encoder.
        temperature: tau > 0; the higher, the more alike the probabilities.
    """
    return F.softmax(-errors / temperature, dim=1)


def relatedness(errors: Float[Tensor, "n t"]) -> Float[Tensor, "s"]:
    """Compute how related a task is to each earlier one: 1 if the other's auto-encoder is as good as its own on its images, else less.

    Args:
        errors: of the task's images by the auto-encoders of all tasks, its own the last.
    """
    mean = errors.mean(dim=0)
    return 1 - (mean[:-1] - mean[-1]) / mean[-1]
