"""PAR: Task Difficulty Aware Parameter Allocation & Regularization for Lifelong Learning (Wang, Hu, Chen, Zhang; CVPR 2023).

For each new task (section 3 of the paper):

1. Measure its distance to every earlier task by the nearest-prototype estimate of a KL divergence on frozen features, and by their mean
   to every group of tasks (Eq. 2-6). Keep its own prototypes.
2. Nearest group within alpha: join it (parameter regularization). Its expert learns the task by cross-entropy plus distillation of the
   group's earlier heads (Eq. 7-9); a task much smaller than the group's largest trains its head only, on features computed once.
3. Else open a group with a new expert (parameter allocation, Eq. 10): with the nearest group's cell within beta, with a cell found by
   search beyond it (`allocations.py`). Other groups' experts are never touched.

The decision of steps 2 and 3 is that of a rule (`decisions.py`); the paper's are the thresholds.

Where the authors' code differs each difference is a setting (`PARSettings`), and all of them are the preset `authors-code`.
"""

import time
from collections.abc import Hashable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.devices import exact_device
from lifelong.errors import LifelongError
from lifelong.methods.allocations import Allocation, CellAllocation, Newcomer, built, cell_of, compared, planned
from lifelong.methods.decisions import DecisionRule, Learned, Question, Views, decided
from lifelong.methods.group_forgetting import entangled_in_group, heirs_of_expert
from lifelong.methods.method import Context, Entangled, LearnRecord, Method, Recognized, count_parameters
from lifelong.methods.regularizers import Regularizer, Shared
from lifelong.methods.single import load_head, new_head
from lifelong.methods.trials import Outcome, Trials, copied, valid_accuracy
from lifelong.methods.two_steps import TwoSteps
from lifelong.networks.copies import LoadedModules
from lifelong.networks.frozen import freeze
from lifelong.relatedness.assessment import Measured, Relatedness
from lifelong.relatedness.groups import Decision
from lifelong.search.proxies import best
from lifelong.settings.par import PARSettings
from lifelong.settings.sockets import ALLOCATIONS, DECISIONS, REGULARIZERS
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.examples import image_examples
from lifelong.training.fit import FitOutcome, Loss
from lifelong.training.select import fit_selected
from lifelong.trees import on_device, tensor_bytes, weights_of


