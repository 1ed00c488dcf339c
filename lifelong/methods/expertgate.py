"""Expert Gate (Aljundi, Chakravarty & Tuytelaars, CVPR 2017, arXiv 1611.06194).

Every task gets an expert, a network of its own, and an under-complete auto-encoder of its images' frozen features. Learning a task:

    1. train the task's auto-encoder on the features of its training images
    2. Rel(new, a)  =  1 - (Er_a - Er_new) / Er_new  for each earlier task a: how much worse a's auto-encoder is on the new images
    3. copy the expert of the most related task; train the copy and a new head
         Rel > related_above:  L = CE(new head) + kd_weight * H(softmax(z_a / T), softmax(z / T))     learning without forgetting
         else:                 L = CE(new head)                                                        fine-tuning

An expert is never trained again: answers for a task keep their bits. Without a task's id, `task_probabilities` tells the task of an
image by the errors that all auto-encoders make on it: softmax(-er / gate_temperature).

Choices where the paper is silent, or where its code is not followed:

* The expert is copied from the most related task also where it is little related, as in the paper. PAR's code never distills.
* Errors are those of the validation images if there are any: an auto-encoder of few images overfits its training images.
* The reconstruction error is the squared error of a vector, summed over its features (not the cross-entropy): in training, for
  relatedness, which does not depend on its unit, and for the gate, whose temperature does. See `lifelong.relatedness.gate`.
* An auto-encoder is trained as the settings of training say, to the last epoch and by a cosine: it has no accuracy to be chosen by.
* In the distillation, z_a are the answers of task a's own head, which is not trained: it serves as a target and is not kept twice.
* Images of another task are prepared as the auto-encoder's own were: at test time, nothing says what else to do.
* An auto-encoder is not part of M: a task with an id is answered for without it. Its bytes stand in the memory, as PAR's prototypes do.
"""

import copy
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.errors import LifelongError
from lifelong.methods.distillation import distillation_loss
from lifelong.methods.method import Context, Entangled, LearnRecord, Method, count_parameters
from lifelong.methods.single import load_head
from lifelong.networks.autoencoder import AutoEncoder
from lifelong.networks.blocks import Chain, make_chain
from lifelong.networks.frozen import freeze
from lifelong.relatedness.gate import Gate, TaskAutoEncoder, probabilities, relatedness
from lifelong.settings.growing import ExpertGateSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples, image_examples
from lifelong.training.fit import fit
from lifelong.training.select import fit_selected
from lifelong.trees import weights_of


