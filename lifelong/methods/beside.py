"""Train what a task may get in addition to its head on a frozen network: adapters in the network's last stage, or a small network of cells.

adapted   the last stage with added low-rank convolutions, and a classifier on its averaged maps; it starts equal to the frozen network
side      PAR's cells on the images at their own size, with random initial weights, and a classifier: it can learn other features

Neither changes the frozen network. Both take images in ImageNet's normalization.

Sources: for adapters, `lifelong.networks.adapters`; for side networks, side-tuning (Zhang et al., ECCV 2020).
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from lifelong.data.augment import normalize
from lifelong.data.task import IMAGENET, Split, Task
from lifelong.devices import exact
from lifelong.methods.frozen_network import FrozenNetwork
from lifelong.methods.linear_probe import as_module
from lifelong.methods.method import Context, LearnRecord
from lifelong.networks.adapters import AdaptedStage
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import genotype
from lifelong.networks.pretrained import FrozenFeatures, Staged
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.settings.par import PARSettings
from lifelong.training.closed_form import Rows, exact_rows, logistic
from lifelong.training.examples import Examples, batched, image_examples
from lifelong.training.select import fit_selected

Kind = Literal["adapted", "side"]
"""What is trained; the name of its field in `Classifiers`."""

TRAINED: dict[str, tuple[Kind, ...]] = {"head": (), "adapter": ("adapted",), "side": ("side",), "auto": ("adapted", "side")}
"""What each value of `expert` tries, in this order, until the task's accuracy is high enough."""

WORDS: dict[Kind, str] = {"adapted": "adapters", "side": "a side network"}
"""Names used in the reason of a decision."""

START_PENALTY = 0.1
"""L2 penalty of the logistic regression that initializes the classifier on the adapters."""


class Part:
    """The images of a split, and their features.

    Args:
        frozen: computes the features.
        split: the images.
        classes: number of classes of the task.
        originals: how many images of the split others are copies of; None: none is a copy.
    """

    def __init__(self, frozen: FrozenNetwork, split: Split, classes: int, originals: int | None = None) -> None:
        self._images = split.images
        self.features = frozen.features(self._images)
        self.rows = exact_rows(self.features, split.labels, classes, originals)

    def mapped(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Apply a function to prepared images and their features, in batches of bounded memory."""
        places = torch.arange(len(self._images), device=self._images.device)
        return batched(lambda part: function(normalize(self._images[part], IMAGENET), self.features[part]), places)


def train_beside(
    kind: Kind,
    frozen: FrozenFeatures,
    train: Part,
    valid: Part,
    task: Task,
    settings: PARSettings,
    context: Context,
    record: LearnRecord,
) -> tuple[nn.Sequential, Float64[Tensor, "n c"]]:
    """Train adapters or a side network for a task.

    Args:
        kind: which of them.
        frozen: the frozen network.
        train, valid: the task's images.
        task: the task.
        settings: PAR's settings.
        context: the task's context.
        record: takes the cost of training.

    Returns:
        The network, and its log-probabilities on the validation images.
    """
    if kind == "adapted":
        return _train_adapters(frozen, train, valid, settings, context, record)
    return _train_side(task, settings, context, record)


def adapted_network(frozen: FrozenFeatures, settings: PARSettings, classes: int, device: torch.device | str) -> nn.Sequential:
    """Build an adapted last stage, initially equal to the frozen one, with a classifier."""
    return _adapted(frozen, settings, nn.Linear(last_features(frozen), classes), device)


def side_network(settings: PARSettings, classes: int, device: torch.device | str) -> nn.Sequential:
    """Build a network of cells with a classifier."""
    cells = CellNetwork(genotype(settings.fixed_cell), settings.side_channels, settings.cells, reduce_bn=settings.reduce_bn)
    return nn.Sequential(cells, nn.Linear(cells.feature_dim, classes)).to(device=device, dtype=torch.get_default_dtype())


def maps_before_last(frozen: FrozenFeatures, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c _h _w"]:
    """Compute the maps that enter the network's last stage."""
    network = frozen.network
    assert isinstance(network, ImageNetResNet18)
    return list(itertools.islice(network.maps(frozen.resized(images)), len(network.stages) - 1))[-1][1]


def last_features(frozen: FrozenFeatures) -> int:
    """Return the number of features of the network's last stage; 0 if the network has no named stages."""
    network = frozen.network
    return list(network.stages.values())[-1] if isinstance(network, Staged) else 0


def all_stages(network: nn.Module) -> tuple[str, ...]:
    """Return the names of a network's stages; empty if it has none."""
    return tuple(network.stages) if isinstance(network, Staged) else ()


def _train_adapters(
    frozen: FrozenFeatures, train: Part, valid: Part, settings: PARSettings, context: Context, record: LearnRecord
) -> tuple[nn.Sequential, Float64[Tensor, "n c"]]:
    with context.timed("features", record):
        maps = [part.mapped(lambda images, _: maps_before_last(frozen, images)) for part in (train, valid)]
    last = Rows(train.rows.features[:, -last_features(frozen) :], train.rows.labels, train.rows.classes)
    with context.seeded("adapter"):
        network = _adapted(frozen, settings, as_module(logistic(last, START_PENALTY)), context.device)
    labels, judged = (part.rows.labels.to(context.device) for part in (train, valid))
    outcome = fit_selected(network, Examples(maps[0], labels, maps[1], judged), network, context.training, context.stage("train"))
    record.trained(outcome)
    return network, exact(batched(network, maps[1])).log_softmax(dim=1)


def _adapted(frozen: FrozenFeatures, settings: PARSettings, classifier: nn.Linear, device: torch.device | str) -> nn.Sequential:
    stage = AdaptedStage(list(getattr(frozen.network, all_stages(frozen.network)[-1])), settings.adapter_rank)
    return nn.Sequential(stage, classifier).to(device=device, dtype=torch.get_default_dtype())


def _train_side(task: Task, settings: PARSettings, context: Context, record: LearnRecord) -> tuple[nn.Sequential, Float64[Tensor, "n c"]]:
    with context.seeded("side"):
        network = side_network(settings, len(task.classes), context.device)
    training = replace(context.training, epochs=settings.side_epochs, lr=settings.side_lr)
    examples = replace(image_examples(task, augmented=training.augment), normalization=IMAGENET)
    outcome = fit_selected(network, examples, network, training, context.stage("side"))
    record.trained(outcome, "side")
    return network, exact(batched(network, examples.valid, examples.prepare)).log_softmax(dim=1)