class PAR(Method[PARSettings]):
    """Experts, each shared by a group of related tasks; a head per task."""

    name = "par"

    def __init__(self, settings: PARSettings) -> None:
        super().__init__(settings)
        self.experts: list[nn.Module] = []
        self.heads: list[nn.Module] = []
        self.allocation: Allocation = ALLOCATIONS[self.settings.allocation]()
        self.plans: list[str] = []
        self.trained: list[set[str]] = []
        self.kept: list[Tree] = []
        self.kept_by_rule: Tree = None
        self.relatedness = Relatedness(self.settings)

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return the expert of the task's group, and the task's head."""
        return self.experts[self.relatedness.groups.group_of(task_index)], self.heads[task_index]

    def form_of(self, task_index: int) -> Hashable | None:
        """Return the plan of the task's expert, and the shape of its head."""
        own = (type(self).logits, type(self).predict, type(self).modules) != (Method.logits, PAR.predict, PAR.modules)
        plan = self.plans[self.relatedness.groups.group_of(task_index)]
        return None if own or not self._plan_is_all else (plan, self.heads[task_index].weight.shape)

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Apply the task's head to the features of its expert."""
        expert, head = self.modules(task_index)
        return head(expert(inputs))

    def two_steps(self, task_index: int) -> TwoSteps | None:
        """Return the expert of the task's group, which the group shares, and the task's head."""
        if (type(self).logits, type(self).predict) != (Method.logits, PAR.predict):
            return None  # A subclass that answers in a way of its own.
        expert, head = self.modules(task_index)
        return TwoSteps(id(expert), expert, head)

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

    def limits(self) -> list[float] | None:
        """Return the distance to each task's prototypes that most of its images stay below; None if the variant keeps none."""
        return self.relatedness.recognition.limits() if self.relatedness.needed else None

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Measure the task, decide, and share an expert or create one."""
        before = 0 if self._experts_apart else self.num_parameters()
        record = LearnRecord(alpha=self.settings.alpha, beta=self.settings.beta)
        measured = self._measure(task, context, record)
        views = None if measured is None else Views(task, self._attached())
        trials = Trials(lambda *tried: self._carry_out(task, *tried, on_trial=True), context)
        decision = self._decide(measured, views, task, trials, context, record)
        outcome = trials.taken_over(decision, record) or self._carry_out(task, decision, context, record)
        own = [outcome.head] if outcome.group < len(self.experts) else [outcome.expert, outcome.head]
        self._take(outcome, len(task.train))
        self._remember(task)
        record.expert, record.genotype = outcome.group, cell_of(outcome.plan)
        # To count all parameters takes as long as there are many experts.
        record.parameters_added = count_parameters(own) if self._experts_apart else self.num_parameters() - before
        if measured is not None and views is not None and self._keeps_for_rule:
            with context.timed("decision", record):
                self.kept_by_rule = self._rule().keep(self._learned(measured, views.anew(), task, outcome, trials, context, record))
        return record

    def extractor(self) -> tuple[str, str] | None:
        """Return the extractor named by the settings; None if the variant needs no distances."""
        return (self.settings.extractor, self.settings.feature_input) if self.relatedness.needed else None

    def _measure(self, task: Task, context: Context, record: LearnRecord) -> Measured | None:
        """Measure the task, if that is needed (step 1)."""
        with context.timed("distances", record):
            self.attach_extractor(context.extractor)
            return None if self._extractor is None else self.relatedness.examine(task, self._extractor, self.modules)

    def _decide(
        self, measured: Measured | None, views: Views | None, task: Task, trials: Trials, context: Context, record: LearnRecord
    ) -> Decision:
        """Decide where the task belongs, and record it (steps 2 and 3)."""
        groups, started = self.relatedness.groups, time.perf_counter()
        if measured is None or views is None:
            decision = groups.decide(None, len(task.train), self.settings)
        elif not len(groups) or self.settings.shares != "related":
            decision = measured.noted(groups.decide(measured.divergences, len(task.train), self.settings))
        else:
            question = Question(
                task=task,
                sample=measured.sample,
                kept=self.kept_by_rule,
                settings=self.settings,
                context=context,
                views=views,
                divergences=measured.divergences,
                groups=groups,
                experts=list(self.experts),
                heads=list(self.heads),
                attempt=trials.make,
            )
            decision = measured.noted(decided(self.settings.decision, question))
        record.seconds["distances"] += time.perf_counter() - started - trials.seconds
        if decision.warning:
            context.note(decision.warning, record)
        record.decision, record.reason, record.frozen = decision.decision, decision.reason, decision.frozen
        record.divergences, record.task_distances = list(decision.divergences), list(decision.distances)
        record.group_distances = list(decision.group_distances)
        return decision

    def _rule(self) -> DecisionRule:
        return DECISIONS[self.settings.decision]()

    @property
    def _keeps_for_rule(self) -> bool:
        """Whether the rule is asked, and keeps something."""
        return self.settings.shares == "related" and type(self._rule()).keep is not DecisionRule.keep

    def _learned(
        self, measured: Measured, views: Views, task: Task, outcome: Outcome, trials: Trials, context: Context, record: LearnRecord
    ) -> Learned:
        """Return what the rule sees of a task that has been learned."""
        return Learned(
            task=task,
            sample=measured.sample,
            kept=self.kept_by_rule,
            settings=self.settings,
            context=context,
            views=views,
            group=outcome.group,
            expert=outcome.expert,
            head=outcome.head,
            accuracy=valid_accuracy(record),
            attempts=trials.attempts,
        )

    def _carry_out(self, task: Task, decision: Decision, context: Context, record: LearnRecord, *, on_trial: bool = False) -> Outcome:
        """Train what the decision says, and return it; on trial on copies of the expert and the heads."""
        if decision.decision != "reuse-expert":
            return self._allocate(decision, task, context, record)
        group = decision.group
        assert group is not None
        expert, old_heads = self.experts[group], [self.heads[member] for member in self.relatedness.groups.members[group]]
        if on_trial:
            expert, old_heads = copied(expert, self.trained[group]), [copied(head, set(head.state_dict())) for head in old_heads]
        examples = image_examples(task, augmented=context.training.augment)
        head = new_head(expert, task, context)
        shared = Shared(expert, head, old_heads, examples, self.kept[group], self.settings, context, self.trained[group])
        if decision.frozen or not self._regularizer().trains_expert:
            self._train_head(shared, task, record)
            if not decision.frozen:
                record.frozen, record.reason = True, f"{record.reason}, head only (regularizer '{self.settings.regularizer}')"
        else:
            self._distill(shared, task, record)
        return Outcome(group, expert, head, old_heads, self.plans[group], self.trained[group], self._keep(shared, record))

    def _take(self, outcome: Outcome, samples: int) -> None:
        """Make what was trained part of the model, for a task with `samples` training images."""
        group, groups = outcome.group, self.relatedness.groups
        if group == len(groups):
            groups.open(samples)
            self.experts.append(outcome.expert)
            self.plans.append(outcome.plan)
            self.trained.append(outcome.trained)
            self.kept.append(outcome.kept)
        else:
            self.experts[group], self.kept[group] = outcome.expert, outcome.kept
            for member, head in zip(groups.members[group], outcome.old_heads, strict=True):
                self.heads[member] = head
            groups.join(group, samples)
        self.heads.append(outcome.head)

    def _train_head(self, shared: Shared, task: Task, record: LearnRecord) -> None:
        """Train a head on the frozen expert, whose features are computed once unless images are augmented."""
        expert, head, context = shared.expert, shared.head, shared.context
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

    def _distill(self, shared: Shared, task: Task, record: LearnRecord) -> None:
        """Train the group's expert and a new head by Eq. 9."""
        expert, head, context = shared.expert, shared.head, shared.context
        trained = nn.ModuleList([expert, head, *(shared.old_heads if self.settings.train_old_heads else [])])
        trained[1:].requires_grad_(True)
        for name, parameter in expert.named_parameters():
            parameter.requires_grad_(name in shared.trained)
        outcome = fit_selected(
            trained,
            shared.examples,
            lambda inputs: head(expert(inputs)),
            self._reuse_training(context, task),
            context.stage("distill"),
            loss=self._penalized_loss(shared),
        )
        freeze(trained)
        record.trained(outcome, "distill")

    def _regularizer(self) -> Regularizer:
        return REGULARIZERS[self.settings.regularizer]()

    def _penalized_loss(self, shared: Shared) -> Loss:
        """Return the regularizer's loss.

        Raises:
            LifelongError: it gave something else.
        """
        loss = self._regularizer().loss(shared)
        if not callable(loss):
            name, found = self.settings.regularizer, type(loss).__name__
            raise LifelongError(f"regularizer '{name}': loss gave a {found}; it must give a function from a batch to a loss")
        return loss

    def _keep(self, shared: Shared, record: LearnRecord) -> Tree:
        """Return what the regularizer keeps of an expert that has learned a task."""
        regularizer = self._regularizer()
        if type(regularizer).keep is Regularizer.keep:
            return None
        with shared.context.timed("regularizer", record):
            return regularizer.keep(shared)

    def _allocate(self, decision: Decision, task: Task, context: Context, record: LearnRecord) -> Outcome:
        """Train a new expert from scratch (step 3, Eq. 10); if the allocation names several starts, from each, and keep the best."""
        examples = image_examples(task, augmented=context.training.augment)
        newcomer = Newcomer(task, examples, list(self.experts), list(self.plans), decision, self.settings, context, record)
        starts = list(self.allocation.starts(newcomer))
        places = [context] if len(starts) == 1 else [context.within(f"start-{place}") for place in range(len(starts))]
        tried = [self._new_expert(newcomer.starting(start), place) for start, place in zip(starts, places, strict=True)]
        fits = [fitted for _, fitted in tried]
        outcome, fitted = tried[best([fitted.accuracy for fitted in fits])]
        record.trained(fitted)
        if len(tried) > 1:
            record.seconds["attempts"] = sum(one.seconds for one in fits) - fitted.seconds
            record.reason += f"; {compared(starts, [one.accuracy for one in fits])}"
        record.decision = "search" if record.edges else "allocate" if cell_of(outcome.plan) is None else "reuse-cell"
        shared = Shared(outcome.expert, outcome.head, [], examples, None, self.settings, context, outcome.trained)
        return replace(outcome, kept=self._keep(shared, record))

    def _new_expert(self, newcomer: Newcomer, context: Context) -> tuple[Outcome, FitOutcome]:
        """Plan, build and train a new expert and its head; its stages are those of the context."""
        newcomer, task = replace(newcomer, context=context), newcomer.task
        plan = planned(self.settings.allocation, self.allocation, newcomer)
        with context.seeded("expert"):
            expert, trained = self._build(plan, context.device)
            self.allocation.start(expert, newcomer)
        network = nn.Sequential(expert, new_head(expert, task, context))
        fitted = fit_selected(network, newcomer.examples, network, self._training(context, task), context.stage("train"))
        freeze(network)
        return Outcome(len(self.experts), expert, network[1], [], plan, trained, None), fitted

    def _build(self, plan: str, device: torch.device | str) -> tuple[nn.Module, set[str]]:
        """Build an expert; return it with the names of what of it is trained."""
        expert = built(self.settings.allocation, self.allocation, plan, self.settings)
        return expert.to(device), {name for name, parameter in expert.named_parameters() if parameter.requires_grad}

    @property
    def _plan_is_all(self) -> bool:
        """Whether experts of one plan are built alike, and have nothing in common."""
        return type(self.allocation).build is CellAllocation.build

    @property
    def _experts_apart(self) -> bool:
        """Whether what answers for a task is its expert and its head, and experts have nothing in common."""
        return self._plan_is_all and type(self).modules is PAR.modules

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
        """Count the bytes of prototypes, spreads and what the regularizer and the decision rule keep."""
        kept = {"regularizer": tensor_bytes(self.kept)} if any(tree is not None for tree in self.kept) else {}
        kept |= {} if self.kept_by_rule is None else {"decision": tensor_bytes(self.kept_by_rule)}
        return {"prototypes": self.relatedness.bytes, "spreads": self.relatedness.recognition.bytes} | kept

    def forgettable(self, task_index: int) -> Entangled | None:
        """Tell whether the task shares its expert, or other experts or the decision rule took something over from it."""
        shared = entangled_in_group(self.relatedness, task_index, "its expert was trained")
        if shared is not None:
            return shared
        if self.kept_by_rule is not None:
            return Entangled(f"the decision rule '{self.settings.decision}' keeps what it learned of all tasks", self._others(task_index))
        return heirs_of_expert(self.allocation, self.settings, self.plans, self.relatedness, task_index)

    def _let_go(self, task_index: int) -> None:
        group = self.relatedness.groups.group_of(task_index)
        del self.experts[group], self.plans[group], self.trained[group], self.kept[group], self.heads[task_index]
        self.relatedness.forget(task_index)

    def state_dict(self) -> Tree:
        """Return tasks, experts with their cells, heads, groups and prototypes, and what the regularizer and the decision rule keep."""
        kept = {"kept": list(self.kept)} if any(tree is not None for tree in self.kept) else {}
        kept |= {} if self.kept_by_rule is None else {"kept_by_rule": self.kept_by_rule}
        return kept | {
            "tasks": self._tasks_state(),
            # Named when every plan was a cell.
            "genotypes": list(self.plans),
            "experts": [weights_of(expert) for expert in self.experts],
            "heads": [weights_of(head) for head in self.heads],
            "relatedness": self.relatedness.state(),
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.plans, self.trained = list(state["genotypes"]), []
        self.experts, self.heads = [], []
        loaded, trained = LoadedModules(device), dict[str, set[str]]()

        def build(plan: str) -> nn.Module:
            expert, trained[plan] = self._build(plan, device)
            return expert

        for place, (plan, weights) in enumerate(zip(self.plans, state["experts"], strict=True)):
            self.experts.append(loaded(plan if self._plan_is_all else place, partial(build, plan), weights))
            self.trained.append(set(trained[plan]))
        for weights in state["heads"]:
            self.heads.append(load_head(weights, device))
        self.kept = on_device(state.get("kept", [None] * len(self.plans)), device)
        self.kept_by_rule = on_device(state.get("kept_by_rule"), exact_device(device))
        self.relatedness = Relatedness.from_state(self.settings, state["relatedness"], device)
