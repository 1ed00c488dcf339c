"""A method of your own in one file: `stay` holds every shared weight where the last task left it, all equally.

    L = CE + strength / 2 * ||theta - theta*||^2        theta*: the shared weights when the task began

It is EWC with an importance of one. `python examples/new_method.py run --stream digits --method stay --preset quick` learns with it.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

import lifelong
from lifelong.methods.importance import shared_parameters
from lifelong.methods.single import SingleNetworkMethod
from lifelong.settings.base import setting
from lifelong.settings.baselines import SharedBackboneSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import Batch, Loss, cross_entropy


@dataclass(frozen=True, kw_only=True)
class StaySettings(SharedBackboneSettings):
    """Hyper-parameters: those of the shared network, and one more."""

    strength: Annotated[float, Ge(0)] = setting(1.0, "half of it weights the squared distance to the weights before the task")


class Stay(SingleNetworkMethod[StaySettings]):
    """Cross-entropy, and a spring at every shared weight."""

    name = "stay"

    def loss(self, head: nn.Module, examples: Examples) -> Loss:
        """Cross-entropy alone for the first task, the penalized one for later tasks."""
        index = len(self.tasks)
        plain = cross_entropy(lambda inputs: head(self.features(inputs, index)))
        if index == 0:
            return plain
        weights = list(shared_parameters(self._network()).values())
        before = [weight.detach().clone() for weight in weights]

        def loss(batch: Batch) -> Tensor:
            moved = torch.stack([(now - then).square().sum() for now, then in zip(weights, before, strict=True)]).sum()
            return plain(batch) + self.settings.strength / 2 * moved

        return loss


lifelong.register_method(Stay, StaySettings, summary="one network; every weight is held where the last task left it")

if __name__ == "__main__":
    from lifelong.cli import main

    raise SystemExit(main())
