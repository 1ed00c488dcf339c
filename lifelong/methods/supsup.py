"""SupSup: Supermasks in Superposition (Wortsman et al., NeurIPS 2020, arXiv 2006.14769).

The weights are random and never trained. A task learns a score for each of them, and uses those with the largest (section 3.1):

    w          = ±sqrt(2 / inputs)                                         the sign is random
    m_t        = 1 where |s| is among the k largest of the layer
    forward    by m_t * w
    d L / d s  = sign(s) * w * g                                           g: the gradient of the masked weight; straight through the mask
    k          = round(min(1/2, s (outputs + inputs) / weights) weights)   s: `density_scale`; a convolution counts channels

Nothing that a task uses ever changes, and the only cost of a task is its mask, its head and its batch norm.

Choices where the paper is silent, or where its code is not followed:

* Trained by SGD as every method, without weight decay. The paper trains by Adam, whose steps do not depend on the size of gradients. Here
  `score_scale` does what a higher rate of the scores would (as in `lifelong.methods.wsn`).
* A dense head for each task, as for every method. The paper masks a random last layer too.
* Batch norms have running statistics for each task, and affine weights 1 and 0, as in the paper; with `batch_norm` "per-task" a task
  trains affine weights of its own. Biases of networks that have them are 0.
* Scores start anew with each task, or from the mean of those of all earlier tasks (`score_start`; "Transfer" in the paper), which
  is then kept.
* Equal scores at the threshold are all selected.
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
        """Make the backbone with masks, and weights of one magnitude in each layer."""
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
        """Count the bytes of masks, of running statistics, and of the mean scores, if they are kept."""
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
    """Give the weights of a layer one magnitude, sqrt(2 / inputs), by which ReLUs keep the variance; signs stay."""
    return weight.sign() * (2 / weight[0].numel()) ** 0.5


def density(weight: Float[Tensor, "o i ..."], scale: float) -> float:
    """Compute the share of a layer's weights that a mask selects (appendix; Erdős-Rényi)."""
    outputs, inputs = weight.shape[:2]
    return min(LARGEST_DENSITY, scale * (outputs + inputs) / weight.numel())
