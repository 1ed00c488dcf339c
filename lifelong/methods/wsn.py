"""WSN: Winning SubNetworks (Kang et al., Forget-free Continual Learning with Winning Subnetworks, ICML 2022).

Each weight w has a score s. A task learns both, and uses in each layer the weights with the largest scores (section 3, Algorithm 1):

    m_t        = 1[|s| >= q]                     q: the value at rank 1 + round(p (n - 1)) of the layer's n scores, p = `masked_share`
    forward    with m_t * w
    d L / d w  = m_t * g * (1 - M)               g: the gradient of the masked weight; M: the union of the masks of earlier tasks
    d L / d s  = sign(s) * w * g                 straight through the mask
    afterwards M <- M or m_t

A task can select weights of earlier tasks, and thus reuse what they have learned, but does not change them. Scores are carried over from
task to task.

Choices where the paper is silent, or where its code is not followed:

* Training uses SGD, as for every method, with a new optimizer for each task, and without weight decay. The paper uses Adam, whose steps do
  not depend on the scale of gradients. Here `score_scale` has the effect of a higher learning rate for scores: a mask depends only on their
  order, and the gradient does not depend on their scale, so scores that start 100 times smaller change their order 100 times faster.
* Weights of M are also restored after each step, so that weight decay, if enabled, does not change them either.
* The mask is taken from the best epoch, like the weights. All scores equal to the threshold are selected.
* Each task has its own batch norm. The code normalizes by the statistics of the test batch, so that predictions depend on the batch.
* Masks are stored and counted as bits. The paper compresses them with a Huffman code; its code counts each bit of that as a character.
"""

import torch
from torch import Tensor, nn

from lifelong.methods.masking import Free, MaskingMethod, kaiming
from lifelong.methods.method import Context, LearnRecord
from lifelong.networks.masks import TaskMasks, masked
from lifelong.settings.masks import WSNSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples


class WSN(MaskingMethod[WSNSettings]):
    """Each task selects a subnetwork by scores, and trains those of its weights that no earlier task uses."""

    name = "wsn"
    kind = TaskMasks

    def __init__(self, settings: WSNSettings) -> None:
        super().__init__(settings)
        self.scores: dict[str, Tensor] = {}

    def train_network(
        self, module: nn.Module, head: nn.Module, examples: Examples, context: Context, record: LearnRecord, phase: str = "train"
    ) -> None:
        """Train weights and scores, and keep the mask."""
        layers = masked(self._network(), TaskMasks)
        with context.seeded("scores"):
            for name, (weight, masks) in layers.items():
                scores = self.scores[name] if self.scores else kaiming(weight, self.settings.score_scale)
                masks.begin(scores, selected(masks.count, self.settings.masked_share))
        super().train_network(module, head, examples, context, record, phase)
        self.scores = {name: masks.end() for name, (_, masks) in layers.items()}

    def free(self) -> list[Free]:
        """Return the weights that no earlier task uses."""
        tasks = len(self.tasks)
        layers = masked(self._network(), TaskMasks).values() if tasks else []
        return [(weight, (~masks.union(tasks)).view_as(weight)) for weight, masks in layers]

    def memory(self) -> dict[str, int]:
        """Count the bytes of masks, of running statistics, and of the scores from which the next task starts."""
        return super().memory() | {"scores": sum(scores.nbytes for scores in self.scores.values())}

    def state_dict(self) -> Tree:
        """Return the state, with the scores."""
        return super().state_dict() | {"scores": dict(self.scores)}

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        super().load_state_dict(state, device)
        self.scores = {name: scores.to(device) for name, scores in state["scores"].items()}


def selected(count: int, masked_share: float) -> int:
    """Compute how many of a layer's scores are at or above that at rank 1 + round(p (n - 1))."""
    return count - round(masked_share * (count - 1))