class ExpertGate(Method[ExpertGateSettings]):
    """An expert per task, initialized as a copy of the most related one, and a gate of auto-encoders."""

    name = "expert-gate"

    def __init__(self, settings: ExpertGateSettings) -> None:
        super().__init__(settings)
        self.experts = nn.ModuleList()
        self.heads = nn.ModuleList()
        self.gate = Gate()

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return the task's expert and head."""
        return self.experts[task_index], self.heads[task_index]

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Apply the task's head to the features of its expert."""
        return self.heads[task_index](self.experts[task_index](inputs))

    def extractor(self) -> tuple[str, str] | None:
        """Return the extractor named by the settings."""
        return self.settings.extractor, self.settings.feature_input

    def task_probabilities(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n t"]:
        """Compute task probabilities from the reconstruction errors of all auto-encoders."""
        return probabilities(self.gate.errors(images, self._attached()), self.settings.gate_temperature)

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Train an auto-encoder, find the most related task, and train a copy of its expert."""
        self.attach_extractor(context.extractor)
        record = LearnRecord(expert=len(self.tasks))
        autoencoder = self._train_autoencoder(task, context, record)
        gate = Gate([*self.gate.entries, TaskAutoEncoder(autoencoder, task.normalization)])
        source, kept_heads = self._most_related(gate, task, context, record)
        network = self._start(source, task, context)
        examples = image_examples(task, augmented=context.training.augment)
        weight, temperature = self.settings.kd_weight, self.settings.temperature
        loss = distillation_loss(network[0], network[1], kept_heads, examples, weight=weight, temperature=temperature)
        phase = "distill" if kept_heads else "train"
        outcome = fit_selected(network, examples, network, context.training, context.stage(phase), loss=loss)
        freeze(network)
        self.experts.append(network[0])
        self.heads.append(network[1])
        self.gate = gate
        self._remember(task)
        record.parameters_added = count_parameters([network])
        record.trained(outcome, phase)
        return record

    def _train_autoencoder(self, task: Task, context: Context, record: LearnRecord) -> AutoEncoder:
        """Train the task's auto-encoder (step 1)."""
        with context.timed("features", record):
            features = self._attached().features(task.train.images, task.normalization)
        length, code = features.shape[1], self.settings.gate_code
        if code >= length:
            raise LifelongError(f"gate_code = {code} must be smaller than the number of features ({length})")
        with context.seeded("auto-encoder"):
            autoencoder = AutoEncoder(length, code).to(features.device)
        autoencoder.standardize(features)
        # Without validation data `fit` keeps the last epoch and needs no labels.
        labels = torch.zeros(len(features), dtype=torch.int64, device=features.device)
        examples = Examples(features, labels, features[:0], labels[:0])
        training = replace(context.training, schedule="cosine")
        outcome = fit(
            autoencoder,
            examples,
            autoencoder,
            training,
            context.stage("auto-encoder"),
            loss=lambda batch: autoencoder.errors(batch.inputs).mean(),
        )
        record.trained(outcome, "auto-encoder")
        return autoencoder

    def _most_related(self, gate: Gate, task: Task, context: Context, record: LearnRecord) -> tuple[int | None, list[nn.Module]]:
        """Find the task whose expert is copied (step 2), and its head if the copy is to keep its answers; None for the first task."""
        if not self.tasks:
            record.reason = "first task: a new expert"
            return None, []
        with context.timed("relatedness", record):
            split = task.valid if len(task.valid) else task.train
            related = relatedness(gate.errors(split.images, self._attached())).tolist()
        source = max(range(len(related)), key=related.__getitem__)
        threshold = self.settings.related_above
        distilled = related[source] > threshold
        held = f"> {threshold:g}: distilled into" if distilled else f"<= {threshold:g}: copied to"
        record.reason = f"relatedness {related[source]:.3f} to task {source} ('{self.tasks[source].name}') {held} the new expert"
        return source, [self.heads[source]] if distilled else []

    def _start(self, source: int | None, task: Task, context: Context) -> nn.Sequential:
        """Make an expert, fresh or a copy, and a fresh head, ready for training."""
        with context.seeded("expert"):
            expert = self._make_expert().to(context.device) if source is None else copy.deepcopy(self.experts[source])
        with context.seeded("head"):
            head = nn.Linear(self._chain().feature_dim, len(task.classes)).to(context.device)
        return nn.Sequential(expert, head).requires_grad_(True)

    def _chain(self) -> Chain:
        return make_chain(self.settings.backbone, self.settings.init_channels, stem_pool=self.settings.stem_pool)

    def _make_expert(self) -> nn.Module:
        chain = self._chain()
        return nn.Sequential(*(chain.make(position) for position in range(len(chain))))

    def memory(self) -> dict[str, int]:
        """Count the bytes of the auto-encoders."""
        return {"auto-encoders": self.gate.bytes}

    def forgettable(self, task_index: int) -> Entangled | None:
        """Tell that later tasks may have started from a copy of the task's expert; only the last one can be forgotten."""
        later = self._later(task_index)
        return Entangled("later experts may have started from a copy of its own", later) if later else None

    def _let_go(self, task_index: int) -> None:
        del self.experts[task_index], self.heads[task_index]
        self.gate = Gate([entry for index, entry in enumerate(self.gate.entries) if index != task_index])

    def state_dict(self) -> Tree:
        """Return tasks, experts, heads and auto-encoders."""
        return {
            "tasks": self._tasks_state(),
            "experts": [weights_of(expert) for expert in self.experts],
            "heads": [weights_of(head) for head in self.heads],
            "gate": self.gate.state(),
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.experts, self.heads = nn.ModuleList(), nn.ModuleList()
        for weights in state["experts"]:
            expert = self._make_expert().to(device)
            expert.load_state_dict(weights)
            freeze(expert)
            self.experts.append(expert)
        for weights in state["heads"]:
            self.heads.append(load_head(weights, device))
        self.gate = Gate.from_state(state["gate"], device)
