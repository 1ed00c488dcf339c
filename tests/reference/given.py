"""Training on given batches."""

import torch
from torch import Tensor

from lifelong.training.fit import Batch
from lifelong.training.step_runner import HostSide


class Given:
    """Prepared inputs and labels, of which a batch is given by positions."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def batch(self, indices: Tensor, step: int = 0, steps: int = 1) -> Batch:
        generator = torch.Generator()
        return Batch(
            self.images[indices],
            self.labels[indices],
            indices,
            torch.tensor(float(step)),
            steps,
            generator,
            HostSide(generator),
        )
