"""PAR: Task Difficulty Aware Parameter Allocation & Regularization for Lifelong Learning (Wang, Hu, Chen, Zhang; CVPR 2023).

For each new task (section 3 of the paper):

1. Measure its distance to every earlier task by the nearest-prototype estimate of a KL divergence on frozen features, and by their mean
   to every group of tasks (Eq. 2-6). Keep its own prototypes.
2. Nearest group within alpha: join it (parameter regularization). Its expert learns the task by cross-entropy plus distillation of the
   group's earlier heads (Eq. 7-9); a task much smaller than the group's largest trains its head only, on features computed once.
3. Else open a group with a new expert (parameter allocation, Eq. 10): with the nearest group's cell within beta, with a cell found by
   search beyond it. Other groups' experts are never touched.

Where the authors' code differs each difference is a setting (`PARSettings`), and all of them are the preset `authors-code`.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.errors import LifelongError
from lifelong.methods.method import Context, LearnRecord, Method, Recognized
from lifelong.methods.regularizers import Regularizer, Shared
from lifelong.methods.single import load_head, new_head
from lifelong.networks.cells import CellNetwork
from lifelong.networks.frozen import freeze
from lifelong.networks.genotype import Genotype, genotype
from lifelong.relatedness.assessment import Relatedness
from lifelong.relatedness.groups import Decision
from lifelong.search.mdl import EDGES_OF_CELLS, search_cell, too_short
from lifelong.settings.par import PARSettings
from lifelong.settings.sockets import REGULARIZERS
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples, image_examples
from lifelong.training.select import fit_selected
from lifelong.trees import on_device, tensor_bytes


class PAR(Method[PARSettings]):
    """Experts of searched cells, each shared by a group of related tasks; a head per task."""

    name = "par"

    def __init__(self, settings: PARSettings) -> None:
        super().__init__(settings)
        self.experts = nn.ModuleList()
        self.heads = nn.ModuleList()
        self.genotypes: list[Genotype] = []
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
        recognition = self.relatedness.recognition
        squares = recognition.squared_distances(images, self.relatedness.bank, self._attached())
        return Recognized(recognition.probabilities(squares).to(images.device), recognition.strangeness(squares).to(images.device))

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
        record.expert, record.genotype = group, str(self.genotypes[group])
        record.parameters_added = self.num_parameters() - before
        return record

    def extractor(self) -> tuple[str, str] | None:
        """Return the extractor named by the settings; None if the variant needs no distances."""
        return (self.settings.extractor, self.settings.feature_input) if self.relatedness.needed else None

    def _decide(self, task: Task, context: Context, record: LearnRecord) -> Decision:
        """Measure distances and decide (step 1)."""
        with context.timed("distances", record):
            self.attach_extractor(context.extractor)
            decision = self.relatedness.assess(task, self._extractor)
        if decision.warning:
            context.note(decision.warning, record)
        record.decision, record.reason, record.frozen = decision.decision, decision.reason, decision.frozen
        record.divergences, record.group_distances = list(decision.divergences), list(decision.group_distances)
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
        trained = nn.ModuleList([expert, head, *(old_heads if self.settings.train_old_heads else [])]).requires_grad_(True)
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
        cell = self._cell(decision, examples, task, context, record)
        with context.seeded("expert"):
            expert = self._make_expert(cell).to(context.device)
        network = nn.Sequential(expert, new_head(expert, task, context))
        outcome = fit_selected(network, examples, network, self._training(context, task), context.stage("train"))
        freeze(network)
        record.trained(outcome)
        self.genotypes.append(cell)
        self.kept.append(self._keep(Shared(network[0], network[1], [], examples, None, self.settings, context), record))
        return network[0], network[1]

    def _cell(self, decision: Decision, examples: Examples, task: Task, context: Context, record: LearnRecord) -> Genotype:
        """Choose the cell of a new expert: fixed, the nearest group's, or searched."""
        if self.settings.fixed:
            if self.settings.variant == "regularization" and context.began("search"):
                raise LifelongError(
                    f"task '{context.task_name}': this run was started when --variant regularization searched its cell, as "
                    "'regularization-searched' does now; delete the folder to start over"
                )
            return genotype(self.settings.fixed_cell)
        if decision.decision == "reuse-cell":
            assert decision.group is not None
            return self.genotypes[decision.group]
        short = too_short(len(task.train), self.settings, context.training.batch_size)
        if short is not None:
            context.note(short, record)
        found = search_cell(
            task.train,
            len(task.classes),
            self.settings,
            context.training,
            context.stage("search"),
            normalization=task.normalization,
            augmentation=examples.augmentation,
            channels=self.settings.init_channels,
            cells=self.settings.cells,
            reduce_bn=self.settings.reduce_bn,
        )
        record.seconds["search"] = found.seconds
        record.edges, record.undecided_edges = EDGES_OF_CELLS, found.undecided
        if found.undecided:
            record.reason += f"; {found.undecided} of its {EDGES_OF_CELLS} edges undecided, ties"
            record.reason += " broken by the seed" if self.settings.search_ties == "seed" else ": the first taken"
        return found.genotype

    def _make_expert(self, cell: Genotype) -> CellNetwork:
        return CellNetwork(cell, self.settings.init_channels, self.settings.cells, reduce_bn=self.settings.reduce_bn)

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
            "genotypes": [str(cell) for cell in self.genotypes],
            "experts": [expert.state_dict() for expert in self.experts],
            "heads": [head.state_dict() for head in self.heads],
            "relatedness": self.relatedness.state(),
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.genotypes = [genotype(text) for text in state["genotypes"]]
        self.experts, self.heads = nn.ModuleList(), nn.ModuleList()
        for cell, weights in zip(self.genotypes, state["experts"], strict=True):
            expert = self._make_expert(cell).to(device)
            expert.load_state_dict(weights)
            freeze(expert)
            self.experts.append(expert)
        for weights in state["heads"]:
            self.heads.append(load_head(weights, device))
        self.kept = on_device(state.get("kept", [None] * len(self.genotypes)), device)
        self.relatedness = Relatedness.from_state(self.settings, state["relatedness"], device)
