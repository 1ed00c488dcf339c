"""PAR on a frozen pretrained network: the same question, asked of heads and of what is trained beside them.

For each new task: is a learned task within alpha? Then its answers help (parameter sharing): the new head also reads the probabilities
of the group's earlier heads. Is the frozen network good enough for it? Then a head in closed form is all it gets. If not, low-rank
adapters in the network's last stage or a small network of cells beside it are trained for it, and kept if they do better on validation
images (parameter allocation). Nothing that answers for an earlier task ever changes.

The distances and the groups are the paper's (Eq. 2-6); the experts are this library's, not the paper's.
"""

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from lifelong.data.augment import normalize
from lifelong.data.copies import with_copies
from lifelong.data.task import IMAGENET, Task
from lifelong.errors import LifelongError
from lifelong.methods.beside import (
    TRAINED,
    WORDS,
    Kind,
    Part,
    adapted_network,
    all_stages,
    last_features,
    maps_before_last,
    side_network,
    train_beside,
)
from lifelong.methods.classifiers import Classifiers
from lifelong.methods.frozen_network import OnFrozenNetwork, renormalized
from lifelong.methods.group_forgetting import entangled_in_group
from lifelong.methods.linear_probe import as_module
from lifelong.methods.method import Context, Entangled, LearnRecord, Method, Recognized
from lifelong.methods.mixed_head import PENALTIES, Answers, Mixture, OwnHead, choose_mixture, fit_own
from lifelong.methods.par import PAR
from lifelong.networks.frozen import freeze
from lifelong.networks.pretrained import RandomFeatures
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.relatedness.assessment import Relatedness
from lifelong.relatedness.groups import Decision
from lifelong.relatedness.recognition import Router
from lifelong.relatedness.transferability import h_score_distance, logme_distance
from lifelong.settings.fields import settings_of
from lifelong.settings.par import PARSettings
from lifelong.settings.sockets import MEASURES
from lifelong.storage import Tree
from lifelong.training.closed_form import choose_logistic, exact_rows, logistic, to_judge
from lifelong.training.examples import accuracy as right

RANDOM_FEATURES = 2000
"""Random features of the ridge regression, as `RanPACSettings` has by default (the paper of RanPAC: 10,000)."""

DIFFICULTIES = {"logme": ("LogME", logme_distance), "h-score": ("H-score", h_score_distance)}
"""Scores that tell without training how well features separate the classes: their names, and the distances from the best."""


def make_par(settings: PARSettings) -> Method[PARSettings]:
    """Make PAR with experts of the kind that its settings name.

    Raises:
        LifelongError: a setting is given that only experts of cells have, or a rule for a decision that the variant leaves open to none.
    """
    for name in ("regularizer", "allocation", "decision") if settings.expert != "cells" else ():
        value, usual = getattr(settings, name), settings_of(PARSettings)[name].default
        if value != usual:
            raise LifelongError(f"--{name} {value} is for --expert cells; with --expert {settings.expert} leave it out")
    if settings.shares != "related" and settings.decision != settings_of(PARSettings)["decision"].default:
        says = "always shares the one expert" if settings.shares == "always" else "never shares an expert"
        raise LifelongError(
            f"--decision {settings.decision} has nothing to decide: --variant {settings.variant} {says}; leave one of them out"
        )
    if settings.expert != "cells" and MEASURES[settings.measure].needs_experts:
        raise LifelongError(
            f"--measure {settings.measure} compares the experts of earlier tasks, and with --expert {settings.expert} all tasks have the "
            "same network; use --expert cells or a measure of frozen features"
        )
    return PAR(settings) if settings.expert == "cells" else PretrainedPAR(settings)


