"""LMC: Local Module Composition (Ostapenko, Rodriguez, Caccia & Charlin, NeurIPS 2021, arXiv 2111.07736).

Every layer holds modules with a functional part and a local structural part, which reconstructs the layer's input from the module's output
(`networks/composition.py` has the equations). Modules are weighted by how well they reconstruct, without a task id. A new task is learned
layer by layer, from the bottom up:

    z_m = (mean l_m - mu_m) / sigma_m         mu_m, sigma_m: of the task that module m was trained on

1. Where |z_m| > outlier_threshold for all modules of a layer, which are all frozen, the layer gets a new one.
2. Projection: for `projection_epochs` the new module alone is trained with the task's head, such that the frozen modules above know what it
   gives. Then the next layer is looked at.
3. The new modules and the head are trained together; then modules, statistics and head are frozen permanently.

    step 2:  L = CE + structural_weight * (mean l of the new module + sum over layers above of mean sum_m w_m l_m)
    step 3:  L = CE + structural_weight * sum over new modules of mean l

Layers that know the task get nothing; if all do, only a head is trained. The first task fills every layer with a module.

Without a task id the head is chosen by its own structural part, a linear auto-encoder of the features (`task_probabilities`), after the
normalization of its task: an image of an unknown task is prepared, and passed through the layers, once for each normalization.

With a task id only head and normalization follow from it: modules that came later take part in answers for earlier tasks, as in the paper.
All modules are therefore named by `modules`, and counted, with their structural parts, which routing needs. What is frozen keeps its bits;
answers do not, and forgetting is small, not zero. With `batch_prior` answers depend on which images are asked about together.

Choices where the paper is silent, or where its code is not followed:

* The code tests each training batch while it trains, against running statistics over the last steps of a module's training, and the first
  batch that is an outlier to all modules of a layer opens a new one: with 6,300 batches and a threshold of 4, three layers in four if z of
  the task is 0.5 on average. Here the test stands between two phases, so that each phase is one training that can be resumed. By default
  (`outlier_test` "batches") it looks at as many batches as the training has, drawn as there, so that the threshold means what it means in
  the code: one of them is enough. "mean" looks at all training images at once, which no single odd batch can trigger: with the same
  threshold, layers almost never grow.
* mu and sigma are measured with the weights that are kept, which are those of the best epoch, in evaluation mode, as the module is used
  later. sigma is that of a mean over a batch, hence the deviation over images divided by the root of the batch's size. Images are not
  augmented, neither then nor now.
* In the code images that are outliers to all other modules of a layer go through its new module alone while that is trained. That is there
  to be asked for (`catch_outliers`; of single images, so that sigma is the deviation over images) and off, since answers, which routing
  alone weights, then come from another network than the one that was trained.
* One sweep over the layers: what lies below a layer is settled when it is tested. At most one new module a layer and task.
* In the projection the losses above are weighted by the routing, so that the new module needs to please only modules that are in use, and
  gradients take both ways through them: by their decoders, and by what is to be reconstructed. Earlier new modules wait.
* Epochs: all phases together have the epochs of the training settings. A projection has at most a share of them, epochs / (2 * layers),
  so that half remain for step 3 (the paper: at least 10), and at least one; trainings of fewer than 2 * layers epochs come out longer.
* The best epoch is chosen in step 3. A projection keeps its last epoch, and has the plain `weight_decay` if there is a grid of them.
* SGD as for all methods here, where the paper has Adam with a rate of 0.001. Batch norms of frozen modules stay as they are, also at test.
* `projection_epochs` has no default in the paper (5 to 20); with 10, four projections leave 60 of 100 epochs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from lifelong.data.augment import normalize
from lifelong.data.task import Normalization, Task
from lifelong.errors import LifelongError
from lifelong.methods.method import Context, LearnRecord, Method
from lifelong.networks.blocks import make_chain
from lifelong.networks.composition import Catch, Layers, LocalModule, Routing, StructuralHead, compose, log, make_module
from lifelong.networks.frozen import freeze
from lifelong.networks.library import ModuleLibrary
from lifelong.settings.growing import LMCSettings
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples, batched, image_examples
from lifelong.training.fit import Batch, Loss, Predict, fit
from lifelong.training.select import fit_selected
from lifelong.training.stages import derive_seed
from lifelong.trees import weights_of


@dataclass
class Growth:
    """The growing network while a task is learned.

    Attributes:
        layers: the modules of each layer; a new one is the last of its layer.
        head: the new task's.
        new: the layers that have a new module.
    """

    layers: list[list[LocalModule]]
    head: StructuralHead
    new: list[int] = field(default_factory=list)

    def added(self) -> list[LocalModule]:
        """Return the new modules, from the bottom up."""
        return [self.layers[position][-1] for position in self.new]


@dataclass(frozen=True)
class Samples:
    """The batches that a layer is tested with.

    Attributes:
        batches: positions of images, (b, size), for each size that there is.
        deviation_size: batch size used for the deviation of a mean; None: each batch's own.
    """

    batches: list[Int64[Tensor, "_b _size"]]
    deviation_size: int | None = None


def outlyingness(modules: Sequence[LocalModule], losses: Float[Tensor, "m n"], tested: Samples) -> float:
    """Compute the maximum over batches of the smallest |z| of a layer's modules.

    Args:
        modules: of the layer.
        losses: of each on each training image.
        tested: the batches.
    """
    farthest = 0.0
    for batches in tested.batches:
        means = losses[:, batches.to(losses.device)].mean(dim=2)  # (m, b)
        size = tested.deviation_size or batches.shape[1]
        z = torch.stack([module.outlyingness(own, size) for module, own in zip(modules, means, strict=True)])
        farthest = max(farthest, z.abs().amin(dim=0).max().item())
    return farthest


class LMC(Method[LMCSettings]):
    """Layers of modules that recognize their own inputs; a layer grows if none of its modules knows a task."""

    name = "lmc"

    def __init__(self, settings: LMCSettings) -> None:
        super().__init__(settings)
        chain = make_chain(self.settings.backbone, self.settings.init_channels, stem_pool=self.settings.stem_pool)
        self.chain = chain
        self.library = ModuleLibrary(lambda position: make_module(chain, position), len(chain))
        self.heads = nn.ModuleList()
        prior = self.settings.prior_temperature if self.settings.batch_prior else None
        self.routing = Routing(self.settings.routing_temperature, prior)

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return all modules, since any may take part in an answer, and the task's head."""
        return *self.library.modules, self.heads[task_index]

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Apply the task's head to the features of the whole composition."""
        return self.heads[task_index](self._features(inputs))

    @property
    def batch_dependent(self) -> bool:
        """Whether the batch prior is on."""
        return self.settings.batch_prior

    def task_probabilities(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n t"]:
        """Compute task probabilities from how well each head reconstructs the features: softmax(-log loss / routing_temperature)."""
        with torch.no_grad():
            features: dict[Normalization, Tensor] = {}
            for task in self.tasks:
                if task.normalization not in features:
                    features[task.normalization] = self._features(normalize(images, task.normalization))
            heads = cast(list[StructuralHead], list(self.heads))
            losses = [head.loss(features[task.normalization]) for head, task in zip(heads, self.tasks, strict=True)]
        return (-log(torch.stack(losses, dim=1)) / self.settings.routing_temperature).softmax(dim=1)

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Add modules from the bottom up where they are needed, and train them."""
        before = self.num_parameters()
        record = LearnRecord()
        examples = image_examples(task, augmented=context.training.augment, together=self.batch_dependent)
        with context.seeded("head"):
            head = StructuralHead(self.chain.feature_dim, len(task.classes)).to(context.device)
        growth = Growth(self.layers(), head)
        if self.tasks:
            record.reason = self._sweep(growth, examples, context, record)
        else:
            record.reason = "the first task: a module for each layer"
            for position in range(len(self.chain)):
                self.add(growth, position, None, context)
        self._train(growth, examples, context, record)
        with context.timed("statistics", record):
            for position, losses in enumerate(self.losses(growth.layers, examples)):
                if position in growth.new:
                    growth.layers[position][-1].set_statistics(losses[-1])
            head.fit_autoencoder(
                batched(
                    lambda inputs: compose(growth.layers, inputs, self.routing)[0],
                    examples.train,
                    examples.prepare,
                    together=examples.together,
                )
            )
        for position in growth.new:
            self.library.add(position, growth.layers[position][-1])
        freeze(head)
        self.heads.append(head)
        self._remember(task)
        record.frozen = not growth.new
        record.parameters_added = self.num_parameters() - before
        return record

    def layers(self) -> list[list[LocalModule]]:
        """Return the frozen modules of each layer."""
        return [cast(list[LocalModule], list(modules)) for modules in self.library.modules]

    def losses(self, layers: Layers, examples: Examples) -> list[Float[Tensor, "m n"]]:
        """Compute l_m of every module on every training image, by layer; not augmented, without gradients.

        Args:
            layers: all, or the lowest ones.
            examples: their training images are used.
        """

        def by_image(inputs: Tensor) -> Tensor:
            return torch.cat([step.losses for step in compose(layers, inputs, self.routing)[1]]).T  # (b, modules of all layers)

        return list(
            batched(by_image, examples.train, examples.prepare, together=examples.together).T.split([len(modules) for modules in layers])
        )

    def _sweep(self, growth: Growth, examples: Examples, context: Context, record: LearnRecord) -> str:
        """Run steps 1 and 2 for each layer from the bottom up; return the findings as text."""
        found = []
        self._check_started(context)
        for position, modules in enumerate(growth.layers):
            with context.timed("outliers", record):
                losses = self.losses(growth.layers[: position + 1], examples)[position]
                farthest = outlyingness(modules, losses, self._tested(position, losses.shape[1], context))
            found.append(f"{farthest:.1f}")
            if farthest > self.settings.outlier_threshold:
                self.add(growth, position, losses, context)
                self.project(growth, position, examples, context, record)
        where = f"a new module in layers {', '.join(map(str, growth.new))}" if growth.new else "no new module"
        of = "the smallest |z| of each" if self.settings.outlier_test == "mean" else "the smallest |z| of the farthest batch for each"
        return f"{where} of 0 to {len(self.chain) - 1}: {of} is {', '.join(found)}"

    def _tested(self, position: int, images: int, context: Context) -> Samples:
        """Return the batches that test a layer: those of a training, or all images as a single batch."""
        size = context.training.batch_size
        if self.settings.outlier_test == "mean":
            return Samples([torch.arange(images)[None]], size)
        generator = torch.Generator().manual_seed(derive_seed(context.seed, context.task_index, f"outliers-{position}"))
        parts = [
            part
            for _ in range(context.training.epochs)
            for part in torch.randperm(images, generator=generator).tensor_split(math.ceil(images / size))
        ]
        return Samples([torch.stack([part for part in parts if len(part) == length]) for length in sorted(set(map(len, parts)))])

    def _check_started(self, context: Context) -> None:
        """Refuse a task started by an earlier version of the library, which used another test."""
        stage = context.stage("outliers")
        if stage.outcome() is None:
            # Files that carry digests are of no such version: then the mark itself was damaged.
            if not context.seal.required and (context.began("train") or context.began("project-*")):
                raise LifelongError(
                    f"task '{context.task_name}': started by a version with another outlier test; delete the folder to start over"
                )
            stage.finish({"test": self.settings.outlier_test})

    def add(self, growth: Growth, position: int, losses: Float[Tensor, "m n"] | None, context: Context) -> None:
        """Put a new module into a layer, which starts as `module_init` says, or at random in a layer without modules."""
        with context.seeded(f"module-{position}"):
            module = make_module(self.chain, position).to(context.device)
        if losses is not None and self.settings.module_init != "fresh":
            known = growth.layers[position]
            sources = known if self.settings.module_init == "mean" else [known[int(losses.mean(dim=1).argmin())]]
            module.load_state_dict(mean_state([source.state_dict() for source in sources]))
        growth.layers[position].append(module)
        growth.new.append(position)

    def project(self, growth: Growth, position: int, examples: Examples, context: Context, record: LearnRecord) -> None:
        """Train only a new module and the head (step 2)."""
        freeze(*growth.added())
        module = growth.layers[position][-1].requires_grad_(True)
        without_validation = replace(examples, valid=examples.valid[:0], valid_labels=examples.valid_labels[:0])
        training = replace(context.training, epochs=self._projection_epochs(context.training), weight_decay_grid=())
        outcome = fit(
            nn.ModuleList([module, growth.head.classifier]),
            without_validation,
            self._prediction(growth),
            training,
            context.stage(f"project-{position}"),
            loss=self.loss(growth, projected=position),
        )
        record.trained(outcome, "project")

    def _train(self, growth: Growth, examples: Examples, context: Context, record: LearnRecord) -> None:
        """Train all new modules and the head for the remaining epochs (step 3)."""
        total = context.training.epochs
        spent = len(growth.new) * self._projection_epochs(context.training) if self.tasks else 0
        training = replace(context.training, epochs=max(total - spent, (total + 1) // 2))
        trained = nn.ModuleList([*growth.added(), growth.head.classifier]).requires_grad_(True)
        outcome = fit_selected(trained, examples, self._prediction(growth), training, context.stage("train"), loss=self.loss(growth))
        record.trained(outcome)

    def _projection_epochs(self, training: TrainingSettings) -> int:
        return max(1, min(self.settings.projection_epochs, training.epochs // (2 * len(self.chain))))

    def _prediction(self, growth: Growth) -> Predict:
        return lambda inputs: growth.head(compose(growth.layers, inputs, self.routing)[0])

    def loss(self, growth: Growth, projected: int | None = None) -> Loss:
        """Return the loss of step 3, or of step 2 for a layer's new module.

        Args:
            growth: the network in training.
            projected: the layer of step 2.
        """
        trained = growth.new if projected is None else [projected]
        catch = Catch(tuple(trained), self.settings.outlier_threshold) if self.settings.catch_outliers else None

        def loss(batch: Batch) -> Tensor:
            features, steps = compose(growth.layers, batch.inputs, self.routing, projected=projected, catch=catch)
            structural = [steps[position].losses[-1].mean() for position in trained]
            if projected is not None:
                structural += [(step.weights * step.losses).sum(dim=0).mean() for step in steps[projected + 1 :]]
            return F.cross_entropy(growth.head(features), batch.labels) + self.settings.structural_weight * sum(structural)

        return loss

    def _features(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        return compose(self.layers(), inputs, self.routing)[0]

    def memory(self) -> dict[str, int]:
        """Count the bytes of the mean and deviation of each module's loss."""
        modules = [module for layer in self.layers() for module in layer]
        return {"statistics": sum(module.loss_mean.nbytes + module.loss_std.nbytes for module in modules)}

    def state_dict(self) -> Tree:
        """Return tasks, modules with their statistics, and heads."""
        return {
            "tasks": self._tasks_state(),
            "library": self.library.state_dict(),
            "heads": [weights_of(head) for head in self.heads],
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.library.load_state_dict(state["library"], device)
        self.heads = nn.ModuleList()
        for weights in state["heads"]:
            classes, features = weights["classifier.weight"].shape
            head = StructuralHead(features, classes).to(device)
            head.load_state_dict(weights)
            freeze(head)
            self.heads.append(head)


def mean_state(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Average the states of equal modules; integers (the batches a batch norm has seen) come from the first."""
    first = states[0]
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0) if value.is_floating_point() else value
        for name, value in first.items()
    }
