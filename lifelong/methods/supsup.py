"""SupSup: Supermasks in Superposition (Wortsman et al., NeurIPS 2020, arXiv 2006.14769).

The weights are random and never trained. A task learns a score for each of them, and uses those with the largest (section 3.1):

    w          = ±sqrt(2 / inputs)                                         the sign is random
    m_t        = 1 where |s| is among the k largest of the layer
    forward    with m_t * w
    d L / d s  = sign(s) * w * g                                           g: the gradient of the masked weight; straight through the mask
    k          = round(min(1/2, s (outputs + inputs) / weights) weights)   s: `density_scale`; a convolution counts channels

Weights never change; a task only adds its mask, its head and its batch norm.

Choices where the paper is silent, or where its code is not followed:

* Training uses SGD, as for every method, without weight decay. The paper uses Adam, whose steps do not depend on the scale of gradients.
  Here `score_scale` has the effect of a higher learning rate for scores (as in `lifelong.methods.wsn`).
* Each task has a dense head, as in every method. The paper also masks a random last layer.
* Batch norm has running statistics for each task, and affine weights 1 and 0, as in the paper; with `batch_norm` "per-task" each task
  trains its own affine weights. Biases, in networks that have them, are 0.
* Each task starts from new random scores, or from the mean scores of all earlier tasks (`score_start`; "Transfer" in the paper), which is
  then stored.
* All scores equal to the threshold are selected.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.methods.masking import Free, MaskingMethod, kaiming, others
from lifelong.methods.method import Context, LearnRecord
from lifelong.networks.masks import Layer, TaskMasks, masked
from lifelong.networks.tasknorm import own_parameters
from lifelong.settings.masks import SupSupSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples

LARGEST_DENSITY = 0.5


class SupSup(MaskingMethod[SupSupSettings]):
    """Each task selects a subnetwork of random weights, which are never trained."""

    name = "supsup"
    kind = TaskMasks

    def __init__(self, settings: SupSupSettings) -> None:
        super().__init__(settings)
        self.mean: dict[str, Tensor] = {}

    def make_network(self) -> nn.Module:
        """Make the backbone with masks; all weights of a layer have the same magnitude."""
        network = super().make_network()
        with torch.no_grad():
            for weight, _ in masked(network, TaskMasks).values():
                weight.copy_(signed(weight))
            for layer in network.modules():
                if isinstance(layer, Layer) and layer.bias is not None:
                    layer.bias.zero_()
        return network

    def fixed_parameters(self, network: nn.Module, task_index: int) -> list[nn.Parameter]:
        """Fix everything but the task's own batch norm."""
        return others(network, own_parameters(network, task_index))

    def train_network(
        self, module: nn.Module, head: nn.Module, examples: Examples, context: Context, record: LearnRecord, phase: str = "train"
    ) -> None:
        """Train scores, and keep the mask."""
        layers = masked(self._network(), TaskMasks)
        with context.seeded("scores"):
            for name, (weight, masks) in layers.items():
                scores = self.mean[name] if self.mean else kaiming(weight, self.settings.score_scale)
                masks.begin(scores, max(1, round(density(weight, self.settings.density_scale) * masks.count)))
        super().train_network(module, head, examples, context, record, phase)
        scores = {name: masks.end() for name, (_, masks) in layers.items()}
        if self.settings.score_start == "mean":
            self.mean = {name: torch.lerp(self.mean.get(name, new), new, 1 / (len(self.tasks) + 1)) for name, new in scores.items()}

    def free(self) -> list[Free]:
        """Return nothing: no weight is trained."""
        return []

    def memory(self) -> dict[str, int]:
        """Count the bytes of masks, of running statistics, and of the mean scores, if they are stored."""
        kept = {"scores": sum(scores.nbytes for scores in self.mean.values())} if self.settings.score_start == "mean" else {}
        return super().memory() | kept

    def state_dict(self) -> Tree:
        """Return the state, with the mean scores (none unless `score_start` is "mean")."""
        return super().state_dict() | {"scores": dict(self.mean)}

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        super().load_state_dict(state, device)
        self.mean = {name: scores.to(device) for name, scores in state["scores"].items()}


def signed(weight: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
    """Set the magnitude of a layer's weights to sqrt(2 / inputs), with which ReLU networks preserve variance; keep their signs."""
    return weight.sign() * (2 / weight[0].numel()) ** 0.5


def density(weight: Float[Tensor, "o i ..."], scale: float) -> float:
    """Compute the share of a layer's weights that a mask selects (appendix; Erdős-Rényi)."""
    outputs, inputs = weight.shape[:2]
    return min(LARGEST_DENSITY, scale * (outputs + inputs) / weight.numel())
