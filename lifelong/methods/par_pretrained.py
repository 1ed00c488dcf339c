"""PAR on a frozen pretrained network: the same question, asked of heads and adapters instead of networks of cells.

For each new task: is a learned task within alpha? Then its answers help (parameter sharing): the new head also reads the probabilities
of the group's earlier heads. Is the frozen network good enough for it? Then a head in closed form is all it gets. If not, low-rank
adapters in the network's last stage are trained for it, and kept if they do better on validation images (parameter allocation).
Nothing that answers for an earlier task ever changes.

The distances and the groups are the paper's (Eq. 2-6); the experts are this library's, not the paper's.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from lifelong.data.augment import normalize
from lifelong.data.task import IMAGENET, Split, Task
from lifelong.devices import exact
from lifelong.errors import LifelongError
from lifelong.methods.frozen_network import FrozenNetwork, OnFrozenNetwork, renormalized
from lifelong.methods.linear_probe import as_module
from lifelong.methods.method import Context, LearnRecord, Method, Recognized
from lifelong.methods.mixed_head import PENALTIES, Mixture, OwnHead, choose_mixture, fit_own
from lifelong.methods.par import PAR
from lifelong.networks.adapters import AdaptedStage
from lifelong.networks.frozen import freeze
from lifelong.networks.pretrained import RandomFeatures, Staged
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.relatedness.assessment import Relatedness
from lifelong.relatedness.groups import Decision
from lifelong.settings.fields import settings_of
from lifelong.settings.par import PARSettings
from lifelong.storage import Tree
from lifelong.training.closed_form import Rows, choose_logistic, exact_rows, logistic, to_judge
from lifelong.training.examples import Examples, batched
from lifelong.training.examples import accuracy as right
from lifelong.training.select import fit_selected

RANDOM_FEATURES = 2000
"""Random features of the ridge regression, as `RanPACSettings` has by default (the paper of RanPAC: 10,000)."""

START_PENALTY = 0.1
"""L2 penalty of the logistic regression that the classifier behind the adapters starts as."""


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
    return PAR(settings) if settings.expert == "cells" else PretrainedPAR(settings)


@dataclass
class Classifiers:
    """What answers for one task.

    Attributes:
        own: its own head.
        related: reads the probabilities of the heads of `earlier`; None if they do not help.
        earlier: the earlier tasks of its group.
        adapted: the adapted stage and its classifier; None if the frozen features are good enough.
        mixture: the weights of the three.
    """

    own: OwnHead
    related: nn.Linear | None
    earlier: tuple[int, ...]
    adapted: nn.Sequential | None
    mixture: Mixture

    def modules(self) -> tuple[nn.Module, ...]:
        """Return those that are there."""
        return tuple(module for module in (self.own, self.related, self.adapted) if module is not None)


class PretrainedPAR(OnFrozenNetwork[PARSettings]):
    """A frozen network, a head in closed form per task, and adapters where they pay."""

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
        return self._answer(renormalized(inputs, self.tasks[task_index].normalization), task_index)

    def _answer(self, images: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        learned = self.learned[task_index]
        features = self.frozen.module(images)
        related = None
        if learned.related is not None:
            related = learned.related(self._read(images, features, learned.earlier)).log_softmax(dim=1)
        adapted = None if learned.adapted is None else learned.adapted(self._maps(images)).log_softmax(dim=1)
        own = learned.own(features) if learned.mixture.own else None
        return learned.mixture.mixed([own, related, adapted])

    def _read(self, images: Float[Tensor, "n 3 h w"], features: Float[Tensor, "n d"], earlier: tuple[int, ...]) -> Float[Tensor, "n k"]:
        """Return the probabilities of the classes of earlier tasks, each by its own head, and its adapters where it has them."""
        columns = []
        for index in earlier:
            learned = self.learned[index]
            answer = learned.own(features)
            if learned.adapted is not None:
                answer = (answer + learned.adapted(self._maps(images)).log_softmax(dim=1)) / 2
            columns.append(answer.softmax(dim=1))
        return torch.cat(columns, dim=1)

    def _maps(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c _h _w"]:
        """Compute the maps before the network's last stage."""
        sized = self.frozen.module
        network = sized.network
        assert isinstance(network, ImageNetResNet18)
        return list(itertools.islice(network.maps(sized.resized(images)), len(network.stages) - 1))[-1][1]

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

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Measure the task, decide, and give it a head, related heads to read, or adapters."""
        before, record = self.num_parameters(), LearnRecord(alpha=self.settings.alpha, frozen=True)
        with context.timed("features", record):
            if not self.tasks:
                self.seed = context.seed
            self.open_network(context)
            train = _Part(self.frozen, task.train, len(task.classes), flip=task.augmentation.flip)
            valid = _Part(self.frozen, task.valid, len(task.classes))
        with context.timed("distances", record):
            decision = self.relatedness.assess(task, self.frozen.extractor if self.relatedness.needed else None)
        if decision.warning:
            context.note(decision.warning, record)
        record.divergences, record.group_distances = list(decision.divergences), list(decision.group_distances)
        shares = decision.decision == "reuse-expert"
        group = decision.group if shares and decision.group is not None else len(self.relatedness.groups)
        learned = self._fit(train, valid, tuple(self.relatedness.groups.members[group]) if shares else (), task, context, record)
        if shares:
            self.relatedness.groups.join(group, len(task.train))
        else:
            self.relatedness.groups.open(len(task.train))
        self.learned.append(learned)
        self._remember(task)
        record.decision = "adapter" if learned.adapted is not None else "reuse-expert" if learned.related is not None else "head"
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
        return _stages(network)

    def _fit(
        self, train: "_Part", valid: "_Part", earlier: tuple[int, ...], task: Task, context: Context, record: LearnRecord
    ) -> Classifiers:
        """Fit the classifiers of a task, and weigh them on its validation images."""
        with context.timed("head", record):
            random = self._projection(train.rows.features.shape[1])
            tried, whole = fit_own(train.rows, valid.rows, random, self._last)
            own = OwnHead(random, train.rows.features.shape[1], self._last, train.rows.classes).to(train.rows.features)
            whole.write_to(own)
            judges = to_judge(train.rows, valid.rows)[1]
            answers = tried.log_probabilities(judges.features, random, self._last)
            related, answers_related = self._fit_related(train, valid, earlier)
            mixture = choose_mixture(answers, answers_related, None, judges.labels)
        accuracy = _accuracy(mixture, (answers, answers_related, None), judges.labels)
        record.hyperparameters["valid_accuracy"] = accuracy
        record.reason = f"head right on {accuracy:.0%} of validation images"
        adapted = None
        if self.settings.expert == "adapter" and accuracy < self.settings.enough_accuracy and len(task.valid):
            adapted, answers_adapted = self._train_adapters(train, valid, task, context, record)
            found = choose_mixture(answers, answers_related, answers_adapted, judges.labels)
            better = _accuracy(found, (answers, answers_related, answers_adapted), judges.labels)
            record.reason += f" < {self.settings.enough_accuracy:.0%}; {better:.0%} with adapters: "
            kept = bool(found.adapted) and better > accuracy
            record.reason += "kept" if kept else "dropped"
            record.frozen = not kept
            record.hyperparameters["valid_accuracy"] = better if kept else accuracy
            mixture, adapted = (found, adapted) if kept else (mixture, None)
        if not mixture.related:
            related, earlier = None, ()
        else:
            names = ", ".join(self.tasks[index].name for index in earlier)
            record.reason += f"; reads the answers for {names}"
        learned = Classifiers(own, related, earlier, adapted, mixture)
        for module in learned.modules():
            freeze(module.to(device=context.device, dtype=torch.get_default_dtype()))
        return learned

    def _fit_related(
        self, train: "_Part", valid: "_Part", earlier: tuple[int, ...]
    ) -> tuple[nn.Linear | None, Float64[Tensor, "n c"] | None]:
        """Fit a logistic regression on the probabilities of related tasks; returns it with its answers on the images that judge."""
        if not earlier:
            return None, None
        read = lambda images, features: self._read(images, features, earlier)  # noqa: E731
        rows = [exact_rows(part.mapped(read), part.rows.labels, part.rows.classes) for part in (train, valid)]
        fitted_on, judges = to_judge(*rows)
        penalty, tried = choose_logistic(fitted_on, judges, PENALTIES, by="loss")
        whole = logistic(rows[0].with_rows(rows[1]), penalty)
        return as_module(whole), tried(judges.features).log_softmax(dim=1)

    def _train_adapters(
        self, train: "_Part", valid: "_Part", task: Task, context: Context, record: LearnRecord
    ) -> tuple[nn.Sequential, Float64[Tensor, "n c"]]:
        """Train adapters in the last stage with a classifier behind them; returns both with their answers on the validation images."""
        with context.timed("features", record):
            maps = [part.mapped(lambda images, _: self._maps(images)) for part in (train, valid)]
        last = Rows(train.rows.features[:, -self._last :], train.rows.labels, train.rows.classes)
        with context.seeded("adapter"):
            network = self._adapted(as_module(logistic(last, START_PENALTY)), context.device)
        examples = Examples(maps[0], train.rows.labels.to(context.device), maps[1], task.valid.labels)
        outcome = fit_selected(network, examples, network, context.training, context.stage("train"))
        record.trained(outcome)
        return network, exact(batched(network, maps[1])).log_softmax(dim=1)

    def _adapted(self, classifier: nn.Linear, device: torch.device | str) -> nn.Sequential:
        network = self.frozen.module.network
        stage = AdaptedStage(list(getattr(network, _stages(network)[-1])), self.settings.adapter_rank)
        return nn.Sequential(stage, classifier).to(device=device, dtype=torch.get_default_dtype())

    @property
    def _last(self) -> int:
        """Features of the network's last stage; with pixels, all."""
        network = self.frozen.module.network
        return list(network.stages.values())[-1] if isinstance(network, Staged) else 0

    def _projection(self, inputs: int) -> RandomFeatures:
        """Return the random features, drawn once."""
        if self._random is None:
            self._random = RandomFeatures(self._last or inputs, RANDOM_FEATURES, self.seed).to(self.frozen.extractor.device)
        return self._random

    def memory(self) -> dict[str, int]:
        """Count the bytes of prototypes and spreads, and of the seed of the projection."""
        return {"prototypes": self.relatedness.bytes, "spreads": self.relatedness.recognition.bytes, "seed": 8}

    def state_dict(self) -> Tree:
        """Return tasks, the frozen network, the classifiers, groups and prototypes."""
        learned = [
            {
                "own": one.own.state_dict(),
                "related": None if one.related is None else one.related.state_dict(),
                "earlier": list(one.earlier),
                "adapted": None if one.adapted is None else one.adapted.state_dict(),
                "mixture": one.mixture.state(),
            }
            for one in self.learned
        ]
        return self.network_state() | {
            "tasks": self._tasks_state(),
            "seed": self.seed,
            "learned": learned,
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
            adapted = None if saved["adapted"] is None else self._adapted(nn.Linear(self._last, classes), device)
            learned = Classifiers(own, related, tuple(saved["earlier"]), adapted, Mixture(**saved["mixture"]))
            for module, weights in zip(learned.modules(), [saved[key] for key in ("own", "related", "adapted") if saved[key]], strict=True):
                module.load_state_dict(weights)
                freeze(module.to(device))
            self.learned.append(learned)


class _Part:
    """Images of a split in which a task is learned, each also mirrored where that is wanted, and their features.

    Args:
        frozen: gives the features.
        split: the images.
        classes: of the task.
        flip: whether to add each image mirrored.
    """

    def __init__(self, frozen: FrozenNetwork, split: Split, classes: int, *, flip: bool = False) -> None:
        self._frozen = frozen
        self._images = torch.cat([split.images, split.images.flip(3)]) if flip else split.images
        self.features = frozen.features(self._images)
        self.rows = exact_rows(self.features, split.labels.repeat(2 if flip else 1), classes)

    def mapped(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Compute what a function makes of prepared images and their features, in steps of bounded memory."""
        places = torch.arange(len(self._images), device=self._images.device)
        return batched(lambda part: function(normalize(self._images[part], IMAGENET), self.features[part]), places)


def _stages(network: nn.Module) -> tuple[str, ...]:
    """Return all stages of a network; none for one that names none."""
    return tuple(network.stages) if isinstance(network, Staged) else ()


def _nearness(decision: Decision, *, shares: bool) -> str:
    """Say how near the nearest group is; cells, and the distance at which they are reused, have no part in it."""
    if shares or not decision.group_distances:
        return decision.reason.rpartition(":")[0]
    nearest = min(range(len(decision.group_distances)), key=decision.group_distances.__getitem__)
    return f"{decision.group_distances[nearest]:.3f} > α {decision.alpha:g} from group {nearest}"


def _accuracy(mixture: Mixture, answers: Sequence[Tensor | None], labels: Tensor) -> float:
    """Return the share of images that a mixture answers rightly."""
    weights = (mixture.own, mixture.related, mixture.adapted)
    mixed = mixture.mixed([answer if weight else None for weight, answer in zip(weights, answers, strict=True)])
    return right(mixed, labels)
