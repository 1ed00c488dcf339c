"""CAT: Continual learning with forgetting Avoidance and knowledge Transfer (Ke, Liu & Huang, NeurIPS 2020, arXiv 2112.10017).

HAT for dissimilar tasks, transfer among similar ones. Before task t is learned, each earlier task k is tried (section 3.2):

    similar(t, k)  =  accuracy of a linear read-out on the frozen features under k's mask  >  accuracy of a network trained on t alone

both on t's validation images; a tie is dissimilar. Then, while t is learned (sections 3.1 and 3.3),

* weights are held as in HAT, but only for units that dissimilar tasks use; what only similar tasks use may change, for better or worse;
* next to the head on t's own masked features (the mask head) a second one attends, with an embedding of t as the query, to the features
  under each similar task's mask; both are trained:  L = CE(mask head) + w CE(attention head) + c R  (HAT's R).

Choices where the paper is silent, or where its code is not followed:

* The code attends to dissimilar tasks in training and to similar ones afterwards; here it is the similar ones always. Without similar
  tasks there is no attention head. One similar task is attended to as well: its features pass the same layers.
* A task is answered for by the better of its two heads on its validation images, the mask head on a tie; the best epoch is chosen by the
  mean of both heads' probabilities.
* A task that answers by attention rests on its similar tasks' masks too: they are held for it, when a later task is dissimilar to it.
  So the answers for a dissimilar task keep their bits as they do in HAT, under the same options.
* A weight is free unless a dissimilar task uses both of its units. The code asks which task claimed a unit first, and so holds more: over
  random masks 5,679 of 60,000 weights that are free here, and frees 858 that are held here. None of those freed here is used by a
  dissimilar task (`docs/fidelity.md`).
* Under an earlier task's mask the network is in evaluation mode, with that task's batch norm; its statistics do not follow new images.
* Each task has an attention of its own: one block of multi-head attention (dropout 0.1) and a feed-forward layer, each with a residual
  and layer normalization. The number of attention heads is the largest divisor of the number of features up to `attention_heads`.
* The read-out is trained on un-augmented features, computed once; it and the network trained alone are trained as the settings say, with
  momentum and weight decay. Their time is in the record, as "transfer" and "reference". Both are dropped after the comparison.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.methods.backbone import feature_dim, head_bias, make_backbone
from lifelong.methods.hat import HAT
from lifelong.methods.method import Context, LearnRecord
from lifelong.methods.single import new_head
from lifelong.networks.gates import Masks, used
from lifelong.settings.baselines import CATSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples, accuracy, batched, image_examples
from lifelong.training.fit import Batch, FitOutcome
from lifelong.training.select import fit_selected

DROPOUT = 0.1
"""Dropout rate of the attention, as in the paper's code."""


