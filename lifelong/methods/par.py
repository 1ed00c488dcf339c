"""PAR: Task Difficulty Aware Parameter Allocation & Regularization for Lifelong Learning (Wang, Hu, Chen, Zhang; CVPR 2023).

For each new task (section 3 of the paper):

1. Measure its distance to every earlier task by the nearest-prototype estimate of a KL divergence on frozen features, and by their mean
   to every group of tasks (Eq. 2-6). Keep its own prototypes.
2. Nearest group within alpha: join it (parameter regularization). Its expert learns the task by cross-entropy plus distillation of the
   group's earlier heads (Eq. 7-9); a task much smaller than the group's largest trains its head only, on features computed once.
3. Else open a group with a new expert (parameter allocation, Eq. 10): with the nearest group's cell within beta, with a cell found by
   search beyond it (`allocations.py`). Other groups' experts are never touched.

Where the authors' code differs each difference is a setting (`PARSettings`), and all of them are the preset `authors-code`.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.methods.allocations import Allocation, Newcomer, built, cell_of, planned
from lifelong.methods.method import Context, LearnRecord, Method, Recognized
from lifelong.methods.regularizers import Regularizer, Shared
from lifelong.methods.single import load_head, new_head
from lifelong.networks.frozen import freeze
from lifelong.relatedness.assessment import Relatedness
from lifelong.relatedness.groups import Decision
from lifelong.settings.par import PARSettings
from lifelong.settings.sockets import ALLOCATIONS, REGULARIZERS
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.examples import image_examples
from lifelong.training.select import fit_selected
from lifelong.trees import on_device, tensor_bytes


class PAR(Method[PARSettings]):
    """Experts, each shared by a group of related tasks; a head per task."""

    name = "par"

    def __init__(self, settings: PARSettings) -> None:
        super().__init__(settings)
        self.experts = nn.ModuleList()
        self.heads = nn.ModuleList()
        self.allocation: Allocation = ALLOCATIONS[self.settings.allocation]()
        self.plans: list[str] = []
        self.trained: list[set[str]] = []
        self.kept: list[Tree] = []
        self.relatedness = Relatedness(self.settings)

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return the expert of the task's group, and the task's head."""
        return self.experts[self.relatedness.groups.group_of(task_index)], self.heads[task_index]

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Apply the task's head to the features of its expert."""
        expert, head = self.modules(task_index)
        return head(expert(inputs))

    def task_probabilities(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n t"] | None:
        """Compute task probabilities from the distances to each task's prototypes; None if the variant keeps none."""
        return self.recognize(images).probabilities

    def strangeness(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n"] | None:
        """Compute strangeness from the distance to the nearest prototype; None if the variant keeps none."""
        return self.recognize(images).strangeness

    def recognize(self, images: UInt8[Tensor, "n 3 h w"]) -> Recognized:
        """Compute both from the same distances."""
        if not self.relatedness.needed:
            return Recognized(None, None)
        return Recognized(*self.relatedness.recognition.recognize(images, self.relatedness.bank, self._attached()))

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Measure the task, decide, and share an expert or create one."""
        before = self.num_parameters()
        record = LearnRecord(alpha=self.settings.alpha, beta=self.settings.beta)
        decision = self._decide(task, context, record)
        if decision.decision == "reuse-expert":
            group = decision.group
            assert group is not None
            expert = self.experts[group]
            if decision.frozen:
                head = self._train_head(expert, task, context, record)
            else:
                head = self._distill(expert, group, task, context, record)
            self.relatedness.groups.join(group, len(task.train))
        else:
            group = len(self.experts)
            expert, head = self._allocate(decision, task, context, record)
            self.relatedness.groups.open(len(task.train))
            self.experts.append(expert)
        self.heads.append(head)
        self._remember(task)
        record.expert, record.genotype = group, cell_of(self.plans[group])
        record.parameters_added = self.num_parameters() - before
        return record

    def extractor(self) -> tuple[str, str] | None:
        """Return the extractor named by the settings; None if the variant needs no distances."""
        return (self.settings.extractor, self.settings.feature_input) if self.relatedness.needed else None

    def _decide(self, task: Task, context: Context, record: LearnRecord) -> Decision:
        """Measure distances and decide (step 1)."""
        with context.timed("distances", record):
            self.attach_extractor(context.extractor)
            decision = self.relatedness.assess(task, self._extractor, self.modules)
        if decision.warning:
            context.note(decision.warning, record)
        record.decision, record.reason, record.frozen = decision.decision, decision.reason, decision.frozen
        record.divergences, record.task_distances = list(decision.divergences), list(decision.distances)
        record.group_distances = list(decision.group_distances)
        return decision

    def _train_head(self, expert: nn.Module, task: Task, context: Context, record: LearnRecord) -> nn.Module:
        """Train a head on the frozen expert, whose features are computed once unless images are augmented."""
        head = new_head(expert, task, context)
        examples = image_examples(task, augmented=context.training.augment and self.settings.frozen_augment)
        training = self._reuse_training(context, task, head_only=True)
        if examples.augmented:
            outcome = fit_selected(head, examples, lambda inputs: head(expert(inputs)), training, context.stage("train"))
        else:
            with context.timed("features", record):
                features = examples.mapped(expert)
            outcome = fit_selected(head, features, head, training, context.stage("train"))
        freeze(head)
        record.trained(outcome)
        return head

    def _distill(self, expert: nn.Module, group: int, task: Task, context: Context, record: LearnRecord) -> nn.Module:
        """Train the group's expert and a new head by Eq. 9."""
        head = new_head(expert, task, context)
        old_heads = [self.heads[member] for member in self.relatedness.groups.members[group]]
        trained = nn.ModuleList([expert, head, *(old_heads if self.settings.train_old_heads else [])])
        trained[1:].requires_grad_(True)
        for name, parameter in expert.named_parameters():
            parameter.requires_grad_(name in self.trained[group])
        examples = image_examples(task, augmented=context.training.augment)
        shared = Shared(expert, head, old_heads, examples, self.kept[group], self.settings, context)
        loss = self._regularizer().loss(shared)
        outcome = fit_selected(
            trained, examples, lambda inputs: head(expert(inputs)), self._reuse_training(context, task), context.stage("distill"), loss=loss
        )
        freeze(trained)
        record.trained(outcome, "distill")
        self.kept[group] = self._keep(shared, record)
        return head

    def _regularizer(self) -> Regularizer:
        return REGULARIZERS[self.settings.regularizer]()

    def _keep(self, shared: Shared, record: LearnRecord) -> Tree:
        """Return what the regularizer keeps of an expert that has learned a task."""
        regularizer = self._regularizer()
        if type(regularizer).keep is Regularizer.keep:
            return None
        with shared.context.timed("regularizer", record):
            return regularizer.keep(shared)

    def _allocate(self, decision: Decision, task: Task, context: Context, record: LearnRecord) -> tuple[nn.Module, nn.Module]:
        """Train a new expert from scratch (step 3, Eq. 10)."""
        examples = image_examples(task, augmented=context.training.augment)
        newcomer = Newcomer(task, examples, list(self.experts), list(self.plans), decision, self.settings, context, record)
        plan = planned(self.settings.allocation, self.allocation, newcomer)
        with context.seeded("expert"):
            expert = self._build(plan).to(context.device)
            self.allocation.start(expert, newcomer)
        network = nn.Sequential(expert, new_head(expert, task, context))
        outcome = fit_selected(network, examples, network, self._training(context, task), context.stage("train"))
        freeze(network)
        record.trained(outcome)
        record.decision = "search" if record.edges else "allocate" if cell_of(plan) is None else "reuse-cell"
        self.plans.append(plan)
        self.kept.append(self._keep(Shared(network[0], network[1], [], examples, None, self.settings, context), record))
        return network[0], network[1]

    def _build(self, plan: str) -> nn.Module:
        """Build the next expert, and remember what of it is trained."""
        expert = built(self.settings.allocation, self.allocation, plan, self.settings)
        self.trained.append({name for name, parameter in expert.named_parameters() if parameter.requires_grad})
        return expert

    def _training(self, context: Context, task: Task, *, head_only: bool = False) -> TrainingSettings:
        """Return the training settings for a task; weight decay may be raised for a tiny task, but not for its head alone."""
        training = context.training
        if head_only or not 0 < len(task.train) <= self.settings.tiny_task:
            return training
        factor = self.settings.tiny_weight_decay
        return replace(
            training,
            weight_decay=training.weight_decay * factor,
            weight_decay_grid=tuple(decay * factor for decay in training.weight_decay_grid),
        )

    def _reuse_training(self, context: Context, task: Task, *, head_only: bool = False) -> TrainingSettings:
        """Return the training settings for a reused expert, where early stopping may be off."""
        training = self._training(context, task, head_only=head_only)
        stops = self.settings.stop_reuse_early or training.schedule == "plateau"
        return training if stops else replace(training, patience=0)

    def memory(self) -> dict[str, int]:
        """Count the bytes of prototypes, spreads and what the regularizer keeps."""
        kept = {"regularizer": tensor_bytes(self.kept)} if any(tree is not None for tree in self.kept) else {}
        return {"prototypes": self.relatedness.bytes, "spreads": self.relatedness.recognition.bytes} | kept

    def state_dict(self) -> Tree:
        """Return tasks, experts with their cells, heads, groups and prototypes, and what the regularizer keeps."""
        kept = {"kept": list(self.kept)} if any(tree is not None for tree in self.kept) else {}
        return kept | {
            "tasks": self._tasks_state(),
            # Named when every plan was a cell.
            "genotypes": list(self.plans),
            "experts": [expert.state_dict() for expert in self.experts],
            "heads": [head.state_dict() for head in self.heads],
            "relatedness": self.relatedness.state(),
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.plans, self.trained = list(state["genotypes"]), []
        self.experts, self.heads = nn.ModuleList(), nn.ModuleList()
        for plan, weights in zip(self.plans, state["experts"], strict=True):
            expert = self._build(plan).to(device)
            expert.load_state_dict(weights)
            freeze(expert)
            self.experts.append(expert)
        for weights in state["heads"]:
            self.heads.append(load_head(weights, device))
        self.kept = on_device(state.get("kept", [None] * len(self.plans)), device)
        self.relatedness = Relatedness.from_state(self.settings, state["relatedness"], device)