class PretrainedPAR(OnFrozenNetwork[PARSettings]):
    """A frozen network, a head in closed form per task, and adapters or a network of cells beside it where they pay."""

    name = "par"

    def __init__(self, settings: PARSettings) -> None:
        super().__init__(settings)
        self.learned: list[Classifiers] = []
        self.relatedness = Relatedness(settings)
        self.seed = 0
        self._random: RandomFeatures | None = None

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return the network, the task's classifiers, and those of the earlier tasks that they read."""
        learned = self.learned[task_index]
        read = [module for earlier in learned.earlier for module in self.learned[earlier].modules()]
        return self.frozen.module, *learned.modules(), *read

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Mix the log-probabilities of the task's classifiers."""
        images = renormalized(inputs, self.tasks[task_index].normalization)
        return self._answer(images, self.frozen.module(images), task_index)

    def logits(self, images: UInt8[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Compute the logits of a task's classes; see `Method.logits`. A run that judges the same images again reads their features."""
        with torch.no_grad():
            return self._answer(normalize(images, IMAGENET), self.frozen.features(images), task_index)

    def _answer(
        self, images: Float[Tensor, "n 3 h w"], features: Float[Tensor, "n d"], task_index: int, known: dict[int, Tensor] | None = None
    ) -> Float[Tensor, "n c"]:
        learned = self.learned[task_index]
        related = None
        if learned.related is not None:
            related = learned.related(self._read(images, features, learned.earlier, known)).log_softmax(dim=1)
        own = learned.own(features) if learned.mixture.own else None
        return learned.mixture.mixed(Answers(own, related, **self._trained_answers(images, learned)))

    def answers(self, images: UInt8[Tensor, "n 3 h w"]) -> tuple[list[Float[Tensor, "n _c"]], Float[Tensor, "n t"] | None]:
        """Compute the features once, and from them the logits of every task, and task probabilities if the variant keeps prototypes."""
        prepared = normalize(images, IMAGENET)
        features, kept = self.frozen.module(prepared), self.relatedness
        known: dict[int, Tensor] = {}
        logits = [self._answer(prepared, features, index, known) for index in range(len(self.tasks))]
        return logits, Router(kept.bank, kept.recognition)(features) if kept.needed else None

    def _read(
        self,
        images: Float[Tensor, "n 3 h w"],
        features: Float[Tensor, "n d"],
        earlier: tuple[int, ...],
        known: dict[int, Tensor] | None = None,
    ) -> Float[Tensor, "n k"]:
        """Return the probabilities of the classes of earlier tasks, each by its own head and what was trained beside it, if anything.

        Args:
            images, features: normalized, and what the frozen network says of them.
            earlier: which tasks.
            known: what was computed for these images before, by task; grows. Else a hundred tasks would take 4,950 such answers.
        """
        known = {} if known is None else known
        for index in earlier:
            if index not in known:
                answer, trained = self.learned[index].own(features), self._trained_answers(images, self.learned[index])
                for more in trained.values():
                    answer = answer + more
                known[index] = (answer / (1 + len(trained))).softmax(dim=1)
        return torch.cat([known[index] for index in earlier], dim=1)

    def _trained_answers(self, images: Float[Tensor, "n 3 h w"], learned: Classifiers) -> dict[Kind, Float[Tensor, "n c"]]:
        """Return the log-probabilities by what was trained for a task."""
        answers: dict[Kind, Tensor] = {}
        if learned.adapted is not None:
            answers["adapted"] = learned.adapted(maps_before_last(self.frozen.module, images)).log_softmax(dim=1)
        if learned.side is not None:
            answers["side"] = learned.side(images).log_softmax(dim=1)
        return answers

    def recognize(self, images: UInt8[Tensor, "n 3 h w"]) -> Recognized:
        """Compute task probabilities and strangeness from the distances to all prototypes."""
        if not self.relatedness.needed:
            return Recognized(None, None)
        return Recognized(*self.relatedness.recognition.recognize(images, self.relatedness.bank, self.frozen.extractor))

    def task_probabilities(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n t"] | None:
        """Compute task probabilities from the distances to each task's prototypes; None if the variant keeps none."""
        return self.recognize(images).probabilities

    def strangeness(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n"] | None:
        """Compute strangeness from the distance to the nearest prototype; None if the variant keeps none."""
        return self.recognize(images).strangeness

    def limits(self) -> list[float] | None:
        """Return the distance to each task's prototypes that most of its images stay below; None if the variant keeps none."""
        return self.relatedness.recognition.limits() if self.relatedness.needed else None

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Measure the task, decide, and give it a head, related heads to read, adapters, or a network of cells beside them."""
        before, record = self.num_parameters(), LearnRecord(alpha=self.settings.alpha, frozen=True)
        with context.timed("features", record):
            if not self.tasks:
                self.seed = context.seed
            self.open_network(context)
            copied = with_copies(task.train, task.augmentation, self.settings.feature_copies, context.seed_of("copies"))
            train = Part(self.frozen, copied, len(task.classes), len(task.train))
            valid = Part(self.frozen, task.valid, len(task.classes))
        with context.timed("distances", record):
            decision = self.relatedness.assess(task, self.frozen.extractor if self.relatedness.needed else None)
        if decision.warning:
            context.note(decision.warning, record)
        record.divergences, record.task_distances = list(decision.divergences), list(decision.distances)
        record.group_distances = list(decision.group_distances)
        shares = decision.decision == "reuse-expert"
        group = decision.group if shares and decision.group is not None else len(self.relatedness.groups)
        learned = self._fit(train, valid, tuple(self.relatedness.groups.members[group]) if shares else (), task, context, record)
        if shares:
            self.relatedness.groups.join(group, len(task.train))
        else:
            self.relatedness.groups.open(len(task.train))
        self.learned.append(learned)
        self._remember(task)
        record.decision = learned.decision
        record.expert = group
        record.reason = "; ".join(filter(None, (_nearness(decision, shares=shares), record.reason)))
        record.parameters_added = self.num_parameters() - before
        return record

    def stages(self, network: nn.Module) -> tuple[str, ...]:
        """Return all stages of the network.

        Raises:
            LifelongError: adapters are wanted, which it has no place for.
        """
        if self.settings.expert == "adapter" and not isinstance(network, ImageNetResNet18):
            raise LifelongError(f"--expert adapter needs the extractor 'resnet18', not '{self.settings.extractor}'; use --expert head")
        return all_stages(network)

    def _fit(self, train: Part, valid: Part, earlier: tuple[int, ...], task: Task, context: Context, record: LearnRecord) -> Classifiers:
        """Fit the classifiers of a task, and weigh them on its validation images."""
        with context.timed("head", record):
            random = self._projection(train.rows.features.shape[1])
            tried, whole = fit_own(train.rows, valid.rows, random, self._last)
            own = OwnHead(random, train.rows.features.shape[1], self._last, train.rows.classes).to(train.rows.features)
            whole.write_to(own)
            judges = to_judge(train.rows, valid.rows)[1]
            answers = tried.log_probabilities(judges.features, random, self._last)
            related, answers_related = self._fit_related(train, valid, earlier)
            given = Answers(answers, answers_related)
            mixture = choose_mixture(given, judges.labels)
        accuracy = _accuracy(mixture, given, judges.labels)
        record.reason = f"head right on {accuracy:.0%} of validation images"
        trained: dict[Kind, nn.Sequential] = {}
        for kind in self._tried(train, valid, accuracy, record):
            if trained and accuracy >= self.settings.enough_accuracy:
                break
            network, found = train_beside(kind, self.frozen.module, train, valid, task, self.settings, context, record)
            more = given._replace(**{kind: found})
            mixed = choose_mixture(more, judges.labels)
            better = _accuracy(mixed, more, judges.labels)
            kept = bool(getattr(mixed, kind)) and better > accuracy
            record.reason += f"; {better:.0%} with {WORDS[kind]}: {'kept' if kept else 'dropped'}"
            if kept:
                given, mixture, accuracy, trained[kind] = more, mixed, better, network
        record.frozen = not trained
        record.hyperparameters["valid_accuracy"] = accuracy
        if not mixture.related:
            related, earlier = None, ()
        else:
            names = ", ".join(self.tasks[index].name for index in earlier)
            record.reason += f"; reads the answers for {names}"
        weighed = {kind: network for kind, network in trained.items() if getattr(mixture, kind)}
        learned = Classifiers(own, related, earlier, weighed.get("adapted"), weighed.get("side"), mixture)
        for module in learned.modules():
            freeze(module.to(device=context.device, dtype=torch.get_default_dtype()))
        return learned

    def _fit_related(self, train: Part, valid: Part, earlier: tuple[int, ...]) -> tuple[nn.Linear | None, Float64[Tensor, "n c"] | None]:
        """Fit a logistic regression on the probabilities of related tasks; returns it with its answers on the images that judge."""
        if not earlier:
            return None, None
        read = lambda images, features: self._read(images, features, earlier)  # noqa: E731
        rows = [exact_rows(part.mapped(read), part.rows.labels, part.rows.classes, part.rows.originals) for part in (train, valid)]
        fitted_on, judges = to_judge(*rows)
        penalty, tried = choose_logistic(fitted_on, judges, PENALTIES, by="loss")
        whole = logistic(rows[0].with_rows(rows[1]), penalty)
        return as_module(whole), tried(judges.features).log_softmax(dim=1)

    def _tried(self, train: Part, valid: Part, accuracy: float, record: LearnRecord) -> tuple[Kind, ...]:
        """Return what is trained for a task beside its head: nothing if that is enough, or if no validation images would judge it."""
        kinds = self._kinds() if len(valid.rows) else ()
        if not kinds:
            return ()
        hard, said = self._hard(train, valid, accuracy)
        record.reason += said
        return kinds if hard else ()

    def _hard(self, train: Part, valid: Part, accuracy: float) -> tuple[bool, str]:
        """Tell whether a task is too difficult for a head on the frozen network, and how the reason goes on."""
        settings = self.settings
        if settings.difficulty == "head":
            hard = accuracy < settings.enough_accuracy
            return hard, f" < {settings.enough_accuracy:.0%}" if hard else ""
        label, measure = DIFFICULTIES[settings.difficulty]
        rows = train.rows.with_rows(valid.rows)
        distance = measure(rows.features, rows.labels, rows.classes)
        hard = distance > settings.enough_distance
        return hard, f"; {label} distance {distance:.3f} {'>' if hard else '≤'} {settings.enough_distance:g}"

    def _kinds(self) -> tuple[Kind, ...]:
        """Return what the settings allow to be trained; adapters only in a network that has a place for them."""
        fits = isinstance(self.frozen.module.network, ImageNetResNet18)
        return tuple(kind for kind in TRAINED[self.settings.expert] if fits or kind != "adapted")

    @property
    def _last(self) -> int:
        """Features of the network's last stage; with pixels, all."""
        return last_features(self.frozen.module)

    def _projection(self, inputs: int) -> RandomFeatures:
        """Return the random features, drawn once."""
        if self._random is None:
            self._random = RandomFeatures(self._last or inputs, RANDOM_FEATURES, self.seed).to(self.frozen.extractor.device)
        return self._random

    def memory(self) -> dict[str, int]:
        """Count the bytes of prototypes and spreads, and of the seed of the projection."""
        return {"prototypes": self.relatedness.bytes, "spreads": self.relatedness.recognition.bytes, "seed": 8}

    def forgettable(self, task_index: int) -> Entangled | None:
        """Tell whether other tasks read the task's answers, or share its group."""
        readers = tuple(index for index, one in enumerate(self.learned) if task_index in one.earlier)
        if readers:
            return Entangled("other tasks read its answers", readers)
        return entangled_in_group(self.relatedness, task_index, "its distances are measured")

    def _let_go(self, task_index: int) -> None:
        del self.learned[task_index]
        for one in self.learned:
            one.earlier = tuple(index - (index > task_index) for index in one.earlier)
        self.relatedness.forget(task_index)

    def state_dict(self) -> Tree:
        """Return tasks, the frozen network, the classifiers, groups and prototypes."""
        return self.network_state() | {
            "tasks": self._tasks_state(),
            "seed": self.seed,
            "learned": [one.state() for one in self.learned],
            "relatedness": self.relatedness.state(),
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.seed, self.learned, self._random = state["seed"], [], None
        self.relatedness = Relatedness.from_state(self.settings, state["relatedness"], device)
        if not self.load_network(state, device):
            return
        for saved in state["learned"]:
            classes, inputs = saved["own"]["logistic.weight"].shape
            own = OwnHead(self._projection(inputs), inputs, self._last, classes)
            related = None if saved["related"] is None else nn.Linear(saved["related"]["weight"].shape[1], classes)
            adapted = None if saved["adapted"] is None else adapted_network(self.frozen.module, self.settings, classes, device)
            side = None if saved.get("side") is None else side_network(self.settings, classes, device)
            learned = Classifiers(own, related, tuple(saved["earlier"]), adapted, side, Mixture(**saved["mixture"]))
            for name, module in learned.named().items():
                module.load_state_dict(saved[name])
                freeze(module.to(device))
            self.learned.append(learned)


def _nearness(decision: Decision, *, shares: bool) -> str:
    """Say how near the nearest group is; cells, and the distance at which they are reused, have no part in it."""
    if shares or not decision.group_distances:
        return decision.reason.rpartition(":")[0]
    nearest = min(range(len(decision.group_distances)), key=decision.group_distances.__getitem__)
    return f"{decision.group_distances[nearest]:.3f} > α {decision.alpha:g} from group {nearest}"


def _accuracy(mixture: Mixture, answers: Answers, labels: Tensor) -> float:
    """Return the share of images that a mixture answers rightly."""
    return right(mixture.mixed(answers), labels)