class TaskAttention(nn.Module):
    """A block of attention over several feature vectors of an image, with the task's embedding as the query.

    Args:
        features: length d of the vectors.
        heads: a divisor of it.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(features))
        self.attention = nn.MultiheadAttention(features, heads, dropout=DROPOUT, batch_first=True)
        self.norm1 = nn.LayerNorm(features)
        self.feed_forward = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, features))
        self.norm2 = nn.LayerNorm(features)

    def forward(self, candidates: Float[Tensor, "n k d"]) -> Float[Tensor, "n d"]:
        """Combine the k vectors of each image into one."""
        query = F.relu(self.query).expand(len(candidates), 1, -1)
        x = self.norm1(query + self.attention(query, candidates, candidates, need_weights=False)[0])  # (n, 1, d)
        return self.norm2(x + self.feed_forward(x)).squeeze(1)


class Heads(nn.Module):
    """The heads of a task: on its own features, and on attended features of similar tasks, if there are any.

    Args:
        mask: the linear head on the task's own features (C, d).
        attention_heads: of the attention to similar tasks; 0: there are none.
    """

    def __init__(self, mask: nn.Linear, attention_heads: int) -> None:
        super().__init__()
        self.mask = mask
        self.attention = None
        if attention_heads:
            attend = TaskAttention(mask.in_features, attention_heads)
            self.attention = nn.Sequential(attend, nn.Linear(mask.in_features, mask.out_features, bias=mask.bias is not None))


class CAT(HAT[CATSettings]):
    """HAT with a test of similarity: units of similar tasks may change, and a second head attends to them."""

    name = "cat"

    def __init__(self, settings: CATSettings) -> None:
        super().__init__(settings)
        self.similar: list[list[int]] = []
        self.attends: list[bool] = []

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Compare with every earlier task, then learn."""
        similar, spent = self._compare(task, context)
        self.similar.append(similar)
        record = super().learn(task, context)
        for phase, outcome in spent:
            record.epochs += outcome.epochs
            record.seconds[phase] = record.seconds.get(phase, 0.0) + outcome.seconds
        names = ", ".join(self.tasks[k].name for k in similar) or "none of the earlier tasks"
        record.reason = f"similar to {names}; answers by the {'attention' if self.attends[-1] else 'mask'} head"
        return record

    def make_head(self, task: Task, context: Context) -> nn.Module:
        """Make both heads; the mask head is initialized as in every method."""
        mask = new_head(self._network(), task, context)
        with context.seeded("attention"):
            return self._heads(mask, attends=bool(self.similar[len(self.tasks)])).to(context.device)

    def load_head(self, weights: dict[str, Tensor], device: torch.device | str) -> nn.Module:
        """Rebuild the heads that have weights."""
        classes, features = weights["mask.weight"].shape
        mask = nn.Linear(features, classes, bias="mask.bias" in weights)
        heads = self._heads(mask, attends=len(weights) > len(mask.state_dict())).to(device)
        heads.load_state_dict(weights)
        return heads.eval().requires_grad_(False)

    def answer(self, head: nn.Module, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Answer by the chosen head; before the choice, by the logarithm of both heads' mean probabilities."""
        assert isinstance(head, Heads)
        chosen = self.attends[task_index] if task_index < len(self.attends) else None
        if chosen is False or head.attention is None:
            return self.mask_logits(head, inputs, task_index)
        if chosen:
            return self.attention_logits(head, inputs, task_index)
        both = [self.mask_logits(head, inputs, task_index), self.attention_logits(head, inputs, task_index)]
        return torch.stack(both).softmax(dim=2).mean(dim=0).log()

    def mask_logits(self, head: Heads, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Compute logits from the task's own masked features."""
        return head.mask(self.features(inputs, task_index))

    def attention_logits(self, head: Heads, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Compute logits from the features under the masks of similar tasks, with the network in evaluation mode."""
        assert head.attention is not None
        network = self._network()
        training = network.training
        network.eval()
        candidates = torch.stack([self.features(inputs, k) for k in self.similar[task_index]], dim=1)
        network.train(training)
        return head.attention(candidates)

    def error(self, head: nn.Module, batch: Batch, task_index: int) -> Float[Tensor, ""]:
        """Return the cross-entropy of both heads."""
        assert isinstance(head, Heads)
        error = F.cross_entropy(self.mask_logits(head, batch.inputs, task_index), batch.labels)
        if head.attention is None:
            return error
        attended = F.cross_entropy(self.attention_logits(head, batch.inputs, task_index), batch.labels)
        return error + self.settings.attention_weight * attended

    def held(self) -> Masks:
        """Return the units that dissimilar tasks use, including those used by attention."""
        dissimilar = set(range(len(self.tasks))) - set(self.similar[len(self.tasks)])
        attended = {k for task in dissimilar if self.attends[task] for k in self.similar[task]}
        return used(self._network(), sorted(dissimilar | attended))

    def consolidate(self, examples: Examples, context: Context) -> None:
        """Choose the head that answers for the task."""
        index, head = len(self.tasks) - 1, self.heads[-1]
        assert isinstance(head, Heads)
        scores = [0.0, 0.0]
        if head.attention is not None:
            for number, logits in enumerate((self.mask_logits, self.attention_logits)):
                answers = batched(lambda inputs, by=logits: by(head, inputs, index), examples.valid, examples.prepare)
                scores[number] = accuracy(answers, examples.valid_labels)
        self.attends.append(scores[1] > scores[0])

    def state_dict(self) -> Tree:
        """Return the state, with similarities and chosen heads."""
        return super().state_dict() | {"similar": [list(tasks) for tasks in self.similar], "attends": list(self.attends)}

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        super().load_state_dict(state, device)
        self.similar = [list(tasks) for tasks in state["similar"]]
        self.attends = list(state["attends"])

    def _heads(self, mask: nn.Linear, *, attends: bool) -> Heads:
        return Heads(mask, largest_divisor(mask.in_features, self.settings.attention_heads) if attends else 0)

    def _compare(self, task: Task, context: Context) -> tuple[list[int], list[tuple[str, FitOutcome]]]:
        """Find the earlier tasks that are similar, and return them with the outcomes of the trainings by phase."""
        if not self.tasks:
            return [], []
        examples = image_examples(task, augmented=context.training.augment)
        with context.seeded("reference"):
            backbone = make_backbone(self.settings, int(task.train.images.shape[-1]))
            alone = nn.Sequential(backbone, _readout(backbone, task)).to(context.device)
        reference = fit_selected(alone, examples, alone, context.training, context.stage("reference"))
        similar, spent = [], [("reference", reference)]
        for k in range(len(self.tasks)):
            with context.seeded(f"transfer-{k}"):
                readout = _readout(backbone, task).to(context.device)
            features = examples.mapped(lambda inputs, k=k: self.features(inputs, k))
            transfer = fit_selected(readout, features, readout, context.training, context.stage(f"transfer-{k}"))
            spent.append(("transfer", transfer))
            if transfer.accuracy > reference.accuracy:
                similar.append(k)
        return similar, spent


def _readout(backbone: nn.Module, task: Task) -> nn.Linear:
    return nn.Linear(feature_dim(backbone), len(task.classes), bias=head_bias(backbone))


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that is at most `most`."""
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)
